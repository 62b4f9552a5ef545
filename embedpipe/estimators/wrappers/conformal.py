"""Intervals around predicted numbers: cross-conformal prediction around any regressor."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import _check_sample_weight, validate_data

from embedpipe._utils.public import public_in
from embedpipe.estimators.linear.base import FLOATS
from embedpipe.estimators.solvers.column_stats import Floats, blocks
from embedpipe.estimators.wrappers.base import WrappedEstimator
from embedpipe.splits.inner import Folds


@public_in("embedpipe.estimators")
class CrossConformalRegressor(RegressorMixin, WrappedEstimator):  # type: ignore[misc]
    """Give each prediction an interval that holds the truth as often as asked, whatever the regressor: CV+.

    Barber, Candes, Ramdas, Tibshirani: Predictive inference with the jackknife+, Annals of Statistics 49 (2021),
    section 3; with a single held-out part it is split conformal prediction (Lei et al., JASA 2018). Where training and
    new rows are exchangeable, ``level`` of the intervals hold the truth in practice, and for any data
    ``1 - 2 (1 - level)`` are sure to, less a term of order ``sqrt(folds / n)``. A head that chooses a penalty
    chooses once, on all rows. The folds' models are kept, as the intervals are theirs.

    Parameters
    ----------
    estimator : regressor
    level : float
        The share of new rows whose number the interval should hold, between 0 and 1.
    cv : int, iterable of (train rows, held-out rows), or None
        What to hold out; by default 5 folds, or one held-out fifth of more than 20,000 rows. A head that chooses
        its penalty does that on them too.

    Attributes
    ----------
    estimator_ : regressor
        Fitted on all rows; it makes the predictions.
    models_ : list of regressor
        One a split.
    residuals_ : list of float64 array
        How far each model was from its held-out rows.
    """

    def __init__(self, estimator: Any, *, level: float = 0.9, cv: Folds = None) -> None:
        self.estimator = estimator
        self.level = level
        self.cv = cv

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the regressor and the folds' models: ``X`` (n_samples, n_features), ``y`` (n_samples,).

        Weights enter the fits, not the count of rows that an interval holds.
        """
        if not 0 < self.level < 1:
            raise ValueError(f"level={self.level!r} must be between 0 and 1, such as 0.9")
        X, y = validate_data(self, X, y, dtype=FLOATS, y_numeric=True)
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=np.float64)
        splits = self._fit_inside(X, y, weights, classes=False)
        self.models_, self.residuals_ = [], []
        for model, held_out in self._out_of_fold(X, y, weights, splits):
            self.models_.append(model)
            self.residuals_.append(np.abs(np.asarray(y[held_out], np.float64) - model.predict(X[held_out])))
        needed = math.ceil(1 / (1 - self.level) - 1e-9) - 1
        if (count := sum(len(part) for part in self.residuals_)) < needed:
            raise ValueError(
                f"intervals of level {self.level:g} need {needed} held-out rows, and there are {count} "
                f"(n_samples = {len(X)}): label more, or ask for a lower level"
            )
        return self

    def predict_interval(self, X: Any) -> Floats:
        """Return the lower and upper end of each row's interval, float64 (n_samples, 2)."""
        X = self._rows(X)
        residuals = np.concatenate(self.residuals_)
        counts = [len(part) for part in self.residuals_]
        # The floor((1 - level)(n + 1))-th smallest lower end and the ceil(level (n + 1))-th smallest upper end.
        rank = math.ceil(self.level * (len(residuals) + 1) - 1e-9)
        low, high = len(residuals) - rank, rank - 1
        ends = np.empty((len(X), 2))
        for part in blocks(len(X), len(residuals)):
            centres = np.repeat([model.predict(X[part]) for model in self.models_], counts, axis=0).T
            ends[part, 0] = np.partition(centres - residuals, low, axis=1)[:, low]
            ends[part, 1] = np.partition(centres + residuals, high, axis=1)[:, high]
        return ends
