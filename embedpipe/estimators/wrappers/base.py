"""Predictions of rows by heads that have not seen them: what calibration, intervals and rejection learn from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, has_fit_parameter, validate_data

from embedpipe.estimators.linear.base import FLOATS
from embedpipe.estimators.preprocessing.component_remover import last_step
from embedpipe.splits.inner import Folds, Split, inner_splits, take_rows

Weights = npt.NDArray[np.float64] | None
Method = TypeVar("Method", bound=Callable[..., Any])

#: Folds of the out-of-fold predictions, where no splits are given.
FOLDS = 5

#: What a head learns by choosing, and the parameter that takes the choice.
LISTS = (("C_", "Cs"), ("alpha_", "alphas"))
VALUES = (("temperature_", "temperature"), ("floor_", "floor"))


def only_if(check: Callable[[Any], bool]) -> Callable[[Method], Method]:
    """Give an estimator a method only where ``check(estimator)`` holds: scikit-learn's `available_if`, with types."""
    decorate: Callable[[Method], Method] = available_if(check)
    return decorate


def _inside_has(name: str) -> Callable[[Any], bool]:
    return lambda self: hasattr(getattr(self, "estimator_", self.estimator), name)


class WrappedEstimator(BaseEstimator):  # type: ignore[misc]
    """A head around another, which it fits on all rows, and anew on folds to see what it makes of unseen ones.

    Attributes
    ----------
    estimator_ : estimator
        The head inside, fitted on all rows.
    """

    estimator: Any
    estimator_: Any
    cv: Folds

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return what the head inside predicts, (n_samples,)."""
        predicted: npt.NDArray[Any] = self._fitted().predict(self._rows(X))
        return predicted

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = False
        inside = get_tags(self.estimator)
        tags.classifier_tags, tags.regressor_tags = inside.classifier_tags, inside.regressor_tags
        return tags

    def _fitted(self) -> Any:
        check_is_fitted(self, "estimator_")
        return self.estimator_

    def _rows(self, X: Any) -> npt.NDArray[Any]:
        check_is_fitted(self, "estimator_")
        rows: npt.NDArray[Any] = validate_data(self, X, reset=False, dtype=FLOATS)
        return rows

    def _fit_inside(self, X: npt.NDArray[Any], y: npt.NDArray[Any], weights: Weights, classes: bool) -> list[Split]:
        """Fit ``estimator_`` on all rows, its choices made on ``cv`` if given; return the splits to learn on."""
        splits = inner_splits(self.cv, y, classes, usual=FOLDS)
        self.estimator_ = fit_on(clone(self.estimator), X, y, weights, None if self.cv is None else splits)
        return splits

    def _out_of_fold(
        self, X: npt.NDArray[Any], y: npt.NDArray[Any], weights: Weights, splits: list[Split]
    ) -> Iterator[tuple[Any, npt.NDArray[np.int64]]]:
        """Yield for each split a head like ``estimator_`` of its training rows, and its held-out rows."""
        for train, held_out in splits:
            model = clone_with_chosen_params(self.estimator_)
            fit_on(model, take_rows(X, train), y[train], None if weights is None else weights[train])
            yield model, held_out


class WrappedClassifier(WrappedEstimator):
    """A `WrappedEstimator` whose scores are those of the head inside."""

    classes_: npt.NDArray[Any]

    @only_if(_inside_has("predict_proba"))
    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Return the probabilities of the head inside, float (n_samples, n_classes)."""
        shares: npt.NDArray[np.float64] = self._fitted().predict_proba(self._rows(X))
        return shares

    @only_if(_inside_has("decision_function"))
    def decision_function(self, X: Any) -> npt.NDArray[np.float64]:
        """Return the scores of the head inside, float (n_samples, n_classes) or, of two classes, (n_samples,)."""
        scores: npt.NDArray[np.float64] = self._fitted().decision_function(self._rows(X))
        return scores


def head_of(estimator: Any) -> Any:
    """Return the head itself: what is inside heads around it, and the last step of pipelines; fitted if that is."""
    step = last_step(estimator)
    inside = getattr(step, "estimator_", step.get_params(deep=False).get("estimator"))
    return head_of(inside) if isinstance(step, WrappedEstimator) else step


def clone_with_chosen_params(fitted: Any) -> Any:
    """Return an unfitted clone that has the choices of a fitted head (C, penalty, temperature...) for parameters."""
    again = clone(fitted)
    if isinstance(fitted, Pipeline):
        name, last = fitted.steps[-1]
        return again.set_params(**{name: clone_with_chosen_params(last)})
    parameters = fitted.get_params(deep=False)
    for learned, parameter in LISTS:
        if hasattr(fitted, learned) and parameter in parameters:
            again.set_params(**{parameter: (getattr(fitted, learned),)})
    for learned, parameter in VALUES:
        if hasattr(fitted, learned) and parameter in parameters:
            again.set_params(**{parameter: getattr(fitted, learned)})
    if isinstance(fitted, WrappedEstimator):
        again.set_params(estimator=clone_with_chosen_params(fitted.estimator_))
    return again.set_params(cv=None) if isinstance(parameters.get("cv"), list) else again


def fit_on(
    estimator: Any, X: npt.NDArray[Any], y: npt.NDArray[Any], weights: Weights = None, splits: Folds = None
) -> Any:
    """Fit, and return the estimator.

    Parameters
    ----------
    weights : float64 array (n_samples,), optional
    splits : list of (train rows, held-out rows), or int, optional
        Where the estimator chooses, if it has a parameter ``cv`` that is None.
    """
    last = last_step(estimator)
    own_choice = splits is not None and last.get_params(deep=False).get("cv", "") is None
    if own_choice:
        last.set_params(cv=splits)
    if weights is None:
        estimator.fit(X, y)
    else:
        name = f"{estimator.steps[-1][0]}__sample_weight" if isinstance(estimator, Pipeline) else "sample_weight"
        estimator.fit(X, y, **{name: weights})
    if own_choice:
        last.set_params(cv=None)
    return estimator


def takes_weights(estimator: Any) -> bool:
    """Say whether the head itself can be fitted with sample weights."""
    return bool(has_fit_parameter(head_of(estimator), "sample_weight"))
