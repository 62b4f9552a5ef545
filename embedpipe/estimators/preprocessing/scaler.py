"""Standardisation that does not blow up columns that hardly vary."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Tags

from embedpipe._utils.public import public_in
from embedpipe.estimators.solvers.column_stats import with_variance_floor


@public_in("embedpipe.estimators")
class VarianceFloorScaler(StandardScaler):  # type: ignore[misc]
    """Scikit-learn's StandardScaler, but for the quarter of the columns that varies least: it is scaled as the next.

    A unit of a network that one training row in forty turns on a little has a tiny standard deviation. Divided by it,
    new rows where the unit is on lie thousands of standard deviations out: they decide for the strongest penalty, and
    are predicted wrongly. So no column, a constant one included, counts as varying less than the one at the lower
    quartile of those that vary. Genes that hardly vary in a few samples are met in the same way by the s0 of Tusher,
    Tibshirani and Chu (PNAS 2001), a quantile of all genes' standard deviations. The heads ``logreg`` and
    ``ridge`` scale their columns so by themselves.

    Parameters and attributes are those of StandardScaler; ``scale_`` has the floor, ``var_`` does not. With four
    columns or fewer, only constant ones differ.

    Examples
    --------
    >>> import numpy as np
    >>> from embedpipe import VarianceFloorScaler
    >>> VarianceFloorScaler().fit(np.array([[0, 0, 0, 0, 0.0], [1, 2, 3, 4, 5]])).scale_
    array([1. , 1. , 1.5, 2. , 2.5])
    """

    scale_: Any

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Measure more rows, float (n_samples, n_features), as `fit` does too."""
        super().partial_fit(X, y, sample_weight)
        if self.with_std:  # what scikit-learn takes for constant has another scale than its deviation
            self.scale_ = with_variance_floor(self.scale_, self.scale_ == np.sqrt(self.var_))
        return self

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.array_api_support = False
        return tags
