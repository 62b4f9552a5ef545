"""`CentroidClassifier`: the nearest class mean of centred, normalised features. It has no parameters to choose."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from embedpipe._utils.public import public_in
from embedpipe.estimators.linear.base import LinearClassifier, cosines, unit_rows
from embedpipe.estimators.solvers.column_stats import Floats, blocks


@public_in("embedpipe.estimators")
class CentroidClassifier(LinearClassifier):
    """Nearest class mean by cosine, on centred features: SimpleShot's CL2N.

    The mean of the training rows is subtracted from each row, which is then scaled to unit length. The score of a
    class is the cosine between a row and the mean of the class's rows.

    Attributes
    ----------
    classes_ : array (n_classes,)
    mean_ : float64 array (n_features,)
        Mean of the training rows.
    coef_ : float64 array (n_classes, n_features)
        Mean of each class, scaled to unit length.
    intercept_ : float64 array (n_classes,)
    n_features_in_ : int

    References
    ----------
    Wang, Chao, Weinberger, van der Maaten: SimpleShot: Revisiting nearest-neighbor classification for few-shot
    learning, 2019, arXiv:1911.04623.

    Examples
    --------
    >>> from embedpipe.estimators import CentroidClassifier
    >>> X = [[2.0, 0.0], [2.0, 1.0], [0.0, 3.0]]
    >>> CentroidClassifier().fit(X, ["cat", "cat", "dog"]).predict([[1.5, 0.0]])
    array(['cat'], dtype='<U3')
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Compute the class means.

        Parameters
        ----------
        X : float array (n_samples, n_features)
        y : array (n_samples,)

        Raises
        ------
        ValueError
            If there are fewer than two classes.
        """
        X, position = self._check_training(X, y)
        self.mean_ = X.mean(axis=0, dtype=np.float64)
        sums = np.zeros((len(self.classes_), X.shape[1]))
        for part in blocks(*X.shape):
            np.add.at(sums, position[part], unit_rows(X[part] - self.mean_))
        self.coef_ = unit_rows(sums)
        self.intercept_ = -self.coef_ @ self.mean_
        return self

    def _scores(self, X: Any) -> Floats:
        """Return the cosines with the class means."""
        return cosines(X, self.coef_, self.mean_)
