"""Means and scales of columns, and standardisation block by block, without a copy of the whole matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embedpipe.splits.mapped_rows import MappedRows

Floats = npt.NDArray[np.float64]
#: A matrix (n_samples, n_features) in memory or in memory maps.
Matrix = npt.NDArray[Any] | MappedRows

#: Bytes of a float64 block of rows.
BLOCK = 1 << 23

TOO_LARGE = "X has values too large for float64 arithmetic (a square overflows): scale the features first"

#: No column is divided by less than this quantile of the standard deviations of the columns that vary.
FLOOR_QUANTILE = 0.25


class DeviceMatrix(Protocol):
    """A matrix (n_samples, n_features) on a device: it computes there and returns NumPy arrays."""

    shape: tuple[int, ...]
    dtype: Any

    def __len__(self) -> int: ...

    def moments(self, rows: npt.NDArray[np.int64], shares: Floats) -> tuple[Floats, Floats]:
        """Return mean and variance of each column of ``X[rows]``, weighted by ``shares``, which sum to 1."""
        ...

    def scores(self, coef: Floats, intercept: Floats, rows: npt.NDArray[np.int64]) -> Floats:
        """Return ``X[rows] @ coef.T + intercept``."""
        ...


def blocks(rows: int, dim: int) -> Iterator[slice]:
    """Yield slices that divide ``rows`` rows of ``dim`` values into blocks of at most `BLOCK` bytes."""
    step = max(1, BLOCK // (8 * dim))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


@dataclass(frozen=True)
class ColumnStats:
    """Mean and scale of each column over some rows of a matrix.

    Attributes
    ----------
    mean : float64 array (n_features,)
    scale : float64 array (n_features,)
        What centred columns are divided by: the standard deviation, with the variance floor of
        `VarianceFloorScaler`. Without the floor, 1 for constant columns.
    varies : bool array (n_features,)
        False for constant columns.
    """

    mean: Floats
    scale: Floats
    varies: npt.NDArray[np.bool_]

    @classmethod
    def measure(
        cls,
        X: Matrix | DeviceMatrix,
        rows: npt.NDArray[np.int64],
        weights: Floats | None = None,
        *,
        variance_floor: bool = True,
    ) -> ColumnStats:
        """Measure ``X[rows]``, optionally with weights (n_rows,), in float64 and two passes.

        Raises ValueError if a square overflows float64.
        """
        shares = np.full(len(rows), 1 / len(rows)) if weights is None else weights / weights.sum()
        if isinstance(X, np.ndarray | MappedRows):
            parts = list(blocks(len(rows), X.shape[1]))
            mean = sum(shares[part] @ X[rows[part]] for part in parts)
            with np.errstate(over="ignore"):
                variances = sum(shares[part] @ (X[rows[part]] - mean) ** 2 for part in parts)
        else:
            mean, variances = X.moments(rows, shares)
        return cls.of_moments(np.asarray(mean), np.asarray(variances), X.dtype, variance_floor=variance_floor)

    @classmethod
    def of_moments(cls, mean: Floats, variances: Floats, dtype: Any, *, variance_floor: bool) -> ColumnStats:
        """Return the statistics of columns whose means and variances are known, and whose values have this dtype.

        Raises ValueError if a square overflowed float64.
        """
        if not np.isfinite(variances).all():
            raise ValueError(TOO_LARGE)
        scale = np.sqrt(variances)
        # As in scikit-learn's StandardScaler, deviations that rounding alone can cause count as constant.
        noise = 10 * np.finfo(dtype).eps * np.maximum(np.abs(mean), np.finfo(np.float64).tiny)
        varies = scale > noise
        return cls(mean, with_variance_floor(scale, varies) if variance_floor else np.where(varies, scale, 1.0), varies)

    @classmethod
    def identity(cls, dim: int) -> ColumnStats:
        """Return mean 0 and scale 1, which leave rows unchanged."""
        return cls(np.zeros(dim), np.ones(dim), np.ones(dim, bool))

    def standardised(self, X: Matrix, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return a standardised copy of ``X[rows]``, in the dtype of ``X``."""
        Z = np.empty((len(rows), X.shape[1]), X.dtype)
        for part in blocks(*Z.shape):
            Z[part] = (X[rows[part]] - self.mean) / self.scale
        return Z

    def unscaled(self, coef: npt.NDArray[Any], intercept: npt.NDArray[Any]) -> tuple[Floats, Floats]:
        """Turn a linear model on standardised rows into the same model on raw rows.

        Coefficients of constant columns become 0: they hold nothing but rounding errors, which new rows could multiply.
        """
        raw = np.where(self.varies, np.asarray(coef, np.float64) / self.scale, 0.0)
        return raw, np.asarray(intercept, np.float64) - raw @ self.mean


def with_variance_floor(scale: Floats, varies: npt.NDArray[np.bool_]) -> Floats:
    """Return scales that are at least the lower quartile of the varying columns' scales; 1 if no column varies."""
    if not varies.any():
        return np.ones_like(scale)
    floor = np.quantile(scale[varies], FLOOR_QUANTILE, method="lower")
    raised: Floats = np.where(varies, np.maximum(scale, floor), floor)
    return raised


def scores_of(
    X: Matrix | DeviceMatrix,
    coef: Floats,
    intercept: Floats,
    rows: npt.NDArray[np.int64] | None = None,
) -> Floats:
    """Return ``X[rows] @ coef.T + intercept``, float64 (n_rows, n_outputs), block by block; all rows by default."""
    if not isinstance(X, np.ndarray | MappedRows):
        return X.scores(coef, intercept, np.arange(len(X)) if rows is None else rows)
    count = len(X) if rows is None else len(rows)
    scores = np.empty((count, len(coef)))
    for part in blocks(count, X.shape[1]):
        scores[part] = X[part if rows is None else rows[part]].astype(np.float64) @ coef.T + intercept
    return scores
