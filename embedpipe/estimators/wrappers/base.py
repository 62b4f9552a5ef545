"""`WrappedEstimator`: the base of calibration, rejection and intervals, which learn from out-of-fold predictions.

The inner estimator is fitted on all rows, where it chooses its parameters. Clones with the same parameters are then
fitted on the training rows of each fold, and their predictions of the held-out rows are what a wrapper learns from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from embedpipe.estimators.linear.base import check_rows
from embedpipe.estimators.preprocessing.component_remover import last_step
from embedpipe.estimators.solvers.column_stats import Matrix
from embedpipe.splits.inner import Folds, Split, inner_splits, take_rows

Weights = npt.NDArray[np.float64] | None
Method = TypeVar("Method", bound=Callable[..., Any])

#: Whether values may be missing is the inner estimator's to say, as of scikit-learn's own wrappers.
OF_INNER = {"ensure_all_finite": False}
#: Default number of folds of the out-of-fold predictions.
FOLDS = 5

#: Fitted attribute -> the parameter that lists the values to choose from.
CHOSEN_FROM_LISTS = {"C_": "Cs", "alpha_": "alphas"}
#: Fitted attribute -> the parameter that sets it.
CHOSEN_VALUES = {"temperature_": "temperature", "floor_": "floor"}


def only_if(check: Callable[[Any], bool]) -> Callable[[Method], Method]:
    """Make a method available only if ``check(estimator)``: scikit-learn's `available_if`, typed."""
    decorate: Callable[[Method], Method] = available_if(check)
    return decorate


def _inner_has(name: str) -> Callable[[Any], bool]:
    return lambda self: hasattr(getattr(self, "estimator_", self.estimator), name)


class WrappedEstimator(BaseEstimator):  # type: ignore[misc]
    """Base of estimators that wrap another one and learn from its out-of-fold predictions.

    Attributes
    ----------
    estimator_ : estimator
        The inner estimator, fitted on all rows.
    """

    estimator: Any
    estimator_: Any
    cv: Folds

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the predictions of the inner estimator.

        Parameters
        ----------
        X : float array (n_samples, n_features)

        Returns
        -------
        array (n_samples,)
        """
        predicted: npt.NDArray[Any] = self._fitted().predict(self._rows(X))
        return predicted

    @property
    def trains_on_blocks(self) -> bool:
        """Whether rows are read in blocks, so that they may be `MappedRows`."""
        return getattr(self.estimator, "trains_on_blocks", False)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = False
        inner = get_tags(self.estimator)
        tags.classifier_tags, tags.regressor_tags = inner.classifier_tags, inner.regressor_tags
        return tags

    def _fitted(self) -> Any:
        check_is_fitted(self, "estimator_")
        return self.estimator_

    def _rows(self, X: Any) -> Any:
        check_is_fitted(self, "estimator_")
        return check_rows(self, X, **OF_INNER)

    def _fit_inner(self, X: npt.NDArray[Any], y: npt.NDArray[Any], weights: Weights, classes: bool) -> list[Split]:
        """Fit ``estimator_`` on all rows, its parameters chosen on ``cv`` if given; return the out-of-fold splits."""
        splits = inner_splits(self.cv, y, classes, usual=FOLDS, weights=weights)
        self.estimator_ = fit_on(clone(self.estimator), X, y, weights, None if self.cv is None else splits)
        return splits

    def _out_of_fold_models(
        self, X: Matrix, y: npt.NDArray[Any], weights: Weights, splits: list[Split]
    ) -> Iterator[tuple[Any, npt.NDArray[np.int64]]]:
        """Yield for each split a model with the parameters of ``estimator_``, and the rows held out from it."""
        for train, held_out in splits:
            model = clone_with_chosen_params(self.estimator_)
            fit_on(model, take_rows(X, train), y[train], None if weights is None else weights[train])
            yield model, held_out


class WrappedClassifier(WrappedEstimator):
    """A wrapped classifier with the probabilities and scores of the inner estimator."""

    classes_: npt.NDArray[Any]

    @only_if(_inner_has("predict_proba"))
    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Return the probabilities of the inner estimator.

        Parameters
        ----------
        X : float array (n_samples, n_features)

        Returns
        -------
        float array (n_samples, n_classes)
        """
        shares: npt.NDArray[np.float64] = self._fitted().predict_proba(self._rows(X))
        return shares

    @only_if(_inner_has("decision_function"))
    def decision_function(self, X: Any) -> npt.NDArray[np.float64]:
        """Return the scores of the inner estimator.

        Parameters
        ----------
        X : float array (n_samples, n_features)

        Returns
        -------
        float array (n_samples, n_classes), or (n_samples,) for two classes
        """
        scores: npt.NDArray[np.float64] = self._fitted().decision_function(self._rows(X))
        return scores


def innermost_estimator(estimator: Any) -> Any:
    """Return the estimator inside all wrappers and pipelines; the fitted one if there is one."""
    step = last_step(estimator)
    inner = getattr(step, "estimator_", step.get_params(deep=False).get("estimator"))
    return innermost_estimator(inner) if isinstance(step, WrappedEstimator) else step


def clone_with_chosen_params(fitted: Any) -> Any:
    """Return an unfitted clone whose parameters are fixed to the chosen ones (C, penalty, temperature...)."""
    unfitted = clone(fitted)
    if isinstance(fitted, Pipeline):
        name, last = fitted.steps[-1]
        return unfitted.set_params(**{name: clone_with_chosen_params(last)})
    parameters = fitted.get_params(deep=False)
    for learned, parameter in CHOSEN_FROM_LISTS.items():
        if hasattr(fitted, learned) and parameter in parameters:
            unfitted.set_params(**{parameter: (getattr(fitted, learned),)})
    for learned, parameter in CHOSEN_VALUES.items():
        if hasattr(fitted, learned) and parameter in parameters:
            unfitted.set_params(**{parameter: getattr(fitted, learned)})
    if isinstance(fitted, WrappedEstimator):
        unfitted.set_params(estimator=clone_with_chosen_params(fitted.estimator_))
    return unfitted.set_params(cv=None) if isinstance(parameters.get("cv"), list) else unfitted


def fit_on(estimator: Any, X: Matrix, y: npt.NDArray[Any], weights: Weights = None, splits: Folds = None) -> Any:
    """Fit an estimator or pipeline with optional weights and splits; return it.

    Parameters
    ----------
    X : float array (n_samples, n_features), or MappedRows
    y : array (n_samples,)
    weights : float64 array (n_samples,), optional
    splits : list of (train rows, held-out rows), or int, optional
        Where the estimator chooses its parameters. Used if it has a parameter ``cv``, and that is None.
    """
    last = last_step(estimator)
    sets_cv = splits is not None and last.get_params(deep=False).get("cv", "") is None
    if sets_cv:
        last.set_params(cv=splits)
    if weights is None:
        estimator.fit(X, y)
    else:
        name = f"{estimator.steps[-1][0]}__sample_weight" if isinstance(estimator, Pipeline) else "sample_weight"
        estimator.fit(X, y, **{name: weights})
    if sets_cv:
        last.set_params(cv=None)
    return estimator


def takes_weights(estimator: Any) -> bool:
    """Return whether the innermost estimator can be fitted with sample weights."""
    return bool(has_fit_parameter(innermost_estimator(estimator), "sample_weight"))
