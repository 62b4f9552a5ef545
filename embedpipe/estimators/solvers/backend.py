"""The array operations of the solvers, in NumPy; a subclass has the same operations on a device of torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class NumpyBackend:
    """Operations on NumPy arrays.

    Attributes
    ----------
    xp : module
        Has ``stack`` and ``concatenate`` for the backend's arrays.
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

    def dot(self, a: Any, b: Any) -> float:
        """Return the sum of the products of all values, in float64 if one of the arrays is."""
        return float(np.vdot(a, b))
