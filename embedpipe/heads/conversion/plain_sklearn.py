"""A fitted estimator as a pipeline of scikit-learn's own classes, which is unpickled without embedpipe."""

from __future__ import annotations

import copy
import functools
import math
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, LabelBinarizer, Normalizer, StandardScaler

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError
from embedpipe.estimators.auto import AutoClassifier, AutoRegressor
from embedpipe.estimators.knn import FaissKNNClassifier, FaissKNNRegressor
from embedpipe.estimators.linear.centroid import CentroidClassifier
from embedpipe.estimators.linear.lda import ShrunkenLDA
from embedpipe.estimators.linear.logistic_regression import TunedLogisticRegression
from embedpipe.estimators.linear.ridge import TunedRidge, TunedRidgeClassifier
from embedpipe.estimators.preprocessing.component_remover import CommonComponentRemover
from embedpipe.estimators.preprocessing.scaler import VarianceFloorScaler
from embedpipe.estimators.solvers.column_stats import Floats
from embedpipe.estimators.text_prior.zero_shot import ZeroShotClassifier
from embedpipe.estimators.wrappers.calibration import TemperatureCalibratedClassifier
from embedpipe.estimators.wrappers.conformal import CrossConformalRegressor
from embedpipe.estimators.wrappers.multilabel import MultiLabelClassifier
from embedpipe.estimators.wrappers.rejection import RejectingClassifier

#: The score of a label that all rows have, or none: its probability is 1 or 0 in float64.
CERTAIN = 1e3
#: The lowest temperature of votes whose weights, exp(-distance / temperature), are above 0 in float64.
LOWEST_TEMPERATURE = 0.003


class _NotPlainError(Exception):
    """An estimator has no equal among scikit-learn's; the message says why, and what to do."""


def plain_pipeline(estimator: Any, name: str, problem: str = "has no equal in scikit-learn") -> Pipeline:
    """Return a pipeline of scikit-learn's own classes that predicts what a fitted estimator predicts.

    Parameters
    ----------
    estimator : fitted scikit-learn estimator
        embedpipe's, scikit-learn's or a user's. A user's estimator is copied as it is.
    name : str
        Name of the head, for messages.
    problem : str
        What the head is not or cannot, in the message of the error.

    Returns
    -------
    Pipeline
        Its first step makes rows float64, in which the others compute.

    Raises
    ------
    UsageError
        If scikit-learn has no equal.
    """
    try:
        steps = _steps(estimator)
        names = [f"{number}_{step}" if number else step for number, (step, _) in enumerate(steps)]
        named = zip([*names[:-1], "head"], (part for _, part in steps), strict=True)
        as_float64 = FunctionTransformer(np.asarray, kw_args={"dtype": "float64"})
        plain = Pipeline([("float64", as_float64), *named])
        collector = _NameCollector()
        collector.dump(plain)
        if collector.names:
            raise _NotPlainError(f"it holds {', '.join(sorted(collector.names))}. Fit logreg, ridge, lda or knn")
    except _NotPlainError as error:
        raise UsageError(f"head {name!r} {problem}: {error}") from error
    return plain


def _steps(estimator: Any) -> list[tuple[str, Any]]:
    """Return the steps of the plain pipeline of an estimator, the last of which predicts."""
    if isinstance(estimator, Pipeline):
        transformers = [part for name, step in estimator.steps[:-1] for part in _transformers(name, step)]
        return [*transformers, *_steps(estimator.steps[-1][1])]
    if isinstance(estimator, RejectingClassifier | CrossConformalRegressor):
        return _steps(estimator.estimator_)
    if isinstance(estimator, AutoClassifier | AutoRegressor):
        steps = _steps(estimator.estimator_)
        if estimator.stop_ - estimator.start_ == estimator.n_features_in_:
            return steps
        layer = ColumnTransformer([("layer", "passthrough", slice(estimator.start_, estimator.stop_))])
        return [("layer", layer.fit(np.zeros((1, estimator.n_features_in_)))), *steps]
    if isinstance(estimator, TemperatureCalibratedClassifier):
        *before, (_, last) = _steps(estimator.estimator_)
        if not isinstance(last, LogisticRegression | RidgeClassifier):
            raise _NotPlainError(
                f"its nearest neighbours are calibrated. Fit logreg, ridge or lda ({option('head', ...)}), or knn "
                f"without {option('calibrate', True)}"
            )
        beta = 1 / estimator.temperature_
        return [*before, ("head", _logistic(beta * last.coef_, beta * last.intercept_, last.classes_))]
    if isinstance(estimator, MultiLabelClassifier):
        return _steps_of_labels(estimator)
    if isinstance(estimator, CentroidClassifier):
        centre = StandardScaler(with_std=False).fit(estimator.mean_[None])
        directions = _one_row_if_binary(estimator.coef_)
        head = _ridge_classifier(directions, np.zeros(len(directions)), estimator.classes_)
        return [("centre", centre), ("normalizer", _normalizer(estimator.n_features_in_)), ("head", head)]
    if isinstance(estimator, ZeroShotClassifier):
        coef, intercept = (_one_row_if_binary(part) for part in (estimator.coef_, estimator.intercept_))
        head = _logistic(coef, intercept, estimator.classes_)
        return [("normalizer", _normalizer(estimator.n_features_in_)), ("head", head)]
    return [("head", _plain_model(estimator))]


def _plain_model(estimator: Any) -> Any:
    if isinstance(estimator, TunedLogisticRegression | ShrunkenLDA):
        return _logistic(estimator.coef_, estimator.intercept_, estimator.classes_)
    if isinstance(estimator, TunedRidgeClassifier):
        return _ridge_classifier(estimator.coef_, estimator.intercept_, estimator.classes_)
    if isinstance(estimator, TunedRidge):
        ridge = Ridge()
        one = estimator._single_output
        ridge.coef_, ridge.intercept_ = (
            np.array(part[0] if one else part) for part in (estimator.coef_, estimator.intercept_)
        )
        ridge.n_features_in_ = estimator.n_features_in_
        return ridge
    if isinstance(estimator, FaissKNNClassifier):
        labels = estimator.classes_[estimator.labels_]
        return KNeighborsClassifier(**_knn_parameters(estimator)).fit(estimator.rows_, labels)
    if isinstance(estimator, FaissKNNRegressor):
        return KNeighborsRegressor(**_knn_parameters(estimator)).fit(estimator.rows_, estimator.values_)
    return copy.deepcopy(estimator)


def _knn_parameters(knn: FaissKNNClassifier | FaissKNNRegressor) -> dict[str, Any]:
    if knn.recall_target < 1:
        raise _NotPlainError(
            f"its neighbours are approximate (recall_target={knn.recall_target}). Fit knn, which is exact "
            f"({option('head', 'knn')})"
        )
    weights = knn.weights
    if weights == "softmax":
        if knn.temperature < LOWEST_TEMPERATURE:
            raise _NotPlainError(
                f"the temperature of its votes must be >= {LOWEST_TEMPERATURE}, got {knn.temperature}, as their "
                "weights are normalised after exp(-distance / temperature)"
            )
        # exp(-distance / temperature), without a function of embedpipe's.
        weights = functools.partial(np.power, math.exp(-1 / knn.temperature))
    return {"n_neighbors": knn.n_neighbors, "weights": weights, "metric": knn.metric, "algorithm": "brute"}


def _transformers(name: str, step: Any) -> list[tuple[str, Any]]:
    """Return a step that does not predict as scikit-learn's steps."""
    if step is None or step == "passthrough":
        return []
    if isinstance(step, Pipeline):
        return [part for inner, each in step.steps for part in _transformers(inner, each)]
    if isinstance(step, CommonComponentRemover):
        rest = np.eye(step.n_features_in_) - step.components_.T @ step.components_
        return [(name, FunctionTransformer(np.dot, kw_args={"b": rest}))]
    if isinstance(step, VarianceFloorScaler):
        plain = StandardScaler(with_mean=step.with_mean, with_std=step.with_std)
        vars(plain).update(copy.deepcopy(vars(step)))
        return [(name, plain)]
    return [(name, copy.deepcopy(step))]


def _steps_of_labels(estimator: MultiLabelClassifier) -> list[tuple[str, Any]]:
    """Return the steps of a classifier of several labels: scikit-learn's "one versus rest", on indicators of labels."""
    count, dim, of_label = len(estimator.classes_), estimator.n_features_in_, np.array([False, True])
    if count < 2:
        raise _NotPlainError(f"a head of several labels must have two or more, got {estimator.classes_.tolist()}")
    before: list[tuple[str, Any]] = []
    models: list[Any] = []
    for model in estimator.estimators_:
        if isinstance(model, float):  # a label that all rows have, or none
            models.append(_logistic(np.zeros((1, dim)), np.array([CERTAIN * (2 * model - 1)]), of_label))
            continue
        steps = _steps(model)
        last = steps[-1][1]
        if isinstance(last, Ridge):  # one regressor of all labels
            before, rows = steps[:-1], zip(np.atleast_2d(last.coef_), np.ravel(last.intercept_), strict=True)
            models += [_ridge_classifier(coef[None], intercept[None], of_label) for coef, intercept in rows]
        elif isinstance(last, KNeighborsRegressor):
            raise _NotPlainError(
                f"its nearest neighbours give no table of probabilities for several labels. Fit logreg or ridge "
                f"({option('head', ...)})"
            )
        else:
            models.append(last if len(steps) == 1 else Pipeline(steps))
    head = OneVsRestClassifier(models[0])
    head.estimators_, head.n_features_in_ = models, dim
    head.label_binarizer_ = LabelBinarizer(sparse_output=True).fit(np.eye(count, dtype=int))
    return [*before, ("head", head)]


def _logistic(coef: Floats, intercept: Floats, classes: npt.NDArray[Any]) -> LogisticRegression:
    """Return the classifier with the probabilities softmax(X @ coef.T + intercept), or the sigmoid of one score."""
    model = LogisticRegression()
    model.coef_, model.intercept_, model.classes_ = np.array(coef), np.array(intercept), classes
    model.n_features_in_, model.n_iter_ = model.coef_.shape[1], np.zeros(1, np.int32)
    return model


def _ridge_classifier(coef: Floats, intercept: Floats, classes: npt.NDArray[Any]) -> RidgeClassifier:
    """Return the classifier with these scores and no probabilities."""
    model = RidgeClassifier().fit(np.zeros((len(classes), coef.shape[1])), classes)  # it knows the classes now
    model.coef_, model.intercept_ = np.array(coef), np.array(intercept)
    return model


def _one_row_if_binary(values: Floats) -> Floats:
    """Return the coefficients or intercepts of scikit-learn, which for two classes are of the second less the first."""
    return np.diff(values, axis=0) if len(values) == 2 else values


def _normalizer(dim: int) -> Normalizer:
    return Normalizer().fit(np.zeros((1, dim)))


class _NameCollector(pickle.Pickler):
    """Collects the names of the functions and classes of embedpipe that a pickle would import; writes nothing."""

    def __init__(self) -> None:
        super().__init__(self)
        self.names: set[str] = set()

    def write(self, data: Any) -> int:
        return len(data)

    def reducer_override(self, obj: Any) -> Any:
        named = obj if hasattr(obj, "__qualname__") else type(obj)
        if str(getattr(named, "__module__", "")).split(".")[0] == "embedpipe":
            self.names.add(f"{named.__module__}.{named.__qualname__}")
        return NotImplemented
