"""Standardised rows in coordinates along their principal axes.

A rotation keeps the norm of the coefficients, and so the penalty, and makes the features uncorrelated: for every
penalty the Hessian of the logistic loss is then near a diagonal matrix. Solutions are linear combinations of the rows
(representer theorem: Kimeldorf and Wahba, Journal of Mathematical Analysis and Applications 33, 1971), so 300 rows of
1,280 features have 300 axes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from embedpipe.estimators.solvers.backend import NumpyBackend
from embedpipe.estimators.solvers.column_stats import ColumnStats, Matrix

if TYPE_CHECKING:
    from embedpipe.estimators.solvers.torch_matrix import TorchMatrix

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

#: The rows of matrices of at most this many bytes are kept in their coordinates; of others, coefficients are rotated.
MAX_COPY = 1 << 26
#: With more features than this, the features themselves are the axes: a matrix of correlations would fill the memory.
MAX_FEATURES = 4096
#: Bytes of the rows whose correlations are added at once.
BLOCK = 1 << 23


class PrincipalRows:
    """Rows of a matrix, standardised, and their principal axes.

    Parameters
    ----------
    X : float array (n_samples, n_features)
        Not changed.
    columns : ColumnStats
        Means and scales to standardise with.

    Attributes
    ----------
    backend : NumpyBackend
        Array operations on coefficients and gradients.
    values : float array (n_samples, n_axes), or None
        The coordinates of the rows, unless the matrix is large.
    squares : float64 array (n_axes,)
        Mean square of the coordinates along each axis.
    """

    backend = NumpyBackend()

    def __init__(self, X: Matrix | TorchMatrix, columns: ColumnStats) -> None:
        self.X: Any = X
        self.columns = columns
        self.dtype = X.dtype
        self.values: npt.NDArray[Any] | None = None
        self._axes: Any = None  # (n_features, n_axes); None: the features are the axes
        self._prepare()

    def __len__(self) -> int:
        return len(self.X)

    def _prepare(self) -> None:
        self._mean = self.columns.mean.astype(self.dtype)
        self._inverse_scale = (1 / self.columns.scale).astype(self.dtype)
        n, dim = self.X.shape
        if 2 * n < dim and n <= MAX_FEATURES:
            self.dtype = np.dtype(np.float64)  # squares of few rows are precise enough in float64 only
            self.squares, self._axes, self.values = _few_axes(self.columns.standardised(self.X, np.arange(n)))
            return
        if self.X.nbytes <= MAX_COPY:
            self.values = self.standardised(np.arange(n))
        if dim > MAX_FEATURES:
            self.squares = np.where(self.columns.varies, 1.0, 0.0)
            return
        # The axes need not be exact, as long as they are orthogonal: others only give a worse estimate of the Hessian.
        driver = "evd" if dim > 1 else "ev"  # SciPy before 1.14 asks LAPACK's evd for too little room for one value
        squares, self._axes = eigh(self._correlations(), driver=driver, overwrite_a=True, check_finite=False)
        self.squares = np.maximum(squares, 0).astype(np.float64)
        if self.values is not None:
            self.values = self.values @ self._axes

    def standardised(self, rows: Rows) -> npt.NDArray[Any]:
        """Return a copy of rows, by number, standardised: (n_rows, n_features)."""
        Z: npt.NDArray[Any] = self.X[rows]  # a copy, by fancy indexing
        Z -= self._mean
        Z *= self._inverse_scale
        return Z

    def _correlations(self) -> npt.NDArray[Any]:
        """Return the mean product of standardised columns, (n_features, n_features)."""
        n, dim = self.X.shape
        if self.values is not None:
            return np.asarray(self.values.T @ self.values / self.dtype.type(n))
        total, step = np.zeros((dim, dim), self.dtype), max(dim, BLOCK // (4 * dim))
        for start in range(0, n, step):
            Z = self.standardised(np.arange(start, min(start + step, n)))
            total += Z.T @ Z
        total /= n
        return total

    def to_features(self, coef: Any) -> Any:
        """Turn coefficients along the axes, (..., n_axes), into those of standardised features, (..., n_features)."""
        return coef if self._axes is None else coef @ self._axes.T

    def to_axes(self, gradient: Any) -> Any:
        """Turn gradients by coefficients of standardised features into those by coefficients along the axes."""
        return gradient if self._axes is None else gradient @ self._axes

    def unscaled(self, coef: Floats, intercept: Floats) -> tuple[Floats, Floats]:
        """Turn a model along the axes, in NumPy arrays, into the same model on raw rows."""
        features = self.backend.to_numpy(self.to_features(self.backend.to_device(coef)))
        return self.columns.unscaled(features, intercept)


def _few_axes(Z: npt.NDArray[Any]) -> tuple[Floats, Floats, Floats]:
    """Return mean squares (rank,), axes (n_features, rank) and the rows' coordinates (n_rows, rank)."""
    Z = Z.astype(np.float64)
    squares, left = eigh(Z @ Z.T, check_finite=False)
    kept = squares > len(Z) * np.finfo(np.float64).eps * max(squares[-1], np.finfo(np.float64).tiny)
    kept[-1] = True  # one axis at least, also if all rows are the same
    squares, left = np.maximum(squares[kept], np.finfo(np.float64).tiny), left[:, kept]
    lengths = np.sqrt(squares)
    return squares / len(Z), Z.T @ (left / lengths), left * lengths
