"""Items with any number of labels: each label a yes or no of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, clone, is_regressor
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from embedpipe._utils.public import public_in
from embedpipe.estimators.knn import FaissKNNRegressor
from embedpipe.estimators.linear.base import FLOATS
from embedpipe.estimators.solvers.column_stats import Floats
from embedpipe.estimators.wrappers.base import fit_on, head_of, only_if
from embedpipe.splits.inner import Folds


@public_in("embedpipe.estimators")
class MultiLabelClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """One head a label, which says whether it is there (one-vs-rest); or one regression on all labels at once.

    Ridge regression on -1 and 1 has one decomposition for all labels, and neighbours are the same for all: such a
    head is given as a regressor that takes several outputs, and a label is there where its output is above 0.

    Parameters
    ----------
    estimator : classifier, or regressor of several outputs
    labels : sequence of str, optional
        Their names; their numbers by default.
    class_weight : None or "balanced"
        Give the rows that have a label, and those that have not, the same weight in its own fit; classifiers only.
    cv : int, iterable of (train rows, held-out rows), or None
        Where each head chooses its penalty.

    Attributes
    ----------
    classes_ : array (n_labels,)
        The labels' names.
    estimators_ : list
        One a label, or a single regressor. Of a label that all rows have, or none, the constant probability.
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
        """Fit: ``X`` (n_samples, n_features), ``y`` bool (n_samples, n_labels), ``sample_weight`` (n_samples,)."""
        X = validate_data(self, X, dtype=FLOATS)
        Y = np.asarray(y)
        if Y.ndim != 2 or len(Y) != len(X) or not np.isin(Y, (0, 1)).all():
            raise ValueError(f"y has shape {Y.shape}: it must be yes or no for each label, ({len(X)}, n_labels)")
        Y = Y.astype(bool)
        self.classes_ = np.arange(Y.shape[1]) if self.labels is None else np.asarray(self.labels)
        if len(self.classes_) != Y.shape[1]:
            raise ValueError(f"labels={self.labels!r} are not the names of {Y.shape[1]} columns")
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=np.float64)
        splits = self.cv if self.cv is None or isinstance(self.cv, int) else list(self.cv)
        if self._at_once:
            self.estimators_ = [fit_on(clone(self.estimator), X, np.where(Y, 1.0, -1.0), weights, splits)]
            return self
        self.estimators_ = []
        for there in Y.T:
            if there.all() or not there.any():
                self.estimators_.append(float(there[0]))
                continue
            own = weights
            if self.class_weight is not None:
                own = compute_sample_weight(self.class_weight, there) * (1.0 if weights is None else weights)
            self.estimators_.append(fit_on(clone(self.estimator), X, there, own, splits))
        return self

    def predict(self, X: Any) -> npt.NDArray[np.bool_]:
        """Say which labels are there, bool (n_samples, n_labels): by each head's own rule, probabilities above 0.5."""
        X = self._rows(X)
        if self._at_once:
            return np.asarray(self.estimators_[0].predict(X) > 0)
        return self._columns(X, lambda model: np.asarray(model.predict(X), bool), lambda share: share > 0.5)

    @only_if(lambda self: hasattr(self.estimator, "predict_proba") or self._votes)
    def predict_proba(self, X: Any) -> Floats:
        """Return each label's probability, float64 (n_samples, n_labels); rows do not sum to one."""
        X = self._rows(X)
        if self._at_once:
            return (1 + np.asarray(self.estimators_[0].predict(X), np.float64)) / 2
        return self._columns(X, lambda model: model.predict_proba(X)[:, 1], float)

    @only_if(lambda self: hasattr(self.estimator, "decision_function") or (self._at_once and not self._votes))
    def decision_function(self, X: Any) -> Floats:
        """Return each label's score, float64 (n_samples, n_labels), above 0 where it is more likely there."""
        X = self._rows(X)
        if self._at_once:
            return np.asarray(self.estimators_[0].predict(X), np.float64)
        return self._columns(X, lambda model: model.decision_function(X), lambda share: 2 * share - 1)

    @property
    def _at_once(self) -> bool:
        return bool(is_regressor(self.estimator))

    @property
    def _votes(self) -> bool:
        """Whether outputs are means of -1 and 1, and so probabilities."""
        return isinstance(head_of(self.estimator), FaissKNNRegressor)

    def _rows(self, X: Any) -> npt.NDArray[Any]:
        check_is_fitted(self, "estimators_")
        rows: npt.NDArray[Any] = validate_data(self, X, reset=False, dtype=FLOATS)
        return rows

    def _columns(self, X: npt.NDArray[Any], of_model: Any, of_constant: Any) -> npt.NDArray[Any]:
        columns = [
            np.full(len(X), of_constant(model)) if isinstance(model, float) else of_model(model)
            for model in self.estimators_
        ]
        return np.stack(columns, axis=1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.classifier_tags.multi_label = True
        tags.target_tags.single_output = False
        tags.target_tags.multi_output = True
        return tags
