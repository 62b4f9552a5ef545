"""The figures of an evaluation: what each is, and which way is better.

All are functions of how much each row counts, so that a bootstrap, which counts rows anew, is a few matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: Task -> figure -> whether more is better. The first is what candidates are ordered by.
FIGURES: dict[str, dict[str, bool]] = {
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
#: Smallest probability that log-loss takes a class to have: of k neighbours none may be of it.
LEAST = 1e-3


@dataclass(frozen=True)
class Answers:
    """What is true of some rows, and what a head says of them.

    Parameters
    ----------
    y, predicted : array (n,)
        Positions in the classes (int64), or numbers (float64).
    probabilities : float64 array (n, n_classes), optional
        Rows sum to 1.
    scores : float64 array (n, n_classes), optional
        What orders the classes where there are no probabilities.
    n_classes : int
        0 for numbers.
    """

    y: npt.NDArray[Any]
    predicted: npt.NDArray[Any]
    probabilities: Floats | None = None
    scores: Floats | None = None
    n_classes: int = 0

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Which rows are predicted as what they are."""
        return np.asarray(self.predicted == self.y)

    def names(self) -> list[str]:
        """Return the figures that there are of these rows."""
        if not self.n_classes:
            return [*FIGURES["regression"]]
        names = ["accuracy", "balanced_accuracy", "macro_f1"]
        if self.n_classes == 2 and self._ordering is not None and len(np.unique(self.y)) == 2:
            names.append("roc_auc")
        return names if self.probabilities is None else [*names, "log_loss", "brier"]

    def figure(self, name: str, weights: Floats | None = None) -> Floats:
        """Return a figure for each way of counting rows, (n_ways,), NaN where it is not defined.

        ``weights``, (n_ways, n), say how much each row counts; where None there is one way, and all count 1.
        """
        counted = np.ones((1, len(self.y))) if weights is None else weights
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Floats = getattr(self, f"_{name}")(counted)
        return found

    def figures(self) -> dict[str, float]:
        """Return all figures, each row counting once."""
        return {name: float(self.figure(name)[0]) for name in self.names()}

    @property
    def _ordering(self) -> Floats | None:
        return self.scores if self.probabilities is None else self.probabilities

    def _accuracy(self, weights: Floats) -> Floats:
        return _mean(self.right, weights)

    def _counts(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """Return how many rows of each class are right, are there, and are predicted, (n_ways, n_classes)."""
        known = np.arange(self.n_classes)
        truth, said = self.y[:, None] == known, self.predicted[:, None] == known
        right, there, predicted = (weights @ which for which in (truth & said, truth, said))
        return right, there, predicted

    def _balanced_accuracy(self, weights: Floats) -> Floats:
        right, there, _ = self._counts(weights)
        return np.asarray(np.nanmean(right / there, axis=1))  # of the classes that are there

    def _macro_f1(self, weights: Floats) -> Floats:
        right, there, predicted = self._counts(weights)
        return np.asarray(np.nanmean(2 * right / (there + predicted), axis=1))

    def _roc_auc(self, weights: Floats) -> Floats:
        """Return the share of pairs of the two classes that are in order, ties half (Mann and Whitney, 1947)."""
        if self.probabilities is not None:
            second = self.probabilities[:, 1]  # less the other, small ones would be rounded to ties
        else:
            assert self.scores is not None  # or there would be no such figure
            second = self.scores[:, 1] - self.scores[:, 0]
        order = np.argsort(second, kind="stable")
        starts = np.flatnonzero(np.diff(second[order], prepend=-np.inf) > 0)
        positive, negative = (
            np.add.reduceat(weights[:, order] * (self.y[order] == which), starts, axis=1) for which in (1, 0)
        )
        below = np.cumsum(negative, axis=1) - negative / 2
        return np.asarray((positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1)))

    def _log_loss(self, weights: Floats) -> Floats:
        assert self.probabilities is not None
        return _mean(-np.log(np.maximum(self.probabilities[np.arange(len(self.y)), self.y], LEAST)), weights)

    def _brier(self, weights: Floats) -> Floats:
        assert self.probabilities is not None
        truth = self.y[:, None] == np.arange(self.n_classes)
        return _mean(((self.probabilities - truth) ** 2).sum(axis=1), weights)

    def _r2(self, weights: Floats) -> Floats:
        y = self.y - np.median(self.y)  # or the squares of large numbers would leave nothing but rounding
        squares = _mean(y**2, weights) - _mean(y, weights) ** 2
        return 1 - _mean((self.y - self.predicted) ** 2, weights) / np.where(squares > 0, squares, np.nan)

    def _mae(self, weights: Floats) -> Floats:
        return _mean(np.abs(self.y - self.predicted), weights)

    def _rmse(self, weights: Floats) -> Floats:
        return np.sqrt(_mean((self.y - self.predicted) ** 2, weights))


def _mean(values: npt.NDArray[Any], weights: Floats) -> Floats:
    return np.asarray(weights @ values / weights.sum(axis=1))
