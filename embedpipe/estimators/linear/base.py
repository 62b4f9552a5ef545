"""`LinearClassifier`: the base of the linear classifiers, which have one matrix of coefficients for raw features."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from embedpipe.estimators.solvers.column_stats import Floats, Matrix, blocks, scores_of
from embedpipe.estimators.targets import check_no_label_missing
from embedpipe.splits.mapped_rows import MappedRows

FLOATS = [np.float64, np.float32]


def check_training(estimator: Any, X: Any, y: Any, **checks: Any) -> tuple[Any, Any]:
    """Return training data as `sklearn.utils.validation.validate_data` does; `MappedRows` stay on disk."""
    check_no_label_missing(y)
    mapped = isinstance(X, MappedRows)
    X, y = validate_data(estimator, X, y, skip_check_array=mapped, **({} if mapped else {"dtype": FLOATS, **checks}))
    return X, y


def check_rows(estimator: Any, X: Any, *, reset: bool = False, **checks: Any) -> Any:
    """Return rows as `check_training` does: of a fitted estimator, or with ``reset`` of one that is being fitted."""
    mapped = isinstance(X, MappedRows)
    checks = {} if mapped else {"dtype": FLOATS, **checks}
    return validate_data(estimator, X, reset=reset, skip_check_array=mapped, **checks)


def check_weights(sample_weight: Any, X: Any) -> Floats | None:
    """Return the weights of the rows of ``X``, float64 (n_samples,); None if none are given.

    Raises ValueError for another number of weights than of rows, a weight below 0, or if all are 0.
    """
    if sample_weight is None:
        return None
    weights: Floats = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    return weights


class LinearClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Base of classifiers with one vector a class.

    Standardisation is folded into the coefficients, so that predicting takes one matrix product on raw features.

    Attributes
    ----------
    classes_ : array (n_classes,)
    coef_ : float64 array (n_classes, n_features), or (1, n_features) for two classes
    intercept_ : float64 array (n_classes,) or (1,)
    """

    #: Whether rows are read in blocks, so that they may be `MappedRows`.
    trains_on_blocks = True
    classes_: npt.NDArray[Any]
    coef_: Floats
    intercept_: Floats

    def _check_training(self, X: Any, y: Any) -> tuple[Any, npt.NDArray[np.int64]]:
        """Validate the training data and set ``classes_``; return ``X`` and positions in ``classes_`` (n_samples,)."""
        X, y = check_training(self, X, y)
        check_classification_targets(y)
        self.classes_, position = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y must have two classes or more, got one class: {self.classes_.tolist()[0]!r}")
        return X, position

    def decision_function(self, X: Any) -> Floats:
        """Return the scores of the classes.

        Parameters
        ----------
        X : float array (n_samples, n_features)

        Returns
        -------
        float64 array (n_samples, n_classes), or (n_samples,) for two classes: positive for the second
        """
        check_is_fitted(self, "coef_")
        scores = self._scores(check_rows(self, X))
        if scores.shape[1] == 1:
            return scores[:, 0]
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def _scores(self, X: Any) -> Floats:
        """Return the scores of checked rows, float64 (n_samples, len(coef_))."""
        return scores_of(X, self.coef_, self.intercept_)

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the class with the largest score.

        Parameters
        ----------
        X : float array (n_samples, n_features)

        Returns
        -------
        array (n_samples,)
        """
        scores = self.decision_function(X)
        labels: npt.NDArray[Any] = self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)]
        return labels


class SoftmaxClassifier(LinearClassifier):
    """Base of linear classifiers whose scores are logits."""

    def predict_proba(self, X: Any) -> Floats:
        """Return the probabilities of the classes.

        Parameters
        ----------
        X : float array (n_samples, n_features)

        Returns
        -------
        float64 array (n_samples, n_classes)
        """
        shares: Floats = softmax(scores_of_all_classes(self.decision_function(X)), axis=1)
        return shares


def scores_of_all_classes(scores: Floats) -> Floats:
    """Return scores (n, n_classes); for two classes given as one column, the first class gets 0."""
    scores = scores.reshape(len(scores), -1)
    return np.hstack([np.zeros_like(scores), scores]) if scores.shape[1] == 1 else scores


def unit_rows(X: npt.NDArray[Any]) -> Floats:
    """Return rows of length 1, float64; those of zeros stay as they are."""
    rows = np.asarray(X, np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Floats = rows / np.where(lengths > 0, lengths, 1)
    return unit


def cosines(X: Matrix, directions: Floats, mean: Floats | float = 0.0) -> Floats:
    """Return the products of unit rows with directions, float64 (n_samples, n_directions), block by block.

    ``mean`` is subtracted from the rows before they get unit length.
    """
    products = np.empty((len(X), len(directions)))
    for part in blocks(*X.shape):
        products[part] = unit_rows(X[part] - mean) @ directions.T
    return products
