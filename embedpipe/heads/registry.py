"""The heads there are, by name, and those that users bring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sklearn.base import clone, is_classifier, is_regressor

from embedpipe._utils.importing import import_user_module
from embedpipe.errors import UsageError, nearest
from embedpipe.estimators.auto import AutoClassifier, AutoRegressor
from embedpipe.estimators.knn import FaissKNNClassifier, FaissKNNRegressor
from embedpipe.estimators.linear.centroid import CentroidClassifier
from embedpipe.estimators.linear.lda import ShrunkenLDA
from embedpipe.estimators.linear.logistic_regression import TunedLogisticRegression
from embedpipe.estimators.linear.ridge import TunedRidge, TunedRidgeClassifier
from embedpipe.estimators.preprocessing.component_remover import without_components
from embedpipe.heads.options import FitOptions, Task

#: The head that picks layer, normalisation and head by itself.
AUTO = "auto"
#: As many as DINO's protocol votes with (Caron et al., ICCV 2021, section 4.1).
NEIGHBORS = 20

_Make = Callable[[int], Any]


def _knn(kind: type, recall_target: float = 1.0) -> _Make:
    return lambda rows: kind(min(NEIGHBORS, rows), weights="softmax", metric="cosine", recall_target=recall_target)


def _of_classes(classifier: _Make) -> dict[Task, _Make]:
    """Return the makers of a head that learns several labels one by one."""
    return {"classification": classifier, "multilabel": classifier}


def _of_numbers(classifier: _Make, regressor: _Make) -> dict[Task, _Make]:
    """Return the makers of a head that learns numbers, and so several labels at once."""
    return {"classification": classifier, "regression": regressor, "multilabel": regressor}


#: Name -> for each task, a function that makes the estimator for at least so many training rows.
HEADS: dict[str, dict[Task, _Make]] = {
    "logreg": _of_classes(lambda rows: TunedLogisticRegression()),
    "ridge": _of_numbers(lambda rows: TunedRidgeClassifier(), lambda rows: TunedRidge()),
    "lda": _of_classes(lambda rows: ShrunkenLDA()),
    "centroid": _of_classes(lambda rows: CentroidClassifier()),
    "knn": _of_numbers(_knn(FaissKNNClassifier), _knn(FaissKNNRegressor)),
    "knn-approx": _of_numbers(_knn(FaissKNNClassifier, 0.97), _knn(FaissKNNRegressor, 0.97)),
}


def make_estimator(head: Any, task: Task, rows: int, remove_components: int = 0) -> tuple[str, Any]:
    """Return a head's name and its unfitted estimator.

    Parameters
    ----------
    head : str, scikit-learn estimator or None
        A name of `HEADS`, or an estimator of the user's own, which is cloned; None for the task's usual head.
    task : str
    rows : int
        Rows in the smallest training set.
    remove_components : int
        How many common components of the training rows are taken off before it; the name says so.

    Raises
    ------
    UsageError
        If there is no such head, or it is not for this task.
    """
    if remove_components:
        name, estimator = make_estimator(head, task, rows)
        plural = "s" * (remove_components > 1)
        return f"{name} without {remove_components} component{plural}", without_components(estimator, remove_components)
    other = "classification" if task == "regression" else "regression"
    hint = f"another task (--task {other})"
    if head is None:
        head = "ridge" if task == "regression" else "logreg"
    if isinstance(head, str):
        if head not in HEADS:
            raise UsageError(f"there is no head {head!r}{nearest(head, HEADS)}: there are {', '.join(HEADS)}")
        if task not in HEADS[head]:
            able = " or ".join(name for name, makers in HEADS.items() if task in makers)
            raise UsageError(f"head {head!r} is not for {task}: choose {able} (--head), or {hint}")
        return head, HEADS[head][task](rows)
    if isinstance(head, type) or not hasattr(head, "fit") or not hasattr(head, "get_params"):
        raise UsageError(f"head={head!r:.100} is neither a head's name nor a scikit-learn estimator")
    fits = is_regressor(head) if task == "regression" else is_classifier(head)
    if not fits:
        raise UsageError(f"{type(head).__name__} is not for {task}: choose another estimator, or {hint}")
    return type(head).__name__, clone(head)


def make_auto(task: Task, layers: Mapping[str, int], options: FitOptions) -> Any:
    """Return what picks a head by itself.

    Parameters
    ----------
    layers : mapping of str to int
        Layer -> its width, in the order in which they are joined.

    Raises
    ------
    UsageError
        If it is not for this task, or for an option.
    """
    if task == "multilabel":
        raise UsageError("auto is for classes and numbers, not for several labels an item: choose a head (--head)")
    if options.remove_components:
        raise UsageError("auto tries its own normalisations: leave remove_components out, or choose a head (--head)")
    if options.calibrate:
        raise UsageError("auto calibrates what it picks: leave calibrate out")
    return (AutoClassifier if task == "classification" else AutoRegressor)(list(layers.items()))


def load_estimator(name: str) -> Any:
    """Import ``module:Class``, here or installed, and make one without arguments.

    Raises UsageError if there is none, or it cannot be made so.
    """
    module_name, _, class_name = name.partition(":")
    if not module_name or not class_name:
        raise UsageError(f"estimator={name!r}: write module:Class, such as sklearn.svm:SVC")
    try:
        module = import_user_module(module_name)
    except Exception as error:
        raise UsageError(
            f"estimator={name!r}: importing {module_name!r} failed: {type(error).__name__}: {error}"
        ) from error
    kind = getattr(module, class_name, None)
    if not callable(kind):
        raise UsageError(
            f"estimator={name!r}: {module_name!r} has no {class_name!r}{nearest(class_name, vars(module))}"
        )
    try:
        return kind()
    except Exception as error:
        raise UsageError(
            f"estimator={name!r}: {class_name}() failed: {type(error).__name__}: {error}; from Python, "
            "embedpipe.fit takes an estimator with any parameters"
        ) from error
