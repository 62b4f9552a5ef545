"""Means and standard deviations of columns, and blocks of standardised rows, without a copy of the whole matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: Bytes of a float64 block.
BLOCK = 1 << 23

TOO_LARGE = "the features are too large or too small to compute with: scale them first"

#: The share of the columns that are scaled as the next one of them is.
FLOOR_QUANTILE = 0.25


class MatrixOnDevice(Protocol):
    """A matrix that is not NumPy's, (n_samples, n_features): it computes on its own device and returns NumPy arrays."""

    shape: tuple[int, ...]
    dtype: Any

    def __len__(self) -> int: ...

    def moments(self, rows: npt.NDArray[np.int64], shares: Floats) -> tuple[Floats, Floats]:
        """Return the mean and the variance of each column of some rows, whose ``shares`` sum to 1."""
        ...

    def scores(self, coef: Floats, intercept: Floats, rows: npt.NDArray[np.int64]) -> Floats:
        """Return ``X[rows] @ coef.T + intercept``."""
        ...


def blocks(rows: int, dim: int) -> Iterator[slice]:
    """Yield slices that cover ``rows`` rows of ``dim`` values, each a block of bounded size."""
    step = max(1, BLOCK // (8 * dim))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


@dataclass(frozen=True)
class Columns:
    """The mean and scale of each column of some rows of a matrix.

    ``scale`` is that of `VarianceFloorScaler`, which says why; without a floor it is the standard deviation, and 1 for
    a constant column. ``varies`` says which columns are not.
    """

    mean: Floats
    scale: Floats
    varies: npt.NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        X: npt.NDArray[Any] | MatrixOnDevice,
        rows: npt.NDArray[np.int64],
        weights: Floats | None = None,
        *,
        level: bool = True,
    ) -> Columns:
        """Measure ``X[rows]``, which may have weights (n_rows,), in float64, in two passes.

        Raises ValueError if a square is more than float64 holds.
        """
        shares = np.full(len(rows), 1 / len(rows)) if weights is None else weights / weights.sum()
        if isinstance(X, np.ndarray):
            parts = list(blocks(len(rows), X.shape[1]))
            mean = sum(shares[part] @ X[rows[part]] for part in parts)
            with np.errstate(over="ignore"):
                variances = sum(shares[part] @ (X[rows[part]] - mean) ** 2 for part in parts)
        else:
            mean, variances = X.moments(rows, shares)
        if not np.isfinite(variances).all():
            raise ValueError(TOO_LARGE)
        scale = np.sqrt(variances)
        # As in scikit-learn's StandardScaler: what rounding alone would give counts as constant.
        noise = 10 * np.finfo(X.dtype).eps * np.maximum(np.abs(mean), np.finfo(np.float64).tiny)
        varies = scale > noise
        return cls(mean, with_variance_floor(scale, varies) if level else np.where(varies, scale, 1.0), varies)

    @classmethod
    def as_they_are(cls, dim: int) -> Columns:
        """Return what leaves columns as they are."""
        return cls(np.zeros(dim), np.ones(dim), np.ones(dim, bool))

    def standardised(self, X: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return a standardised copy of ``X[rows]``, in the type of ``X``."""
        Z = np.empty((len(rows), X.shape[1]), X.dtype)
        for part in blocks(*Z.shape):
            Z[part] = (X[rows[part]] - self.mean) / self.scale
        return Z

    def unscaled(self, coef: npt.NDArray[Any], intercept: npt.NDArray[Any]) -> tuple[Floats, Floats]:
        """Turn a linear model of standardised rows into the same model of rows as they are.

        Of a constant column nothing was learned: what its coefficient has is rounding, which a new row could multiply.
        """
        raw = np.where(self.varies, np.asarray(coef, np.float64) / self.scale, 0.0)
        return raw, np.asarray(intercept, np.float64) - raw @ self.mean


def with_variance_floor(scale: Floats, varies: npt.NDArray[np.bool_]) -> Floats:
    """Return the scales of columns, none below the lower quartile of those that vary; 1 where none does."""
    if not varies.any():
        return np.ones_like(scale)
    least = np.quantile(scale[varies], FLOOR_QUANTILE, method="lower")
    raised: Floats = np.where(varies, np.maximum(scale, least), least)
    return raised


def scores_of(
    X: npt.NDArray[Any] | MatrixOnDevice,
    coef: Floats,
    intercept: Floats,
    rows: npt.NDArray[np.int64] | None = None,
) -> Floats:
    """Return ``X @ coef.T + intercept`` in float64, (n_samples, n_outputs), of all rows or some, block by block."""
    if not isinstance(X, np.ndarray):
        return X.scores(coef, intercept, np.arange(len(X)) if rows is None else rows)
    count = len(X) if rows is None else len(rows)
    scores = np.empty((count, len(coef)))
    for part in blocks(count, X.shape[1]):
        scores[part] = X[part if rows is None else rows[part]].astype(np.float64) @ coef.T + intercept
    return scores
