"""Wrappers: calibration, rejection, intervals, one head per label; which tasks and heads each is for."""

from __future__ import annotations

from typing import Any

from sklearn.base import is_regressor

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError
from embedpipe.estimators.solvers.torch_matrix import set_device
from embedpipe.estimators.wrappers.base import takes_weights
from embedpipe.estimators.wrappers.calibration import TemperatureCalibratedClassifier
from embedpipe.estimators.wrappers.conformal import CrossConformalRegressor
from embedpipe.estimators.wrappers.multilabel import MultiLabelClassifier
from embedpipe.estimators.wrappers.rejection import RejectingClassifier
from embedpipe.heads.options import FitOptions, Task
from embedpipe.heads.registry import HEADS


def wrap_estimator(name: str, estimator: Any, task: Task, options: FitOptions, labels: list[str] | None) -> Any:
    """Return an estimator inside the wrappers that the options ask for.

    Parameters
    ----------
    name : str
        Name of the head, for messages.
    estimator : scikit-learn estimator
        Unfitted.
    task : str
    options : FitOptions
    labels : list of str, optional
        Names of the labels, for the multilabel task.

    Raises
    ------
    UsageError
        If an option is not for this task or this head.
    """
    _check_task(task, options)
    _check_weights(name, estimator, task, options)
    if options.calibrate:
        if is_regressor(estimator):
            able = ", ".join(_heads_for(task, classifiers_only=True))
            raise UsageError(
                f"{name} learns all labels at once and cannot be calibrated: choose {able} ({option('head', ...)})"
            )
        estimator = TemperatureCalibratedClassifier(estimator)
    if options.interval_coverage is not None:
        estimator = CrossConformalRegressor(estimator, coverage=options.interval_coverage)
    if options.reject_share is not None:
        if options.reject_by == "probability" and not hasattr(estimator, "predict_proba"):
            raise UsageError(
                f"{name} gives no probabilities to reject by: add {option('calibrate', True)}, or reject by distance "
                f"({option('reject_by', 'distance')})"
            )
        estimator = RejectingClassifier(estimator, share=options.reject_share, by=options.reject_by)
    if task == "multilabel":
        estimator = MultiLabelClassifier(estimator, labels, class_weight=options.class_weight)
    if options.gpu and not set_device(estimator, options.gpu):
        able = " or ".join(head for head in _heads_for(task) if hasattr(HEADS[head][task](2), "device"))
        raise UsageError(
            f"{name} is fitted on the CPU only: leave {option('device', options.device)} out, or choose {able} "
            f"({option('head', ...)})"
        )
    return estimator


def _check_task(task: Task, options: FitOptions) -> None:
    tasks_of: tuple[tuple[str, Any, tuple[Task, ...]], ...] = (
        ("interval_coverage", options.interval_coverage, ("regression",)),
        ("reject_share", options.reject_share, ("classification",)),
        ("calibrate", options.calibrate or None, ("classification", "multilabel")),
        ("class_weight", options.class_weight, ("classification", "multilabel")),
    )
    for name, value, tasks in tasks_of:
        if value is not None and task not in tasks:
            raise UsageError(
                f"{option(name, value)} is for {' and '.join(tasks)}, and the task is {task}: leave it out"
            )


def _check_weights(name: str, estimator: Any, task: Task, options: FitOptions) -> None:
    given = [option(each) for each in ("class_weight", "sample_weight") if getattr(options, each) is not None]
    # A regressor learns all labels at once, so that no label can have weights of its own.
    unweighted = task == "multilabel" and is_regressor(estimator) and options.class_weight is not None
    if given and (unweighted or not takes_weights(estimator)):
        heads = _heads_for(task, classifiers_only=unweighted)
        able = " or ".join(head for head in heads if takes_weights(HEADS[head][task](2)))
        raise UsageError(
            f"{name} takes no {' or '.join(given)}: choose {able} ({option('head', ...)}), or leave it out"
        )


def _heads_for(task: Task, classifiers_only: bool = False) -> list[str]:
    """Return the names of the heads for a task, optionally without those that use a regressor for it."""
    names = [name for name, factories in HEADS.items() if task in factories]
    return [name for name in names if not classifiers_only or not is_regressor(HEADS[name][task](2))]
