"""`VarianceFloorScaler`: standardisation that does not blow up columns that hardly vary."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Tags

from embedpipe._utils.public import public_in
from embedpipe.estimators.solvers.column_stats import with_variance_floor


@public_in("embedpipe.estimators")
class VarianceFloorScaler(StandardScaler):  # type: ignore[misc]
    """`sklearn.preprocessing.StandardScaler` with a variance floor: no column is divided by a tiny deviation.

    A unit of a network that is slightly active in one training row of forty has a tiny standard deviation. Divided by
    it, new rows with an active unit lie thousands of standard deviations out: they force the strongest penalty and are
    predicted wrongly. Therefore no column, constant ones included, is divided by less than the lower quartile of the
    standard deviations of the columns that vary. The estimators `TunedLogisticRegression`, `TunedRidge` and
    `TunedRidgeClassifier` scale in this way themselves.

    Parameters
    ----------
    copy, with_mean, with_std : bool
        As in `sklearn.preprocessing.StandardScaler`.

    Attributes
    ----------
    scale_ : float64 array (n_features,)
        Standard deviations with the floor. With four columns or fewer, only constant columns differ from
        StandardScaler.
    mean_, var_ : float64 array (n_features,)
        As in StandardScaler, without the floor.
    n_samples_seen_ : int or int64 array (n_features,)
    n_features_in_ : int

    References
    ----------
    Tusher, Tibshirani, Chu: Significance analysis of microarrays applied to the ionizing radiation response, PNAS 98,
    2001: their s0, a quantile of the standard deviations of all genes, has the same purpose.

    Examples
    --------
    >>> import numpy as np
    >>> from embedpipe import VarianceFloorScaler
    >>> VarianceFloorScaler().fit(np.array([[0, 0, 0, 0, 0.0], [1, 2, 3, 4, 5]])).scale_
    array([1. , 1. , 1.5, 2. , 2.5])
    """

    scale_: Any

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Update means and scales with more rows.

        Parameters
        ----------
        X : float array (n_samples, n_features)
        y : ignored
        sample_weight : float array (n_samples,), optional
        """
        super().partial_fit(X, y, sample_weight)
        if self.with_std:  # scikit-learn sets the scale of constant columns to 1
            self.scale_ = with_variance_floor(self.scale_, self.scale_ == np.sqrt(self.var_))
        return self

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.array_api_support = False
        return tags
