"""The array operations of the solvers, in NumPy; a subclass has the same operations on a device of torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor
from scipy.linalg.blas import dsymm
from scipy.linalg.lapack import dpotri


class NumpyBackend:
    """Operations on NumPy arrays.

    Attributes
    ----------
    xp : module
        Has ``stack``, ``concatenate`` and ``zeros_like`` for the backend's arrays.
    """

    xp: Any = np

    def to_device(self, values: npt.NDArray[Any]) -> Any:
        """Return a NumPy array as an array of this backend."""
        return values

    def to_numpy(self, values: Any) -> npt.NDArray[Any]:
        """Return an array of this backend as a NumPy array."""
        array: npt.NDArray[Any] = values
        return array

    def cast(self, values: Any, dtype: np.dtype[Any]) -> Any:
        """Return a copy in another dtype."""
        return values.astype(dtype)

    def inverse(self, gram: Any, factor: float, ridge: float) -> Callable[[Any], Any]:
        """Return a function that multiplies rows (n, dim) by inv(factor * gram + ridge * identity), in float64."""
        matrix = factor * gram.astype(np.float64)
        matrix[np.diag_indices_from(matrix)] += ridge
        cholesky, _ = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
        # One product with the inverse a step is several times as quick as a triangular solve.
        inverse, _ = dpotri(cholesky, lower=True, overwrite_c=True)  # the lower triangle
        return lambda rows: dsymm(1.0, inverse, rows.T, lower=True).T
