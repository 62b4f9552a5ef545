"""The heads by name (``logreg``, ``ridge``...), and estimators that users bring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sklearn.base import clone, is_classifier, is_regressor

from embedpipe._utils.importing import import_user_module
from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError, nearest, suggest
from embedpipe.estimators.auto import AutoClassifier, AutoRegressor
from embedpipe.estimators.knn import FaissKNNClassifier, FaissKNNRegressor
from embedpipe.estimators.linear.centroid import CentroidClassifier
from embedpipe.estimators.linear.lda import ShrunkenLDA
from embedpipe.estimators.linear.logistic_regression import TunedLogisticRegression
from embedpipe.estimators.linear.ridge import TunedRidge, TunedRidgeClassifier
from embedpipe.estimators.preprocessing.component_remover import without_components
from embedpipe.heads.options import FitOptions, Task
from embedpipe.heads.zero_shot.text_heads import TEXT_HEADS

#: Chooses layer, normalisation and estimator by cross-validation.
AUTO = "auto"
#: The k of DINO's kNN protocol (Caron et al., ICCV 2021, section 4.1).
NEIGHBORS = 20

#: Makes an unfitted estimator for a training set of at least so many rows.
_Factory = Callable[[int], Any]


def _knn(kind: type, recall_target: float = 1.0) -> _Factory:
    return lambda rows: kind(min(NEIGHBORS, rows), weights="softmax", metric="cosine", recall_target=recall_target)


def _classifier(classifier: _Factory) -> dict[Task, _Factory]:
    """Return the factories of a classifier, which learns several labels one by one."""
    return {"classification": classifier, "multilabel": classifier}


def _classifier_and_regressor(classifier: _Factory, regressor: _Factory) -> dict[Task, _Factory]:
    """Return the factories of a head whose regressor learns several labels at once."""
    return {"classification": classifier, "regression": regressor, "multilabel": regressor}


#: Name -> task -> factory of the estimator.
HEADS: dict[str, dict[Task, _Factory]] = {
    "logreg": _classifier(lambda rows: TunedLogisticRegression()),
    "ridge": _classifier_and_regressor(lambda rows: TunedRidgeClassifier(), lambda rows: TunedRidge()),
    "lda": _classifier(lambda rows: ShrunkenLDA()),
    "centroid": _classifier(lambda rows: CentroidClassifier()),
    "knn": _classifier_and_regressor(_knn(FaissKNNClassifier), _knn(FaissKNNRegressor)),
    "knn-approx": _classifier_and_regressor(_knn(FaissKNNClassifier, 0.97), _knn(FaissKNNRegressor, 0.97)),
}
#: All names of heads.
NAMES = (*HEADS, AUTO, *TEXT_HEADS)


def make_estimator(head: Any, task: Task, rows: int, remove_components: int = 0) -> tuple[str, Any]:
    """Return a head's name and its unfitted estimator.

    Parameters
    ----------
    head : str, scikit-learn estimator or None
        A name of `HEADS`, or a user's estimator, which is cloned; None for ``logreg`` or ``ridge``, by task.
    task : str
    rows : int
        Number of rows in the smallest training set.
    remove_components : int
        Number of common components of the training rows that are removed before the head; part of the name.

    Raises
    ------
    UsageError
        If the head is unknown, or not for this task.
    """
    if remove_components:
        name, estimator = make_estimator(head, task, rows)
        plural = "s" * (remove_components > 1)
        return f"{name} without {remove_components} component{plural}", without_components(estimator, remove_components)
    other = "classification" if task == "regression" else "regression"
    hint = f"another task ({option('task', other)})"
    if head is None:
        head = "ridge" if task == "regression" else "logreg"
    if isinstance(head, str):
        if head not in HEADS:
            raise UsageError(f"unknown head {head!r}{suggest(head, NAMES)}")
        if task not in HEADS[head]:
            able = " or ".join(name for name, factories in HEADS.items() if task in factories)
            raise UsageError(f"head {head!r} is not for {task}: choose {able} ({option('head', ...)}), or {hint}")
        return head, HEADS[head][task](rows)
    if isinstance(head, type) or not hasattr(head, "fit") or not hasattr(head, "get_params"):
        raise UsageError(
            f"{option('head')} must be a name or an instance of a scikit-learn estimator, got {head!r:.100}"
        )
    fits = is_regressor(head) if task == "regression" else is_classifier(head)
    if not fits:
        raise UsageError(f"{type(head).__name__} is not for {task}: choose another estimator, or {hint}")
    return type(head).__name__, clone(head)


def make_auto(task: Task, layers: Mapping[str, int], options: FitOptions) -> Any:
    """Return the unfitted estimator of the head ``auto``.

    Parameters
    ----------
    layers : mapping of str to int
        Layer -> length of its vectors, in the order in which they are joined.

    Raises
    ------
    UsageError
        If ``auto`` is not for this task, or an option is not for ``auto``.
    """
    if task == "multilabel":
        raise UsageError(
            f"auto is for classification and regression, not for multilabel: choose another {option('head')}"
        )
    if options.remove_components:
        raise UsageError(
            f"auto tries its own normalisations: leave {option('remove_components')} out, or choose another "
            f"{option('head')}"
        )
    if options.calibrate:
        raise UsageError("auto calibrates the estimator that it chooses: leave calibrate out")
    return (AutoClassifier if task == "classification" else AutoRegressor)(list(layers.items()))


def load_estimator(name: str) -> Any:
    """Import ``module:Class`` from the working folder or an installed package, and call it without arguments.

    Raises UsageError if it cannot be imported, or needs arguments.
    """
    module_name, _, class_name = name.partition(":")
    if not module_name or not class_name:
        raise UsageError(f"{option('estimator')} must be module:Class, such as sklearn.svm:SVC, got {name!r}")
    try:
        module = import_user_module(module_name)
    except Exception as error:
        raise UsageError(
            f"{option('estimator', name)}: importing {module_name!r} failed: {type(error).__name__}: {error}"
        ) from error
    kind = getattr(module, class_name, None)
    if not callable(kind):
        raise UsageError(
            f"{option('estimator', name)}: {module_name!r} has no {class_name!r}{nearest(class_name, vars(module))}"
        )
    try:
        return kind()
    except Exception as error:
        raise UsageError(
            f"{option('estimator', name)}: {class_name}() failed: {type(error).__name__}: {error}; from Python, "
            "embedpipe.fit takes an estimator with any parameters"
        ) from error
