"""What options put around a head: calibration, intervals, rejection, one head a label; and which heads take weights."""

from __future__ import annotations

from typing import Any

from sklearn.base import is_regressor

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
    """Return an estimator with around it what the options ask for.

    Parameters
    ----------
    name : str
        The head's, for messages.
    labels : list of str, optional
        The labels' names, of the multilabel task.

    Raises
    ------
    UsageError
        If an option is not for this task, or not for this head.
    """
    _check_task(task, options)
    _check_weights(name, estimator, task, options)
    if options.calibrate:
        if is_regressor(estimator):
            able = ", ".join(_names(task, calibrated=True))
            raise UsageError(f"{name} learns all labels at once and cannot be calibrated: choose {able} (--head)")
        estimator = TemperatureCalibratedClassifier(estimator)
    if options.interval_coverage is not None:
        estimator = CrossConformalRegressor(estimator, coverage=options.interval_coverage)
    if options.reject_share is not None:
        if options.reject_by == "probability" and not hasattr(estimator, "predict_proba"):
            raise UsageError(
                f"{name} gives no probabilities to reject by: add --calibrate, or reject by distance "
                "(--reject-by distance)"
            )
        estimator = RejectingClassifier(estimator, share=options.reject_share, by=options.reject_by)
    if task == "multilabel":
        estimator = MultiLabelClassifier(estimator, labels, class_weight=options.class_weight)
    if options.gpu and not set_device(estimator, options.gpu):
        others = [head for head in _names(task, calibrated=False) if hasattr(HEADS[head][task](2), "device")]
        raise UsageError(
            f"{name} is fitted on the processor only: leave device={options.device!r} out, or choose "
            f"{' or '.join(others)} (--head)"
        )
    return estimator


def _check_task(task: Task, options: FitOptions) -> None:
    fit_for: tuple[tuple[str, Any, tuple[Task, ...]], ...] = (
        ("interval_coverage", options.interval_coverage, ("regression",)),
        ("reject_share", options.reject_share, ("classification",)),
        ("calibrate", options.calibrate or None, ("classification", "multilabel")),
        ("class_weight", options.class_weight, ("classification", "multilabel")),
    )
    for option, value, tasks in fit_for:
        if value is not None and task not in tasks:
            raise UsageError(f"{option}={value} is for {' and '.join(tasks)}, and this is {task}: leave it out")


def _check_weights(name: str, estimator: Any, task: Task, options: FitOptions) -> None:
    given = [option for option in ("class_weight", "sample_weight") if getattr(options, option) is not None]
    at_once = task == "multilabel" and is_regressor(estimator) and options.class_weight is not None
    if given and (at_once or not takes_weights(estimator)):
        able = [head for head in _names(task, calibrated=at_once) if takes_weights(HEADS[head][task](2))]
        raise UsageError(f"{name} takes no {' or '.join(given)}: choose {' or '.join(able)} (--head), or leave it out")


def _names(task: Task, calibrated: bool) -> list[str]:
    """Return the heads for a task; only those that can be calibrated, if so."""
    found = [name for name, makers in HEADS.items() if task in makers]
    return [name for name in found if not calibrated or not is_regressor(HEADS[name][task](2))]
