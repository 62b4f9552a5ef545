"""`MultiLabelClassifier`: rows with any number of labels, each of them predicted as yes or no."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, clone, is_regressor
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import check_is_fitted

from embedpipe._utils.public import public_in
from embedpipe.estimators.knn import FaissKNNRegressor
from embedpipe.estimators.linear.base import check_rows, check_weights
from embedpipe.estimators.solvers.column_stats import Floats
from embedpipe.estimators.wrappers.base import OF_INNER, fit_on, innermost_estimator, only_if
from embedpipe.splits.inner import Folds


@public_in("embedpipe.estimators")
class MultiLabelClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Multi-label classification: one classifier for each label (one-vs-rest), or one regressor for all labels.

    A regressor with several outputs is fitted on targets of -1 and 1, and predicts the labels whose output is above 0.
    This is faster where the work is the same for all labels: ridge regression decomposes the rows once, and nearest
    neighbours are searched once.

    Parameters
    ----------
    estimator : classifier, or regressor with several outputs
    labels : sequence of str, optional
        Names of the labels; by default their numbers.
    class_weight : None or "balanced"
        Give rows with and without a label the same total weight in the fit for that label; for classifiers.
    cv : int, iterable of (train rows, held-out rows), or None
        Splits on which each estimator chooses its penalty.

    Attributes
    ----------
    classes_ : array (n_labels,)
        Names of the labels.
    estimators_ : list
        One classifier for each label, or one regressor. For a label that all rows have, or none, the constant
        probability.
    n_features_in_ : int

    References
    ----------
    Tsoumakas, Katakis: Multi-label classification: an overview, International Journal of Data Warehousing and Mining 3,
    2007 (binary relevance).

    Examples
    --------
    >>> import numpy as np
    >>> from embedpipe.estimators import MultiLabelClassifier, TunedRidge
    >>> X = np.array([[0.0, 0.0], [0.0, 9.0], [9.0, 0.0], [9.0, 9.0]] * 3)
    >>> Y = X > 5
    >>> MultiLabelClassifier(TunedRidge(), ["red", "round"]).fit(X, Y).predict([[8.0, 1.0]])
    array([[ True, False]])
    """

    def __init__(
        self,
        estimator: Any,
        labels: Sequence[str] | None = None,
        *,
        class_weight: Literal["balanced"] | None = None,
        cv: Folds = None,
    ) -> None:
        self.estimator = estimator
        self.labels = labels
        self.class_weight = class_weight
        self.cv = cv

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the estimators.

        Parameters
        ----------
        X : float array (n_samples, n_features)
        y : bool array (n_samples, n_labels)
        sample_weight : float array (n_samples,), optional

        Raises
        ------
        ValueError
            If ``y`` is not boolean of that shape, or ``labels`` has another length.
        """
        X = check_rows(self, X, reset=True, **OF_INNER)
        Y = np.asarray(y)
        if Y.ndim != 2 or len(Y) != len(X) or not np.isin(Y, (0, 1)).all():
            raise ValueError(f"y must be a bool array of shape ({len(X)}, n_labels), got shape {Y.shape}")
        Y = Y.astype(bool)
        self.classes_ = np.arange(Y.shape[1]) if self.labels is None else np.asarray(self.labels)
        if len(self.classes_) != Y.shape[1]:
            raise ValueError(f"labels must have {Y.shape[1]} names, one per column of y, got {self.labels!r}")
        weights = check_weights(sample_weight, X)
        splits = self.cv if self.cv is None or isinstance(self.cv, int) else list(self.cv)
        if self._is_regression:
            self.estimators_ = [fit_on(clone(self.estimator), X, np.where(Y, 1.0, -1.0), weights, splits)]
            return self
        self.estimators_ = []
        for column in Y.T:
            if column.all() or not column.any():
                self.estimators_.append(float(column[0]))
                continue
            label_weights = weights
            if self.class_weight is not None:
                balanced = compute_sample_weight(self.class_weight, column)
                label_weights = balanced if weights is None else balanced * weights
            self.estimators_.append(fit_on(clone(self.estimator), X, column, label_weights, splits))
        return self

    def predict(self, X: Any) -> npt.NDArray[np.bool_]:
        """Return the predicted labels.

        Parameters
        ----------
        X : float array (n_samples, n_features)

        Returns
        -------
        bool array (n_samples, n_labels)
        """
        X = self._rows(X)
        if self._is_regression:
            return np.asarray(self.estimators_[0].predict(X) > 0)
        return self._columns(X, lambda model: np.asarray(model.predict(X), bool), lambda probability: probability > 0.5)

    @only_if(lambda self: hasattr(self.estimator, "predict_proba") or self._is_knn)
    def predict_proba(self, X: Any) -> Floats:
        """Return the probability of each label; rows do not sum to 1.

        Parameters
        ----------
        X : float array (n_samples, n_features)

        Returns
        -------
        float64 array (n_samples, n_labels)
        """
        X = self._rows(X)
        if self._is_regression:
            return (1 + np.asarray(self.estimators_[0].predict(X), np.float64)) / 2
        return self._columns(X, lambda model: model.predict_proba(X)[:, 1], float)

    @only_if(lambda self: hasattr(self.estimator, "decision_function") or (self._is_regression and not self._is_knn))
    def decision_function(self, X: Any) -> Floats:
        """Return the score of each label, positive if the label is predicted.

        Parameters
        ----------
        X : float array (n_samples, n_features)

        Returns
        -------
        float64 array (n_samples, n_labels)
        """
        X = self._rows(X)
        if self._is_regression:
            return np.asarray(self.estimators_[0].predict(X), np.float64)
        return self._columns(X, lambda model: model.decision_function(X), lambda probability: 2 * probability - 1)

    @property
    def _is_regression(self) -> bool:
        return bool(is_regressor(self.estimator))

    @property
    def _is_knn(self) -> bool:
        """Whether outputs are means of -1 and 1, which give probabilities."""
        return isinstance(innermost_estimator(self.estimator), FaissKNNRegressor)

    def _rows(self, X: Any) -> Any:
        check_is_fitted(self, "estimators_")
        return check_rows(self, X, **OF_INNER)

    def _columns(self, X: npt.NDArray[Any], of_model: Any, of_constant: Any) -> npt.NDArray[Any]:
        columns = [
            np.full(len(X), of_constant(model)) if isinstance(model, float) else of_model(model)
            for model in self.estimators_
        ]
        return np.stack(columns, axis=1)

    @property
    def trains_on_blocks(self) -> bool:
        """Whether rows are read in blocks, so that they may be `MappedRows`."""
        return getattr(self.estimator, "trains_on_blocks", False)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.classifier_tags.multi_label = True
        tags.target_tags.single_output = False
        tags.target_tags.multi_output = True
        return tags
