"""What test rows may leave unseen: the values of a metric if some rows, of which none was drawn, are good or bad.

Rows that are all alike, such as 30 right answers, have no spread to make an interval of. The exact interval of a share
(Clopper and Pearson, 1934) is then made of the truths under which such rows would be seen with a probability of 2.5 %.
The same is done here for every metric: rows that n tests miss with that probability
(`embedpipe.statistics.unseen_share`) are added, predicted as well or as badly as can be, to all classes alike or to
one rare class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe.evaluation.metrics import PredictedRows
from embedpipe.statistics import unseen_share

#: Number of classes, the rarest ones, to which unseen rows are added one class at a time.
RAREST = 8
#: Metrics to which the class of a row makes no difference.
ANY_CLASS = ("accuracy", "log_loss", "brier", "mae", "rmse", "r2")

Floats = npt.NDArray[np.float64]


def unseen_range(
    metric: str, rows: PredictedRows, groups: npt.NDArray[Any], reference: PredictedRows | None = None
) -> tuple[float, float]:
    """Return the lowest and highest value of a metric that the unseen rows allow.

    Parameters
    ----------
    metric : str
    rows : PredictedRows
        Each test row once.
    groups : array (n,)
        Rows of one group are not independent.
    reference : PredictedRows, optional
        Another model's predictions of the same rows: the values are then those of the difference from it, with unseen
        rows that one model predicts as well and the other as badly as can be.
    """
    if metric == "accuracy":
        rows = _right_or_wrong(rows)
        reference = None if reference is None else _right_or_wrong(reference)
    weights = _weights(metric, rows, groups)
    good, bad = (_with_unseen(metric, rows, is_good).metric(metric, weights) for is_good in (True, False))
    if reference is not None:
        good = good - _with_unseen(metric, reference, False).metric(metric, weights)
        bad = bad - _with_unseen(metric, reference, True).metric(metric, weights)
    values = np.concatenate([good, bad])
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if len(values) else (np.nan, np.nan)


def _right_or_wrong(rows: PredictedRows) -> PredictedRows:
    """Return rows of one class: accuracy does not depend on classes."""
    return PredictedRows(np.ones(len(rows.y), np.int64), rows.correct.astype(np.int64))


def _classes(metric: str, rows: PredictedRows) -> npt.NDArray[np.int64]:
    """Return the class of each unseen row; for numbers there is one such row."""
    return np.zeros(1, np.int64) if not rows.n_classes else np.unique(rows.y).astype(np.int64)


def _weights(metric: str, rows: PredictedRows, groups: npt.NDArray[Any]) -> Floats:
    """Return sets of weights of the rows and, behind them, of the unseen rows of each class."""
    classes = _classes(metric, rows)
    members = np.ones((1, len(rows.y)), bool) if not rows.n_classes else rows.y == classes[:, None]
    sizes = members.sum(axis=1)
    shares = [np.full(len(classes), unseen_share(len(np.unique(groups))))]
    if metric not in ANY_CLASS:
        for k in np.argsort(sizes, kind="stable")[:RAREST]:
            share = np.zeros(len(classes))
            share[k] = unseen_share(len(np.unique(groups[members[k]])))
            shares.append(share)
    unseen = np.stack(shares)
    return np.hstack([(1 - unseen) @ members, unseen * sizes])


def _with_unseen(metric: str, rows: PredictedRows, good: bool) -> PredictedRows:
    """Append one unseen row for each class, or for numbers one that is as far off as the mean usually is."""
    classes = _classes(metric, rows)
    if not rows.n_classes:
        if metric == "accuracy":
            y, predicted = np.ones(1, np.int64), np.full(1, int(good))
        else:
            spread = float(np.std(rows.y)) or max(abs(float(rows.y[0])), 1.0)
            y = np.full(1, float(np.mean(rows.y)) + spread)
            predicted = y if good else y - spread
        return replace(rows, y=_joined(rows.y, y), predicted=_joined(rows.predicted, predicted))
    predicted = classes if good else (classes + 1) % rows.n_classes
    ends = np.eye(rows.n_classes)[predicted]
    probabilities, scores = rows.probabilities, rows.scores
    if probabilities is not None:
        # A classifier that knows nothing, except where only the order of rows counts.
        chance = np.full(ends.shape, 1 / rows.n_classes)
        probabilities = _joined(probabilities, ends if good or metric == "roc_auc" else chance)
    if scores is not None:
        largest = float(np.abs(scores[np.isfinite(scores)]).max(initial=0.0)) + 1
        scores = _joined(scores, (2 * ends - 1) * largest)
    return replace(
        rows,
        y=_joined(rows.y, classes),
        predicted=_joined(rows.predicted, predicted),
        probabilities=probabilities,
        scores=scores,
    )


def _joined(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.concatenate([first, second])


def pooled(parts: Sequence[PredictedRows]) -> PredictedRows:
    """Return the rows of several resamples as one."""

    def joined(name: str) -> Any:
        arrays = [getattr(part, name) for part in parts]
        return None if any(array is None for array in arrays) else np.concatenate(arrays)

    names = ("y", "predicted", "probabilities", "scores")
    return replace(parts[0], **{name: joined(name) for name in names})
