"""Metrics of predictions, and the direction of each.

Every metric is a function of row weights. A bootstrap, which draws new weights, is then a few matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe.statistics import log_losses

Floats = npt.NDArray[np.float64]

#: Task -> metric -> whether higher is better. The first metric orders the candidates by default.
METRICS: dict[str, dict[str, bool]] = {
    "classification": {
        "accuracy": True,
        "balanced_accuracy": True,
        "macro_f1": True,
        "roc_auc": True,
        "log_loss": False,
        "brier": False,
    },
    "regression": {"r2": True, "mae": False, "rmse": False},
}


@dataclass(frozen=True)
class PredictedRows:
    """True labels and predictions of some rows.

    Parameters
    ----------
    y, predicted : array (n,)
        Positions in the classes (int64), or numbers (float64).
    probabilities : float64 array (n, n_classes), optional
        Rows sum to 1.
    scores : float64 array (n, n_classes), optional
        Decision scores, for heads without probabilities.
    n_classes : int, default 0
        0 for regression.
    """

    y: npt.NDArray[Any]
    predicted: npt.NDArray[Any]
    probabilities: Floats | None = None
    scores: Floats | None = None
    n_classes: int = 0

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each row is predicted correctly."""
        return np.asarray(self.predicted == self.y)

    def metric_names(self) -> list[str]:
        """Return the metrics that are defined for these predictions."""
        if not self.n_classes:
            return [*METRICS["regression"]]
        names = ["accuracy", "balanced_accuracy", "macro_f1"]
        if self.n_classes == 2 and self._ordering is not None and len(np.unique(self.y)) == 2:
            names.append("roc_auc")
        return names if self.probabilities is None else [*names, "log_loss", "brier"]

    def metric(self, name: str, weights: Floats | None = None) -> Floats:
        """Return a metric for each set of row weights, float64 (n_sets,), NaN where it is not defined.

        Parameters
        ----------
        name : str
            One of `metric_names`.
        weights : float64 array (n_sets, n), optional
            By default one set in which every row has weight 1.
        """
        weights = np.ones((1, len(self.y))) if weights is None else weights
        with np.errstate(divide="ignore", invalid="ignore"):
            values: Floats = getattr(self, f"_{name}")(weights)
        return values

    def metrics(self) -> dict[str, float]:
        """Return all metrics of the unweighted rows."""
        return {name: float(self.metric(name)[0]) for name in self.metric_names()}

    @property
    def _ordering(self) -> Floats | None:
        return self.scores if self.probabilities is None else self.probabilities

    def _accuracy(self, weights: Floats) -> Floats:
        return _mean(self.correct, weights)

    def _counts(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """Return the weights of correct, true and predicted rows of each class, three arrays (n_sets, n_classes)."""
        classes = np.arange(self.n_classes)
        is_true, is_predicted = self.y[:, None] == classes, self.predicted[:, None] == classes
        correct, true, predicted = (weights @ rows for rows in (is_true & is_predicted, is_true, is_predicted))
        return correct, true, predicted

    def _balanced_accuracy(self, weights: Floats) -> Floats:
        correct, true, _ = self._counts(weights)
        return np.asarray(np.nanmean(correct / true, axis=1))  # NaN: a class without rows

    def _macro_f1(self, weights: Floats) -> Floats:
        correct, true, predicted = self._counts(weights)
        return np.asarray(np.nanmean(2 * correct / (true + predicted), axis=1))

    def _roc_auc(self, weights: Floats) -> Floats:
        """Return the share of pairs of both classes in the right order, ties counting half (Mann and Whitney, 1947)."""
        if self.probabilities is not None:
            score = self.probabilities[:, 1]  # a difference of both columns would round small values to ties
        else:
            assert self.scores is not None  # metric_names() has no roc_auc without scores
            score = self.scores[:, 1] - self.scores[:, 0]
        order = np.argsort(score, kind="stable")
        starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf) > 0)
        positive, negative = (
            np.add.reduceat(weights[:, order] * (self.y[order] == label), starts, axis=1) for label in (1, 0)
        )
        below = np.cumsum(negative, axis=1) - negative / 2
        return np.asarray((positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1)))

    def _log_loss(self, weights: Floats) -> Floats:
        assert self.probabilities is not None
        return _mean(log_losses(self.probabilities, self.y), weights)

    def _brier(self, weights: Floats) -> Floats:
        assert self.probabilities is not None
        truth = self.y[:, None] == np.arange(self.n_classes)
        return _mean(((self.probabilities - truth) ** 2).sum(axis=1), weights)

    def _r2(self, weights: Floats) -> Floats:
        y = self.y - np.median(self.y)  # squares of large numbers would lose the variance to rounding
        variance = _mean(y**2, weights) - _mean(y, weights) ** 2
        return 1 - _mean((self.y - self.predicted) ** 2, weights) / np.where(variance > 0, variance, np.nan)

    def _mae(self, weights: Floats) -> Floats:
        return _mean(np.abs(self.y - self.predicted), weights)

    def _rmse(self, weights: Floats) -> Floats:
        return np.sqrt(_mean((self.y - self.predicted) ** 2, weights))


def _mean(values: npt.NDArray[Any], weights: Floats) -> Floats:
    return np.asarray(weights @ values / weights.sum(axis=1))
