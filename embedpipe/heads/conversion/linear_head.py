"""`LinearHead`: a fitted linear classifier as the weight and bias of a network's last layer, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer, StandardScaler, normalize

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError
from embedpipe.estimators.auto import AutoClassifier
from embedpipe.estimators.preprocessing.component_remover import CommonComponentRemover
from embedpipe.estimators.solvers.column_stats import Floats, blocks
from embedpipe.estimators.wrappers.calibration import TemperatureCalibratedClassifier
from embedpipe.estimators.wrappers.rejection import RejectingClassifier

#: Relative difference up to which scores count as equal.
TOLERANCE = 1e-9
#: Number of random vectors on which the scores of an estimator are compared with its coefficients.
PROBES = 8


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A classifier of vectors that is one affine map, as the last layer of a network is.

    Parameters
    ----------
    weight : float64 array (n_classes, dim)
        Of the stored vectors, with the layers joined in the order of ``Head.layers``.
    bias : float64 array (n_classes,)
    classes : array (n_classes,)
        The class of each row of ``weight``.
    unit : bool
        Whether vectors are scaled to length one first; zero vectors stay zero.
    """

    weight: Floats
    bias: Floats
    classes: npt.NDArray[Any]
    unit: bool

    def logits(self, X: npt.NDArray[Any]) -> Floats:
        """Return the logits of vectors, float (n_samples, dim), as float64 (n_samples, n_classes)."""
        logits = np.empty((len(X), len(self.weight)))
        for part in blocks(*X.shape):
            rows = X[part].astype(np.float64)
            logits[part] = (normalize(rows, copy=False) if self.unit else rows) @ self.weight.T + self.bias
        return logits

    def to_estimator(self) -> LogisticRegression | Pipeline:
        """Return a fitted scikit-learn estimator with these logits.

        Returns
        -------
        LogisticRegression or Pipeline
            The Pipeline, with a Normalizer as its first step, if ``unit``. ``predict_proba`` is the softmax of the
            logits; ``decision_function`` is the logits or, for two classes, the second less the first.
        """
        dim = self.weight.shape[1]
        estimator = LogisticRegression()
        estimator.n_features_in_, estimator.classes_ = dim, self.classes
        if len(self.classes) == 2:
            estimator.coef_, estimator.intercept_ = np.diff(self.weight, axis=0), np.diff(self.bias)
        else:
            estimator.coef_, estimator.intercept_ = self.weight, self.bias
        estimator.n_iter_ = np.zeros(1, np.int32)
        if not self.unit:
            return estimator
        return Pipeline([("normalizer", Normalizer().fit(np.zeros((1, dim)))), ("head", estimator)])


class _NotAffineError(Exception):
    """An estimator is not an affine map, with or without scaling to length one; the message says why."""


def fold_estimator(estimator: Any, name: str = "") -> LinearHead:
    """Fold a fitted linear classifier into one affine map.

    Scalers, removed components and the temperature of a calibration become part of the weights. The rejection
    threshold is dropped. A classifier of two classes has one score, s, and gets the logits -s/2 and s/2: their
    difference is s, and their softmax is the sigmoid of s.

    Parameters
    ----------
    estimator : scikit-learn classifier
        Has ``coef_``, ``intercept_`` and ``classes_``, and its ``decision_function(X)`` is
        ``X @ coef_.T + intercept_``; or a pipeline or wrapper of such a classifier.
    name : str
        Name of the head for error messages; by default the name of the estimator's class.

    Returns
    -------
    LinearHead
        Its logits are the scores of the estimator, divided by the temperature of a calibration.

    Raises
    ------
    UsageError
        If the estimator is not an affine map.
    """
    try:
        return _fold(estimator)
    except _NotAffineError as error:
        name = name or type(estimator).__name__
        raise UsageError(f"head {name!r} cannot become the last layer of a network: {error}") from error


def _fold(estimator: Any) -> LinearHead:
    if isinstance(estimator, Pipeline):
        return _fold_steps(estimator.steps[:-1], _fold(estimator.steps[-1][1]))
    if isinstance(estimator, RejectingClassifier):
        return _fold(estimator.estimator_)
    if isinstance(estimator, TemperatureCalibratedClassifier):
        linear = _fold(estimator.estimator_)
        temperature = estimator.temperature_
        return replace(linear, weight=linear.weight / temperature, bias=linear.bias / temperature)
    if isinstance(estimator, AutoClassifier):
        return _fold_auto(estimator)
    return _fold_coefficients(estimator)


def _fold_steps(steps: Sequence[tuple[str, Any]], linear: LinearHead) -> LinearHead:
    """Fold the transformers of a pipeline into the map that follows them."""
    for name, step in reversed(steps):
        if step is None or step == "passthrough":
            continue
        if isinstance(step, Pipeline):
            linear = _fold_steps(step.steps, linear)
        elif isinstance(step, Normalizer):
            if step.norm != "l2":
                raise _NotAffineError(f"Normalizer must have norm='l2', got {step.norm!r} in step {name!r}")
            linear = replace(linear, unit=True)
        elif not isinstance(step, StandardScaler | CommonComponentRemover):
            raise _NotAffineError(
                "steps must be Normalizer, StandardScaler or CommonComponentRemover, got "
                f"{type(step).__name__} in step {name!r}"
            )
        elif linear.unit:
            raise _NotAffineError(
                f"Normalizer must be the first step, got {type(step).__name__} before it in step {name!r}"
            )
        elif isinstance(step, StandardScaler):
            weight = linear.weight / step.scale_ if step.with_std else linear.weight
            bias = linear.bias - weight @ step.mean_ if step.with_mean else linear.bias
            linear = replace(linear, weight=weight, bias=bias)
        else:
            common = step.components_
            linear = replace(linear, weight=linear.weight - (linear.weight @ common.T) @ common)
    return linear


def _fold_auto(auto: AutoClassifier) -> LinearHead:
    """Return the map over all columns of a classifier that may use the columns of one layer."""
    linear = _fold(auto.estimator_)
    dim = auto.n_features_in_
    if linear.unit and linear.weight.shape[1] < dim:
        raise _NotAffineError(
            f"it scales layer {auto.layer_!r} alone to length one, and was fitted on several. Fit it with "
            f"{option('layer', auto.layer_)}"
        )
    weight = np.zeros((len(linear.weight), dim))
    weight[:, auto.start_ : auto.stop_] = linear.weight
    return replace(linear, weight=weight)


def _fold_coefficients(estimator: Any) -> LinearHead:
    """Return the map of a linear classifier after checking its scores against its coefficients."""
    if not all(hasattr(estimator, name) for name in ("coef_", "intercept_", "classes_", "decision_function")):
        raise _NotAffineError(
            f"the estimator must be linear, got {type(estimator).__name__}. Fit a linear one, such as logreg"
        )
    weight = np.atleast_2d(np.asarray(estimator.coef_, np.float64))
    bias = np.broadcast_to(np.asarray(estimator.intercept_, np.float64), len(weight))
    classes = np.asarray(estimator.classes_)
    vectors = np.random.default_rng(0).standard_normal((PROBES, weight.shape[1]))
    scores, expected = np.asarray(estimator.decision_function(vectors)), vectors @ weight.T + bias
    expected = expected[:, 0] if len(weight) == 1 else expected
    if scores.shape != expected.shape or not np.allclose(
        scores, expected, rtol=TOLERANCE, atol=TOLERANCE * np.abs(scores).max()
    ):
        raise _NotAffineError(
            f"decision_function(X) must be X @ coef_.T + intercept_, which it is not for {type(estimator).__name__}. "
            "Fit a linear classifier, such as logreg"
        )
    return LinearHead(*of_all_classes(weight, np.array(bias)), classes, unit=False)


def of_all_classes(coef: Any, intercept: Any) -> tuple[Any, Any]:
    """Return coefficients with a row for each class; the one score s of two classes becomes -s/2 and s/2."""
    if len(coef) > 1:
        return coef, intercept
    return np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
