"""What a solver computes with: NumPy's arrays in the processor's memory, or, as a subclass, tensors on a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor
from scipy.linalg.blas import dsymm
from scipy.linalg.lapack import dpotri


class Arrays:
    """NumPy's arrays.

    Attributes
    ----------
    xp : module
        Has ``stack``, ``concatenate`` and ``zeros_like`` for them.
    """

    xp: Any = np

    def there(self, values: npt.NDArray[Any]) -> Any:
        """Return an array of NumPy's as one of these."""
        return values

    def back(self, values: Any) -> npt.NDArray[Any]:
        """Return one of these as an array of NumPy's."""
        array: npt.NDArray[Any] = values
        return array

    def cast(self, values: Any, dtype: np.dtype[Any]) -> Any:
        """Return a copy in another type."""
        return values.astype(dtype)

    def inverse(self, gram: Any, factor: float, more: float) -> Callable[[Any], Any]:
        """Return what multiplies rows (n, dim) with the inverse of ``factor * gram + more * identity``, in float64."""
        matrix = factor * gram.astype(np.float64)
        matrix[np.diag_indices_from(matrix)] += more
        cholesky, _ = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
        # The inverse: it is multiplied with once a step, which is several times as quick as solving.
        inverse, _ = dpotri(cholesky, lower=True, overwrite_c=True)  # its lower triangle
        return lambda rows: dsymm(1.0, inverse, rows.T, lower=True).T
