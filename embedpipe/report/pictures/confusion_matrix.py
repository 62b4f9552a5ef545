"""The metrics of a confusion matrix, and which of many classes are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpipe.errors import UsageError

Counts = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]

#: The most classes that are all drawn; of more, so many with the most errors.
MAX_ALL, MOST_CONFUSED = 59, 40


@dataclass(frozen=True)
class Matrix:
    """The classes to draw. Their metrics are computed over all classes."""

    counts: Counts
    names: list[str]
    shares: Shares  # of the rows
    recall: Shares
    precision: Shares
    items: Counts
    accuracy: float
    total_classes: int

    @classmethod
    def of(cls, counts: npt.ArrayLike, classes: Sequence[object]) -> Matrix:
        """Choose the classes to draw. Raises UsageError as `draw_confusion` does."""
        counts, names = _checked(counts, classes), [_named(value) for value in classes]
        right, items, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
        drawn = np.arange(len(names))
        if len(names) > MAX_ALL:
            drawn = np.argsort(2 * right - items - predicted, kind="stable")[:MOST_CONFUSED]
        with np.errstate(invalid="ignore"):  # NaN for a class that has no items, or is never predicted
            shares, precision = counts / items[:, None], right / predicted
        return cls(
            counts=counts[np.ix_(drawn, drawn)],
            names=[names[i] for i in drawn],
            shares=shares[np.ix_(drawn, drawn)],
            recall=shares.diagonal()[drawn],
            precision=precision[drawn],
            items=items[drawn],
            accuracy=float(right.sum() / items.sum()),
            total_classes=len(names),
        )


def short_number(count: int) -> str:
    """Return a number as short text, with k, M or G."""
    for unit, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.{0 if count >= 10 * unit else 1}f}{letter}"
    return str(count)


def _checked(counts: npt.ArrayLike, classes: Sequence[object]) -> Counts:
    array = np.asarray(counts)
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise UsageError(f"counts must be square, one row and one column per class, got shape {array.shape}")
    if array.size == 0 or not array.any():
        raise UsageError("counts must hold at least one item: all counts are 0")
    if not np.issubdtype(array.dtype, np.integer):
        raise UsageError(f"counts must be integers, not shares, got {array.dtype}")
    if array.min() < 0:
        raise UsageError(f"counts must be >= 0, got {array.min()}")
    if len(classes) != len(array):
        raise UsageError(
            f"classes must have one name per row of counts, got {len(classes)} names for {len(array)} rows"
        )
    return array.astype(np.int64)


def _named(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).strip() or "(blank)"
