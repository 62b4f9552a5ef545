"""`CrossConformalRegressor`: prediction intervals by cross-conformal prediction (CV+), for any regressor."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin

from embedpipe._utils.public import public_in
from embedpipe.estimators.linear.base import check_training, check_weights
from embedpipe.estimators.solvers.column_stats import Floats, blocks
from embedpipe.estimators.wrappers.base import OF_INNER, WrappedEstimator
from embedpipe.splits.inner import Folds, take_rows


@public_in("embedpipe.estimators")
class CrossConformalRegressor(RegressorMixin, WrappedEstimator):  # type: ignore[misc]
    """Prediction intervals with a given coverage, by cross-conformal prediction (CV+), for any regressor.

    Parameters
    ----------
    estimator : regressor
    coverage : float
        Share of new rows whose value the interval should contain, in (0, 1).
    cv : int, iterable of (train rows, held-out rows), or None
        Splits on which out-of-fold predictions are made, and on which an inner estimator chooses its penalty; by
        default 5 folds, or one held-out fifth of more than 20,000 rows.

    Attributes
    ----------
    estimator_ : regressor
        Fitted on all rows; makes the predictions.
    models_ : list of regressor
        One for each split; the intervals are made of their predictions.
    residuals_ : list of float64 array
        Absolute errors of each model on its held-out rows.
    n_features_in_ : int

    Notes
    -----
    If training and new rows are exchangeable, the intervals have the given coverage in practice, and for any data at
    least ``1 - 2 (1 - coverage)``, less at most ``sqrt(2 / n)`` (theorem 4 of Barber et al.). With one held-out part it
    is split conformal prediction. An estimator that chooses a penalty does so once, on all rows.

    References
    ----------
    Barber, Candes, Ramdas, Tibshirani: Predictive inference with the jackknife+, Annals of Statistics 49, 2021,
    section 3. Lei et al.: Distribution-free predictive inference for regression, JASA 113, 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from embedpipe.estimators import CrossConformalRegressor, TunedRidge
    >>> rng = np.random.default_rng(0)
    >>> X = rng.uniform(0, 10, (200, 1))
    >>> y = X[:, 0] + rng.uniform(-1, 1, 200)
    >>> model = CrossConformalRegressor(TunedRidge(), coverage=0.8).fit(X, y)
    >>> model.predict_interval([[5.0]]).round(0)
    array([[4., 6.]])
    """

    def __init__(self, estimator: Any, *, coverage: float = 0.9, cv: Folds = None) -> None:
        self.estimator = estimator
        self.coverage = coverage
        self.cv = cv

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the regressor and the models of the folds.

        Parameters
        ----------
        X : float array (n_samples, n_features)
        y : array (n_samples,)
        sample_weight : float array (n_samples,), optional
            Weights of the fits. Coverage is a share of rows, not of weight.

        Raises
        ------
        ValueError
            If the coverage is not in (0, 1), or there are too few rows for it.
        """
        if not 0 < self.coverage < 1:
            raise ValueError(f"coverage must be in (0, 1), got {self.coverage!r}")
        X, y = check_training(self, X, y, y_numeric=True, **OF_INNER)
        weights = check_weights(sample_weight, X)
        splits = self._fit_inner(X, y, weights, classes=False)
        self.models_, self.residuals_ = [], []
        for model, held_out in self._out_of_fold_models(X, y, weights, splits):
            self.models_.append(model)
            self.residuals_.append(np.abs(np.asarray(y[held_out], np.float64) - model.predict(take_rows(X, held_out))))
        needed = math.ceil(1 / (1 - self.coverage) - 1e-9) - 1
        if (count := sum(len(part) for part in self.residuals_)) < needed:
            raise ValueError(
                f"coverage={self.coverage:g} needs {needed} held-out rows, got {count} (n_samples={len(X)}): label "
                "more rows, or lower the coverage"
            )
        return self

    def predict_interval(self, X: Any) -> Floats:
        """Return the ends of the prediction interval of each row.

        Parameters
        ----------
        X : float array (n_samples, n_features)

        Returns
        -------
        float64 array (n_samples, 2)
            Lower and upper end.
        """
        X = self._rows(X)
        residuals = np.concatenate(self.residuals_)
        counts = [len(part) for part in self.residuals_]
        # The floor((1 - coverage)(n + 1))-th smallest lower end and the ceil(coverage (n + 1))-th smallest upper end.
        rank = math.ceil(self.coverage * (len(residuals) + 1) - 1e-9)
        low, high = len(residuals) - rank, rank - 1
        ends = np.empty((len(X), 2))
        for part in blocks(len(X), len(residuals)):
            centres = np.repeat([model.predict(X[part]) for model in self.models_], counts, axis=0).T
            ends[part, 0] = np.partition(centres - residuals, low, axis=1)[:, low]
            ends[part, 1] = np.partition(centres + residuals, high, axis=1)[:, high]
        return ends
