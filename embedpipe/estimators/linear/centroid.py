"""`CentroidClassifier`: the nearest class mean of centred, normalised features. It has no parameters to choose."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

from embedpipe._utils.public import public_in
from embedpipe.estimators.linear.base import LinearClassifier, check_rows
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
            np.add.at(sums, position[part], self._directions(X[part]))
        self.coef_ = _unit(sums)
        self.intercept_ = -self.coef_ @ self.mean_
        return self

    def decision_function(self, X: Any) -> Floats:
        """Return the cosines with the class means.

        Parameters
        ----------
        X : float array (n_samples, n_features)

        Returns
        -------
        float64 array (n_samples, n_classes), or (n_samples,) for two classes: the second minus the first
        """
        check_is_fitted(self, "coef_")
        X = check_rows(self, X)
        cosines = np.empty((len(X), len(self.coef_)))
        for part in blocks(*X.shape):
            cosines[part] = self._directions(X[part]) @ self.coef_.T
        return cosines[:, 1] - cosines[:, 0] if len(self.classes_) == 2 else cosines

    def _directions(self, X: npt.NDArray[Any]) -> Floats:
        return _unit(X - self.mean_)


def _unit(X: Floats) -> Floats:
    lengths = np.linalg.norm(X, axis=1, keepdims=True)
    unit: Floats = X / np.where(lengths > 0, lengths, 1)
    return unit
