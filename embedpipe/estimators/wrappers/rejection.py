"""`RejectingClassifier`: rejects rows with a low predicted probability, or far from all training rows."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets

from embedpipe._utils.public import public_in
from embedpipe.estimators.knn import FaissKNNClassifier
from embedpipe.estimators.linear.base import check_training, check_weights
from embedpipe.estimators.solvers.column_stats import Floats
from embedpipe.estimators.wrappers.base import OF_INNER, Weights, WrappedClassifier
from embedpipe.splits.inner import Folds, Split, take_rows

RejectBy = Literal["probability", "distance"]

#: Distances are those to the 10th nearest training row.
NEIGHBOR = 10


@public_in("embedpipe.estimators")
class RejectingClassifier(ClassifierMixin, WrappedClassifier):  # type: ignore[misc]
    """A classifier with a reject option: rows whose reject score is above a threshold are left undecided.

    The threshold is the out-of-fold score that a given share of the training rows exceeds.

    Parameters
    ----------
    estimator : classifier
    share : float
        Share of rows to reject, in (0, 1).
    by : {"probability", "distance"}
        The reject score. ``probability``: 1 minus the largest probability. ``distance``: the cosine distance to the
        10th nearest training row, which also finds rows of no known class.
    cv : int, iterable of (train rows, held-out rows), or None
        Splits on which out-of-fold predictions are made, and on which an inner estimator chooses its penalty; by
        default 5 folds, or one held-out fifth of more than 20,000 rows.
        Distances are leave-one-out by default.

    Attributes
    ----------
    threshold_ : float
        Rows with a higher reject score are rejected.
    estimator_ : classifier
        Fitted on all rows.
    neighbors_ : FaissKNNClassifier
        The training rows; only with ``by="distance"``.
    classes_ : array (n_classes,)
    n_features_in_ : int

    References
    ----------
    Chow: On optimum recognition error and reject tradeoff, IEEE Transactions on Information Theory 16, 1970. Geifman,
    El-Yaniv: Selective classification for deep neural networks, NeurIPS 2017. Sun, Ming, Zhu, Li:
    Out-of-distribution detection with deep nearest neighbors, ICML 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from embedpipe.estimators import RejectingClassifier, TunedLogisticRegression
    >>> X, y = np.linspace(-3, 3, 60)[:, None], np.arange(60) >= 30
    >>> model = RejectingClassifier(TunedLogisticRegression(), share=0.2).fit(X, y)
    >>> model.rejected([[-3.0], [0.0], [3.0]])
    array([False,  True, False])
    """

    def __init__(self, estimator: Any, *, share: float = 0.1, by: RejectBy = "probability", cv: Folds = None) -> None:
        self.estimator = estimator
        self.share = share
        self.by = by
        self.cv = cv

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the classifier, then the threshold.

        Parameters
        ----------
        X : float array (n_samples, n_features)
        y : array (n_samples,)
        sample_weight : float array (n_samples,), optional
            Weights of the fits. ``share`` is a share of rows, not of weight.

        Raises
        ------
        ValueError
            If a parameter is out of range, the classifier has no probabilities to reject by, or every class has a
            single row.
        """
        if not 0 < self.share < 1:
            raise ValueError(f"share must be in (0, 1), got {self.share!r}")
        if self.by not in ("probability", "distance"):
            raise ValueError(f"by must be 'probability' or 'distance', got {self.by!r}")
        X, y = check_training(self, X, y, **OF_INNER)
        check_classification_targets(y)
        weights = check_weights(sample_weight, X)
        splits = self._fit_inner(X, y, weights, classes=True)
        self.classes_ = self.estimator_.classes_
        by_distance = self.by == "distance"
        scores = self._distances(X, y, splits) if by_distance else self._uncertainties(X, y, weights, splits)
        if not len(scores):
            raise ValueError("rejection needs a class with two rows or more: label more rows")
        self.threshold_ = float(np.quantile(scores, 1 - self.share, method="lower"))
        return self

    def reject_score(self, X: Any) -> Floats:
        """Return the reject score of each row: 1 - probability, or the cosine distance.

        Parameters
        ----------
        X : float array (n_samples, n_features)

        Returns
        -------
        float64 array (n_samples,)
        """
        X = self._rows(X)
        return _uncertainty(self.estimator_, X) if self.by == "probability" else _distance(self.neighbors_, X)

    def rejected(self, X: Any) -> npt.NDArray[np.bool_]:
        """Return which rows are rejected.

        Parameters
        ----------
        X : float array (n_samples, n_features)

        Returns
        -------
        bool array (n_samples,)
        """
        above: npt.NDArray[np.bool_] = self.reject_score(X) > self.threshold_
        return above

    @property
    def trains_on_blocks(self) -> bool:
        """Whether rows are read in blocks; neighbours need all of them."""
        return self.by == "probability" and super().trains_on_blocks

    def _uncertainties(self, X: npt.NDArray[Any], y: npt.NDArray[Any], weights: Weights, splits: list[Split]) -> Floats:
        if not hasattr(self.estimator_, "predict_proba"):
            raise ValueError("by='probability' needs predict_proba: calibrate it, or use 'distance'")
        folds = self._out_of_fold_models(X, y, weights, splits)
        parts = [_uncertainty(model, take_rows(X, held_out)) for model, held_out in folds]
        return np.concatenate([np.empty(0), *parts])

    def _distances(self, X: npt.NDArray[Any], y: npt.NDArray[Any], splits: list[Split]) -> Floats:
        self.neighbors_ = _index_rows(X, y)
        if self.cv is None:
            return _distance(self.neighbors_, None)
        parts = [_distance(_index_rows(take_rows(X, train), y[train]), X[test]) for train, test in splits]
        return np.concatenate([np.empty(0), *parts])


def _uncertainty(model: Any, X: npt.NDArray[Any]) -> Floats:
    uncertainty: Floats = 1 - np.asarray(model.predict_proba(X), np.float64).max(axis=1)
    return uncertainty


def _index_rows(X: npt.NDArray[Any], y: npt.NDArray[Any]) -> FaissKNNClassifier:
    """Return a neighbour index of rows; its k is smaller than `NEIGHBOR` if there are fewer other rows."""
    return FaissKNNClassifier(min(NEIGHBOR, len(X) - 1), metric="cosine").fit(X, y)


def _distance(neighbors: FaissKNNClassifier, X: npt.NDArray[Any] | None) -> Floats:
    distances: Floats = neighbors.kneighbors(X)[0][:, -1]
    return distances
