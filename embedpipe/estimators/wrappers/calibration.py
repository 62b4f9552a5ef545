"""`TemperatureCalibratedClassifier`: calibrated probabilities by temperature scaling, for any classifier."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.base import ClassifierMixin, clone
from sklearn.utils.multiclass import check_classification_targets

from embedpipe._utils.public import public_in
from embedpipe.estimators.linear.base import check_training, check_weights
from embedpipe.estimators.solvers.column_stats import Floats, Matrix
from embedpipe.estimators.wrappers.base import FOLDS, OF_INNER, Weights, WrappedEstimator
from embedpipe.splits.inner import Folds, Split, inner_splits, take_rows

#: The logit of a class that does not occur in a fold's training rows: probability 0 at every temperature.
ABSENT_LOGIT = -1e30
#: Numbers to choose from that are added to probabilities before taking logarithms. Among 20 neighbours a class often
#: has no vote; with scikit-learn's 1e-12, such rows alone would determine the temperature. Log-loss chooses.
FLOORS = (1e-12, 1e-3, 3e-3, 1e-2, 3e-2)
#: The floor where none is chosen.
DEFAULT_FLOOR = 1e-2
#: Where the logarithm of the inverse temperature is looked for, as in scikit-learn.
LOG_BETA_RANGE = (-10.0, 10.0)


@public_in("embedpipe.estimators")
class TemperatureCalibratedClassifier(ClassifierMixin, WrappedEstimator):  # type: ignore[misc]
    """Calibrate probabilities by temperature scaling: the logits are divided by one number, the temperature.

    The temperature has the least log-loss on out-of-fold predictions of the training rows, as in scikit-learn's
    ``CalibratedClassifierCV(method="temperature", ensemble=False)``, but for the targets. Predicted classes do not
    change.

    Parameters
    ----------
    estimator : classifier
    cv : int, iterable of (train rows, held-out rows), or None
        Splits on which out-of-fold predictions are made, and on which an inner estimator chooses its penalty; by
        default 5 folds, or one held-out fifth of more than 20,000 rows.
    temperature, floor : float, optional
        If both are given, they are used instead of fitting.

    Attributes
    ----------
    temperature_ : float
        Above 1 if the classifier was overconfident.
    floor_ : float
        Number that is added to probabilities before taking logarithms; 0 for classifiers with scores.
    estimator_ : classifier
        The uncalibrated classifier, fitted on all rows.
    classes_ : array (n_classes,)
    n_features_in_ : int

    Notes
    -----
    Of n rows, a share of 1 / (2 n + 2) of each counts for the class that comes next to its own: the share of wrong rows
    that Jeffreys' prior expects if none of n is wrong. Platt has such targets, with Laplace's prior. Otherwise no
    temperature is low enough for predictions that are all right, as those of few rows often are: every probability
    becomes 1, also of new rows that are predicted wrongly.

    Logits are the classifier's scores. A classifier without ``decision_function`` has its probabilities' logarithms
    instead, after a small number is added, because votes of few neighbours are often 0; out-of-fold log-loss chooses
    that number too. scikit-learn does not calibrate such classifiers for two classes. An estimator that chooses a
    penalty does so once, on all rows, and the folds use the same one.

    References
    ----------
    Guo, Pleiss, Sun, Weinberger: On calibration of modern neural networks, ICML 2017. Platt: Probabilistic outputs for
    support vector machines and comparisons to regularized likelihood methods, Advances in Large Margin Classifiers,
    1999, section 2.2 (the targets).

    Examples
    --------
    >>> import numpy as np
    >>> from embedpipe.estimators import TemperatureCalibratedClassifier, TunedRidgeClassifier
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.standard_normal((60, 2)), np.arange(60) % 2
    >>> X[:, 0] += y
    >>> model = TemperatureCalibratedClassifier(TunedRidgeClassifier()).fit(X, y)
    >>> model.predict_proba([[2.0, 0.0]]).round(1)
    array([[0.1, 0.9]])
    """

    def __init__(
        self, estimator: Any, *, cv: Folds = None, temperature: float | None = None, floor: float | None = None
    ) -> None:
        self.estimator = estimator
        self.cv = cv
        self.temperature = temperature
        self.floor = floor

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the classifier, then the temperature.

        Parameters
        ----------
        X : float array (n_samples, n_features)
        y : array (n_samples,)
        sample_weight : float array (n_samples,), optional

        Raises
        ------
        ValueError
            If fewer than two classes have two rows or more.
        """
        X, y = check_training(self, X, y, **OF_INNER)
        check_classification_targets(y)
        weights = check_weights(sample_weight, X)
        self.classes_, position = np.unique(y, return_inverse=True)
        splits = self._fit_inner(X, y, weights, classes=True)
        if self.temperature is None or self.floor is None:
            self.temperature_, self.floor_ = self._learn(X, y, position, weights, splits)
        else:
            self.temperature_, self.floor_ = self.temperature, self.floor
        return self

    def predict_proba(self, X: Any) -> Floats:
        """Return calibrated probabilities.

        Parameters
        ----------
        X : float array (n_samples, n_features)

        Returns
        -------
        float64 array (n_samples, n_classes)
        """
        X = self._rows(X)
        shares: Floats = softmax(_logits(_outputs(self.estimator_, X), self.floor_) / self.temperature_, axis=1)
        return shares

    def _learn(
        self,
        X: Matrix,
        y: npt.NDArray[Any],
        position: npt.NDArray[np.int64],
        weights: Weights,
        splits: list[Split],
    ) -> tuple[float, float]:
        """Return the temperature and the floor of least out-of-fold log-loss."""
        scored = hasattr(self.estimator_, "decision_function")
        rows, outputs = [], []
        for model, held_out in self._out_of_fold_models(X, y, weights, splits):
            part = np.full((len(held_out), len(self.classes_)), ABSENT_LOGIT if scored else 0.0)
            part[:, np.searchsorted(self.classes_, model.classes_)] = _outputs(model, take_rows(X, held_out))
            rows.append(held_out)
            outputs.append(part)
        present = np.unique(position[np.concatenate(rows)]) if rows else ()
        if len(present) < 2:
            raise ValueError("calibration needs two classes with two rows or more each: label more rows")
        held_out = np.concatenate(rows)
        predicted, labels = np.concatenate(outputs)[:, present], np.searchsorted(present, position[held_out])
        test_weights = None if weights is None else weights[held_out]
        tried = []
        for floor in (0.0,) if scored else FLOORS:
            logits = _logits(predicted, floor)
            temperature = best_temperature(logits, labels, test_weights, doubt=least_doubt(labels, test_weights))
            losses = -log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels]
            tried.append((np.average(losses, weights=test_weights), temperature, floor))
        return min(tried)[1:]


def least_doubt(y: npt.NDArray[np.int64], weights: Weights) -> float:
    """Return the share of wrong rows to expect if none of n is wrong: 1 / (2 n + 2), by Jeffreys' prior.

    A row of weight 2 counts as two, as everywhere in scikit-learn; weights that sum to 1 are no fewer rows.
    """
    rows = float(len(y)) if weights is None else max(float(weights.sum()), float(np.count_nonzero(weights)))
    return 1 / (2 * rows + 2)


def best_temperature(logits: Floats, y: npt.NDArray[np.int64], weights: Weights, *, doubt: float = 0.0) -> float:
    """Return the temperature of least log-loss for logits (n, n_classes) and classes (n,), all of which occur.

    With ``doubt``, that share of each row counts for the class with the largest logit beside its own. Without, the
    temperature is scikit-learn's, found in the same way. Its ``CalibratedClassifierCV`` sets the warning filters of the
    whole process for each fit, which threads that calibrate at the same time would undo.
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    rows = np.arange(len(y))
    of_truth, others = shifted[rows, y], shifted.copy()
    others[rows, y] = ABSENT_LOGIT
    of_next = others.max(axis=1)
    target = np.where(of_next > ABSENT_LOGIT / 2, (1 - doubt) * of_truth + doubt * of_next, of_truth)

    def log_loss(log_beta: float) -> float:
        beta = np.exp(log_beta)
        return float(np.average(np.log(np.exp(beta * shifted).sum(axis=1)) - beta * target, weights=weights))

    minimum = minimize_scalar(log_loss, bounds=LOG_BETA_RANGE, options={"xatol": 64 * np.finfo(np.float64).eps})
    return float(np.exp(-minimum.x))


def calibrate_fitted(fitted: Any, X: Matrix, y: npt.NDArray[Any], cv: Folds = None) -> Any:
    """Return a fitted classifier wrapped in a `TemperatureCalibratedClassifier`, without fitting it again.

    Parameters
    ----------
    X : float array (n_samples, n_features)
    y : array (n_samples,)
        The rows and labels that it was fitted on.
    cv : int, iterable of (train rows, held-out rows), or None
    """
    calibrated = TemperatureCalibratedClassifier(clone(fitted), cv=cv)
    calibrated.estimator_, calibrated.n_features_in_ = fitted, X.shape[1]
    calibrated.classes_, position = np.unique(y, return_inverse=True)
    splits = inner_splits(cv, y, classes=True, usual=FOLDS)
    calibrated.temperature_, calibrated.floor_ = calibrated._learn(X, y, position, None, splits)
    return calibrated


def logits_of(model: Any, X: npt.NDArray[Any], classes: npt.NDArray[Any]) -> Floats:
    """Return the logits of a fitted classifier for all ``classes``, float64 (n_samples, n_classes)."""
    outputs = _outputs(model, X)
    if not hasattr(model, "decision_function"):
        outputs = np.log(outputs + DEFAULT_FLOOR)
    logits = np.full((len(X), len(classes)), ABSENT_LOGIT)
    logits[:, np.searchsorted(classes, model.classes_)] = outputs
    return logits


def loss_at_best_temperature(logits: Floats, y: npt.NDArray[np.int64], weights: Floats) -> float:
    """Return the log-loss of logits (n, n_classes) at the temperature of least log-loss; classes and weights (n,)."""
    present, labels = np.unique(y, return_inverse=True)
    if len(present) < 2:
        return np.inf
    used = logits[:, present]
    losses = -log_softmax(used / best_temperature(used, labels, weights), axis=1)[np.arange(len(labels)), labels]
    return float(np.average(losses, weights=weights))


def _outputs(model: Any, X: Matrix) -> Floats:
    """Return the scores, or the probabilities of a model without scores, float64 (n_samples, n_classes)."""
    if not hasattr(model, "decision_function"):
        return np.asarray(model.predict_proba(X), np.float64)
    scores = np.asarray(model.decision_function(X), np.float64)
    return np.stack([np.zeros(len(scores)), scores], axis=1) if scores.ndim == 1 else scores


def _logits(outputs: Floats, floor: float) -> Floats:
    """Return logits up to a constant per row; with a floor, ``outputs`` are probabilities, else scores."""
    logits: Floats = np.log(outputs + floor) if floor else outputs
    return logits
