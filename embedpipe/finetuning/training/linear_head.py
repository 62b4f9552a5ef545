"""A stored head as one matrix and one bias, which is what a network's last layer is; and back again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer, StandardScaler, normalize

from embedpipe.errors import UsageError
from embedpipe.estimators.auto import AutoClassifier
from embedpipe.estimators.preprocessing.component_remover import CommonComponentRemover
from embedpipe.estimators.solvers.column_stats import Floats, blocks
from embedpipe.estimators.wrappers.calibration import TemperatureCalibratedClassifier
from embedpipe.estimators.wrappers.rejection import RejectingClassifier
from embedpipe.heads.head import Head

#: Relative error up to which two ways to the same scores count as the same.
SAME = 1e-9
#: Random vectors on which a head's scores are compared with its coefficients.
TRIED = 8


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A classifier that is one affine map of a head's vectors.

    Parameters
    ----------
    weight : float64 array (n_classes, dim)
        Over the vectors as stored, the layers joined in the order of ``head.layers``.
    bias : float64 array (n_classes,)
    classes : array (n_classes,)
        What the rows of ``weight`` stand for.
    unit : bool
        Whether vectors are scaled to length one first; zeros stay zeros.
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


class _NotAffineError(Exception):
    """A head is no affine map, possibly after scaling to length one; the message says why, and what would be."""


def linear_of(head: Head) -> LinearHead:
    """Fold a stored classification head into one affine map.

    Scalers, removed components and the temperature of a calibration become part of the weights; the threshold of a
    head that rejects is not carried. A head of two classes has one score, s, and gets the rows of -s/2 and s/2: their
    difference is s, and their softmax the sigmoid of s.

    Parameters
    ----------
    head : Head
        With any linear classifier: one that has ``coef_``, ``intercept_`` and ``classes_``, and whose
        ``decision_function(X)`` is ``X @ coef_.T + intercept_``.

    Returns
    -------
    LinearHead
        Its logits are the head's scores, divided by its temperature where it is calibrated.

    Raises
    ------
    UsageError
        If the head is of texts, is not for classes, or is no affine map.
    """
    refused = f"head {head.name!r} cannot become a network's last layer: "
    if head.spec.modality == "text":
        raise UsageError(refused + "it was fitted on texts, and only images are fine-tuned on: give a head of images")
    if head.task != "classification":
        raise UsageError(
            refused + f"it was fitted for {head.task}: fit one that decides between classes (--task classification)"
        )
    try:
        return _folded(head.estimator)
    except _NotAffineError as error:
        raise UsageError(refused + str(error)) from error


def estimator_of(linear: LinearHead) -> Any:
    """Return a fitted scikit-learn estimator that gives these logits.

    Parameters
    ----------
    linear : LinearHead

    Returns
    -------
    LogisticRegression or Pipeline
        The latter, with a Normalizer before it, where vectors are scaled to length one. ``predict_proba`` is the
        softmax of the logits; ``decision_function`` the logits, or of two classes their difference, second less first.
    """
    dim = linear.weight.shape[1]
    estimator = LogisticRegression()
    estimator.n_features_in_, estimator.classes_ = dim, linear.classes
    if len(linear.classes) == 2:
        estimator.coef_, estimator.intercept_ = np.diff(linear.weight, axis=0), np.diff(linear.bias)
    else:
        estimator.coef_, estimator.intercept_ = linear.weight, linear.bias
    estimator.n_iter_ = np.zeros(1, np.int32)
    if not linear.unit:
        return estimator
    return Pipeline([("normalizer", Normalizer().fit(np.zeros((1, dim)))), ("head", estimator)])


def _folded(estimator: Any) -> LinearHead:
    if isinstance(estimator, Pipeline):
        return _after(estimator.steps[:-1], _folded(estimator.steps[-1][1]))
    if isinstance(estimator, RejectingClassifier):
        return _folded(estimator.estimator_)
    if isinstance(estimator, TemperatureCalibratedClassifier):
        inside = _folded(estimator.estimator_)
        temperature = estimator.temperature_
        return replace(inside, weight=inside.weight / temperature, bias=inside.bias / temperature)
    if isinstance(estimator, AutoClassifier):
        return _padded(estimator)
    return _of_coefficients(estimator)


def _after(steps: Sequence[tuple[str, Any]], linear: LinearHead) -> LinearHead:
    """Return the map of vectors as they are before a pipeline's steps, of one that comes after them."""
    for name, step in reversed(steps):
        if step is None or step == "passthrough":
            continue
        if isinstance(step, Pipeline):
            linear = _after(step.steps, linear)
        elif isinstance(step, Normalizer):
            if step.norm != "l2":
                raise _NotAffineError(f"its step {name!r} scales to norm {step.norm!r}: use Normalizer(norm='l2')")
            linear = replace(linear, unit=True)
        elif not isinstance(step, StandardScaler | CommonComponentRemover):
            raise _NotAffineError(
                f"its step {name!r} ({type(step).__name__}) is none that can be folded in: fit one with Normalizer, "
                "StandardScaler and CommonComponentRemover only, or without steps"
            )
        elif linear.unit:
            raise _NotAffineError(
                f"its step {name!r} ({type(step).__name__}) comes before vectors are scaled to length one: fit one "
                "that scales to length one first, or not at all"
            )
        elif isinstance(step, StandardScaler):
            weight = linear.weight / step.scale_ if step.with_std else linear.weight
            bias = linear.bias - weight @ step.mean_ if step.with_mean else linear.bias
            linear = replace(linear, weight=weight, bias=bias)
        else:
            common = step.components_
            linear = replace(linear, weight=linear.weight - (linear.weight @ common.T) @ common)
    return linear


def _padded(picked: AutoClassifier) -> LinearHead:
    """Return the map of all columns, of which a head may use those of one layer."""
    inside = _folded(picked.estimator_)
    dim = picked.n_features_in_
    if inside.unit and inside.weight.shape[1] < dim:
        raise _NotAffineError(
            f"of joined layers it uses {picked.layer_!r} only, scaled to length one: fit it on that one "
            f"(--layer {picked.layer_})"
        )
    weight = np.zeros((len(inside.weight), dim))
    weight[:, picked.start_ : picked.stop_] = inside.weight
    return replace(inside, weight=weight)


def _of_coefficients(estimator: Any) -> LinearHead:
    """Return the map of a linear classifier, whose scores are compared with its coefficients."""
    if not all(hasattr(estimator, name) for name in ("coef_", "intercept_", "classes_", "decision_function")):
        raise _NotAffineError(
            f"{type(estimator).__name__} is not linear: fit one that is, such as logreg (--head logreg)"
        )
    weight = np.atleast_2d(np.asarray(estimator.coef_, np.float64))
    bias = np.broadcast_to(np.asarray(estimator.intercept_, np.float64), len(weight))
    classes = np.asarray(estimator.classes_)
    vectors = np.random.default_rng(0).standard_normal((TRIED, weight.shape[1]))
    given, expected = np.asarray(estimator.decision_function(vectors)), vectors @ weight.T + bias
    expected = expected[:, 0] if len(weight) == 1 else expected
    if given.shape != expected.shape or not np.allclose(given, expected, rtol=SAME, atol=SAME * np.abs(given).max()):
        raise _NotAffineError(
            f"the scores of {type(estimator).__name__} are not vectors times its coef_ plus its intercept_: fit one of "
            "which they are, such as logreg (--head logreg)"
        )
    if len(weight) == 1:
        weight, bias = np.vstack([-weight, weight]) / 2, np.array([-bias[0], bias[0]]) / 2
    return LinearHead(weight, np.array(bias), classes, unit=False)
