"""Giving back undecided what a classifier is least sure of, or what is unlike all it has learned."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, validate_data

from embedpipe._utils.public import public_in
from embedpipe.estimators.knn import FaissKNNClassifier
from embedpipe.estimators.linear.base import FLOATS
from embedpipe.estimators.solvers.column_stats import Floats
from embedpipe.estimators.wrappers.base import Weights, WrappedClassifier
from embedpipe.splits.inner import Folds, Split, take_rows

RejectBy = Literal["probability", "distance"]

#: To which nearest training row the distance is.
NEIGHBOR = 10


@public_in("embedpipe.estimators")
class RejectingClassifier(ClassifierMixin, WrappedClassifier):  # type: ignore[misc]
    """A classifier that also says which rows it would rather give back undecided.

    Rejected is what scores above a threshold: the score that ``share`` of the training rows exceed when they
    are not seen. By probability the score is one less the largest probability (Chow, IEEE Trans. Information Theory
    1970; Geifman and El-Yaniv, NeurIPS 2017); by distance the cosine distance to the 10th nearest training row (Sun
    et al., Out-of-distribution detection with deep nearest neighbors, ICML 2022), which finds rows of no class.

    Parameters
    ----------
    estimator : classifier
    share : float
        Of the rows, which is to be rejected, between 0 and 1.
    by : {"probability", "distance"}
    cv : int, iterable of (train rows, held-out rows), or None
        What to hold out. By default 5 folds, or one held-out fifth of more than 20,000 rows; for distances, each
        row alone. A head that chooses its penalty does that on them too.

    Attributes
    ----------
    threshold_ : float
    estimator_ : classifier
        Fitted on all rows.
    neighbors_ : FaissKNNClassifier
        The training rows, by distance only.
    """

    def __init__(self, estimator: Any, *, share: float = 0.1, by: RejectBy = "probability", cv: Folds = None) -> None:
        self.estimator = estimator
        self.share = share
        self.by = by
        self.cv = cv

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the classifier and the threshold: ``X`` (n_samples, n_features), ``y`` (n_samples,).

        Weights enter the fits, not the share of the rows.
        """
        if not 0 < self.share < 1:
            raise ValueError(f"share={self.share!r} must be between 0 and 1, such as 0.1")
        if self.by not in ("probability", "distance"):
            raise ValueError(f"by={self.by!r} is neither 'probability' nor 'distance'")
        X, y = validate_data(self, X, y, dtype=FLOATS)
        check_classification_targets(y)
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=np.float64)
        splits = self._fit_inside(X, y, weights, classes=True)
        self.classes_ = self.estimator_.classes_
        near = self.by == "distance"
        scores = self._distances(X, y, splits) if near else self._doubts(X, y, weights, splits)
        if not len(scores):
            raise ValueError("too few rows of each class to hold any out for the threshold of rejection")
        self.threshold_ = float(np.quantile(scores, 1 - self.share, method="lower"))
        return self

    def reject_score(self, X: Any) -> Floats:
        """Return how much speaks against deciding, float64 (n_samples,): 1 - probability, or a cosine distance."""
        X = self._rows(X)
        return _doubt(self.estimator_, X) if self.by == "probability" else _distance(self.neighbors_, X)

    def rejected(self, X: Any) -> npt.NDArray[np.bool_]:
        """Say which rows score above ``threshold_``, (n_samples,)."""
        above: npt.NDArray[np.bool_] = self.reject_score(X) > self.threshold_
        return above

    def _doubts(self, X: npt.NDArray[Any], y: npt.NDArray[Any], weights: Weights, splits: list[Split]) -> Floats:
        if not hasattr(self.estimator_, "predict_proba"):
            raise ValueError("it gives no probabilities to reject by: calibrate it, or reject by distance")
        folds = self._out_of_fold(X, y, weights, splits)
        return np.concatenate([np.empty(0), *(_doubt(model, X[held_out]) for model, held_out in folds)])

    def _distances(self, X: npt.NDArray[Any], y: npt.NDArray[Any], splits: list[Split]) -> Floats:
        self.neighbors_ = _among(X, y)
        if self.cv is None:
            return _distance(self.neighbors_, None)
        parts = [_distance(_among(take_rows(X, train), y[train]), X[test]) for train, test in splits]
        return np.concatenate([np.empty(0), *parts])


def _doubt(model: Any, X: npt.NDArray[Any]) -> Floats:
    doubt: Floats = 1 - np.asarray(model.predict_proba(X), np.float64).max(axis=1)
    return doubt


def _among(X: npt.NDArray[Any], y: npt.NDArray[Any]) -> FaissKNNClassifier:
    """Return the neighbours among rows, with a k that leaves each of them enough others."""
    return FaissKNNClassifier(min(NEIGHBOR, len(X) - 1), metric="cosine").fit(X, y)


def _distance(neighbors: FaissKNNClassifier, X: npt.NDArray[Any] | None) -> Floats:
    distances: Floats = neighbors.kneighbors(X)[0][:, -1]
    return distances
