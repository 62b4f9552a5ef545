"""`ZeroShotClassifier`, the head ``zero-shot``: the class whose name lies nearest. Labels only calibrate it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import _check_sample_weight

from embedpipe._utils.public import public_in
from embedpipe.estimators.linear.base import SoftmaxClassifier, check_rows, check_training, cosines, unit_rows
from embedpipe.estimators.solvers.column_stats import Floats, Matrix
from embedpipe.estimators.wrappers.calibration import best_temperature

#: What cosines are multiplied by at least and at most: few labels can all be right, or all wrong.
SCALES = (1.0, 1000.0)


@public_in("embedpipe.estimators")
class ZeroShotClassifier(SoftmaxClassifier):
    """The class whose name has the vector with the largest cosine: CLIP's zero-shot classifier.

    Training rows do not move the classes. Their labels only set the temperature, which has the least log-loss on them.

    Parameters
    ----------
    prototypes : float array (n_classes, n_features)
        A vector for each class, such as the mean of the unit vectors of prompts with its name.
    classes : sequence (n_classes,)
        The labels, in the order of ``prototypes``.
    temperature : float
        What cosines are divided by if there are no labels: 0.01 of CLIP, 0.05 of sentence-transformers.

    Attributes
    ----------
    classes_ : array (n_classes,)
        Sorted.
    coef_ : float64 array (n_classes, n_features)
        For unit vectors: unit prototypes divided by the temperature.
    intercept_ : float64 array (n_classes,)
    temperature_ : float
    n_features_in_ : int

    References
    ----------
    Radford et al.: Learning transferable visual models from natural language supervision, ICML 2021, section 3.1.

    Examples
    --------
    >>> from embedpipe.estimators import ZeroShotClassifier
    >>> model = ZeroShotClassifier([[1.0, 0.0], [0.0, 1.0]], ["cat", "dog"]).fit([[0.0, 0.0]])
    >>> model.predict([[3.0, 1.0], [0.1, 0.2]])
    array(['cat', 'dog'], dtype='<U3')
    """

    def __init__(self, prototypes: Any, classes: Sequence[Any], *, temperature: float = 0.05) -> None:
        self.prototypes = prototypes
        self.classes = classes
        self.temperature = temperature

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Set the classes, and the temperature by the labels if there are any.

        Parameters
        ----------
        X : float array (n_samples, n_features)
        y : array (n_samples,), optional
            Labels among ``classes``.
        sample_weight : float array (n_samples,), optional

        Raises
        ------
        ValueError
            If the prototypes are not as long as the rows or as many as the classes, or a label is not among them.
        """
        X, y, weights = self._check(X, y, sample_weight)
        directions = self._prototypes(X)
        scale = 1 / self.temperature if y is None else best_scale(cosines(X, directions), y, weights)
        self.coef_, self.intercept_, self.temperature_ = scale * directions, np.zeros(len(directions)), 1 / scale
        return self

    def _scores(self, X: Any) -> Floats:
        """Return the cosines with the prototypes, divided by the temperature."""
        return cosines(X, self.coef_) + self.intercept_

    def _check(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, npt.NDArray[np.int64] | None, Floats]:
        """Validate the training data and set ``classes_``; return rows, positions in ``classes_`` and weights."""
        self.classes_ = np.unique(np.asarray(self.classes))
        if len(self.classes_) < max(2, len(self.classes)):
            raise ValueError(f"classes must be two or more, all different, got {list(self.classes)!r}")
        X, y = (check_rows(self, X, reset=True), None) if y is None else check_training(self, X, y)
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        if y is None:
            return X, None, weights
        known = np.isin(y, self.classes_)
        if not known.all():
            other = np.asarray(y)[~known].tolist()[0]
            raise ValueError(f"labels must be among the classes {self.classes_.tolist()}, got {other!r}")
        return X, np.searchsorted(self.classes_, y), weights

    def _prototypes(self, X: Matrix) -> Floats:
        """Return the unit prototypes in the order of ``classes_``."""
        given = np.asarray(self.prototypes, np.float64)
        if given.shape != (len(self.classes_), X.shape[1]):
            raise ValueError(f"prototypes must have shape {(len(self.classes_), X.shape[1])}, got {given.shape}")
        return unit_rows(given[np.argsort(np.asarray(self.classes), kind="stable")])


def best_scale(scores: Floats, y: npt.NDArray[np.int64], weights: Floats) -> float:
    """Return the factor of scores (n, n_classes) with the least log-loss of the classes (n,), within `SCALES`."""
    return float(np.clip(1 / best_temperature(scores, y, weights), *SCALES))
