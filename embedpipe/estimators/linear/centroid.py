"""Nearest class mean on centred, normalised features."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted, validate_data

from embedpipe._utils.public import public_in
from embedpipe.estimators.linear.base import FLOATS, LinearClassifier
from embedpipe.estimators.solvers.column_stats import Floats, blocks


@public_in("embedpipe.estimators")
class CentroidClassifier(LinearClassifier):
    """Choose the class whose mean points the same way: SimpleShot's CL2N (Wang et al., 2019, arXiv:1911.04623).

    Rows have the mean of all training rows taken off and are scaled to length one; the score of a class is the
    cosine with the mean of its rows.

    Attributes
    ----------
    mean_ : float64 array (n_features,)
    coef_ : float64 array (n_classes, n_features)
        Each class's mean, of length one.
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Average: ``X`` (n_samples, n_features), ``y`` (n_samples,)."""
        X, position = self._check_training(X, y)
        self.mean_ = X.mean(axis=0, dtype=np.float64)
        sums = np.zeros((len(self.classes_), X.shape[1]))
        for part in blocks(*X.shape):
            np.add.at(sums, position[part], self._directions(X[part]))
        self.coef_ = _unit(sums)
        self.intercept_ = -self.coef_ @ self.mean_
        return self

    def decision_function(self, X: Any) -> Floats:
        """Return cosines, float64 (n_samples, n_classes), or (n_samples,) for two classes: second less first."""
        check_is_fitted(self, "coef_")
        X = validate_data(self, X, reset=False, dtype=FLOATS)
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
