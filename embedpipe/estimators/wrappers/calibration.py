"""Probabilities that can be taken at their word: temperature scaling around any classifier."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, validate_data

from embedpipe._utils.public import public_in
from embedpipe.estimators.linear.base import FLOATS
from embedpipe.estimators.solvers.column_stats import Floats
from embedpipe.estimators.wrappers.base import FOLDS, Weights, WrappedEstimator
from embedpipe.splits.inner import Folds, Split, inner_splits

#: The logit of a class that a fold's training rows do not have: no probability at any temperature.
ABSENT = -1e30
#: What may be added to probabilities before their logarithm is taken. Of 20 neighbours a class often has no vote, and
#: with the first, which is scikit-learn's, those rows alone would set the temperature: log-loss decides here too.
FLOORS = (1e-12, 1e-3, 3e-3, 1e-2, 3e-2)
#: Where one of them has to do.
USUAL_FLOOR = 1e-2


@public_in("embedpipe.estimators")
class TemperatureCalibratedClassifier(ClassifierMixin, WrappedEstimator):  # type: ignore[misc]
    """Divide a classifier's logits by one temperature, so that its probabilities are as often right as they say.

    Temperature scaling (Guo et al., ICML 2017) with the temperature of scikit-learn's
    ``CalibratedClassifierCV(method="temperature", ensemble=False)``: the one of least log-loss on out-of-fold
    predictions of the training rows. A head that chooses a penalty chooses once, on all rows, and the folds keep to
    it. What is predicted stays as it is. Scores serve as logits; of a classifier that has only probabilities, which
    scikit-learn's own would not calibrate for two classes, the logarithms, with a small number added to each
    probability, as votes of few neighbours are often 0; out-of-fold log-loss chooses that from `FLOORS`.

    Parameters
    ----------
    estimator : classifier
    cv : int, iterable of (train rows, held-out rows), or None
        What to hold out; by default 5 folds, or one held-out fifth of more than 20,000 rows. A head that chooses
        its penalty does that on them too.
    temperature, floor : float, optional
        Taken as given, both of them, and not fitted.

    Attributes
    ----------
    temperature_ : float
        Above 1 where the classifier was too sure of itself.
    floor_ : float
        What is added to probabilities; 0 where there are scores.
    estimator_ : classifier
        The uncalibrated one, fitted on all rows.
    classes_ : array (n_classes,)
    """

    def __init__(
        self, estimator: Any, *, cv: Folds = None, temperature: float | None = None, floor: float | None = None
    ) -> None:
        self.estimator = estimator
        self.cv = cv
        self.temperature = temperature
        self.floor = floor

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the classifier, then ``temperature_``: ``X`` (n_samples, n_features), ``y`` (n_samples,)."""
        X, y = validate_data(self, X, y, dtype=FLOATS)
        check_classification_targets(y)
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=np.float64)
        self.classes_, position = np.unique(y, return_inverse=True)
        splits = self._fit_inside(X, y, weights, classes=True)
        if self.temperature is None or self.floor is None:
            self.temperature_, self.floor_ = self._learn(X, y, position, weights, splits)
        else:
            self.temperature_, self.floor_ = self.temperature, self.floor
        return self

    def predict_proba(self, X: Any) -> Floats:
        """Return calibrated probabilities, float64 (n_samples, n_classes)."""
        X = self._rows(X)
        shares: Floats = softmax(_logits(_outputs(self.estimator_, X), self.floor_) / self.temperature_, axis=1)
        return shares

    def _learn(
        self,
        X: npt.NDArray[Any],
        y: npt.NDArray[Any],
        position: npt.NDArray[np.int64],
        weights: Weights,
        splits: list[Split],
    ) -> tuple[float, float]:
        """Return temperature and floor."""
        scored = hasattr(self.estimator_, "decision_function")
        rows, outputs = [], []
        for model, held_out in self._out_of_fold(X, y, weights, splits):
            part = np.full((len(held_out), len(self.classes_)), ABSENT if scored else 0.0)
            part[:, np.searchsorted(self.classes_, model.classes_)] = _outputs(model, X[held_out])
            rows.append(held_out)
            outputs.append(part)
        known = np.unique(position[np.concatenate(rows)]) if rows else ()
        if len(known) < 2:
            raise ValueError("too few rows of each class to calibrate on: two classes need two rows each at least")
        held_out = np.concatenate(rows)
        found, labels = np.concatenate(outputs)[:, known], np.searchsorted(known, position[held_out])
        counted = None if weights is None else weights[held_out]
        tried = []
        for floor in (0.0,) if scored else FLOORS:
            logits = _logits(found, floor)
            temperature = _temperature(logits, labels, counted)
            losses = -log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels]
            tried.append((np.average(losses, weights=counted), temperature, floor))
        return min(tried)[1:]


class _Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier whose scores are its input, so that scikit-learn calibrates logits that are known."""

    def __init__(self, n_classes: int) -> None:
        self.n_classes = n_classes
        self.classes_ = np.arange(n_classes)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        return self

    def decision_function(self, X: Floats) -> Floats:
        return X[:, 0] if self.n_classes == 2 else X

    def predict(self, X: Floats) -> npt.NDArray[np.int64]:
        return (X[:, 0] > 0).astype(np.int64) if self.n_classes == 2 else X.argmax(axis=1)


def _temperature(logits: Floats, y: npt.NDArray[np.int64], weights: Weights) -> float:
    """Return scikit-learn's temperature of logits (n, n_classes) and classes (n,), all of which are there."""
    n_classes = logits.shape[1]
    everything = np.arange(len(y))
    # None is above 0, or scikit-learn might take them for probabilities; of two classes it makes -x and x.
    given = logits - logits.max(axis=1, keepdims=True)
    probe = np.zeros((1, n_classes))
    probe[0, 1:] = -0.01
    if n_classes == 2:
        given, probe = (given[:, 1:] - given[:, :1]) / 2, (probe[:, 1:] - probe[:, :1]) / 2
    model = CalibratedClassifierCV(
        _Given(n_classes), method="temperature", ensemble=False, cv=[(everything, everything)]
    )
    model.fit(given, y, sample_weight=weights)
    first, second = model.predict_proba(probe)[0, :2]
    return float(0.01 / np.log(first / second))


def calibrate_fitted(fitted: Any, X: npt.NDArray[Any], y: npt.NDArray[Any], cv: Folds = None) -> Any:
    """Return a fitted classifier with its temperature around it, as `TemperatureCalibratedClassifier` fits that.

    Parameters
    ----------
    X : float array (n_samples, n_features)
    y : array (n_samples,)
        What it was fitted on.
    cv : int, iterable of (train rows, held-out rows), or None
    """
    around = TemperatureCalibratedClassifier(clone(fitted), cv=cv)
    around.estimator_, around.n_features_in_ = fitted, X.shape[1]
    around.classes_, position = np.unique(y, return_inverse=True)
    splits = inner_splits(cv, y, classes=True, usual=FOLDS)
    around.temperature_, around.floor_ = around._learn(X, y, position, None, splits)
    return around


def logits_of(model: Any, X: npt.NDArray[Any], classes: npt.NDArray[Any]) -> Floats:
    """Return a fitted classifier's logits, float64 (n_samples, n_classes), also for classes that it does not know."""
    found = _outputs(model, X)
    if not hasattr(model, "decision_function"):
        found = np.log(found + USUAL_FLOOR)
    logits = np.full((len(X), len(classes)), ABSENT)
    logits[:, np.searchsorted(classes, model.classes_)] = found
    return logits


def tempered_loss(logits: Floats, y: npt.NDArray[np.int64], weights: Floats) -> float:
    """Return the log-loss of logits (n, n_classes) at their best temperature, for classes and weights (n,)."""
    known, labels = np.unique(y, return_inverse=True)
    if len(known) < 2:
        return np.inf
    own = logits[:, known]
    losses = -log_softmax(own / _temperature(own, labels, weights), axis=1)[np.arange(len(labels)), labels]
    return float(np.average(losses, weights=weights))


def _outputs(model: Any, X: npt.NDArray[Any]) -> Floats:
    """Return scores, or where a model has none probabilities, float64 (n_samples, n_classes)."""
    if not hasattr(model, "decision_function"):
        return np.asarray(model.predict_proba(X), np.float64)
    scores = np.asarray(model.decision_function(X), np.float64)
    return np.stack([np.zeros(len(scores)), scores], axis=1) if scores.ndim == 1 else scores


def _logits(outputs: Floats, floor: float) -> Floats:
    """Return logits up to a constant of each row; outputs with a floor are probabilities."""
    logits: Floats = np.log(outputs + floor) if floor else outputs
    return logits
