"""Metrics of a head on rows that it was not fitted on, beside a baseline: the most frequent class, or the mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax
from sklearn import metrics
from sklearn.base import clone
from sklearn.dummy import DummyRegressor

from embedpipe._utils.notebook.html_tables import html_records, html_table
from embedpipe._utils.progress import Advance
from embedpipe.errors import HeadError
from embedpipe.estimators.wrappers.base import innermost_estimator
from embedpipe.heads.held_out import HeldOut
from embedpipe.heads.options import MeasuredOn, Task
from embedpipe.report.drawing.wording import metric_value
from embedpipe.splits.inner import Split, take_rows
from embedpipe.splits.mapped_rows import MappedRows
from embedpipe.statistics import Estimate, log_losses, share_interval

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]

#: With more classes than this, no confusion matrix is kept: its size is the square of their number.
MANY_CLASSES = 500


@dataclass(repr=False)
class FitReport:
    """How a head was measured, and its metrics beside those of a baseline.

    Attributes
    ----------
    task : str
        ``classification``, ``regression`` or ``multilabel``.
    measured_on : str
        ``test`` or ``validation`` for the rows of the store's ``split`` column that are named so, ``folds`` for
        cross-validation, ``none`` for a head that was not measured.
    n_folds : int
        Number of folds of the cross-validation; 0 for the others.
    split_ignored : bool
        Whether the store has a ``split`` column, which names no rows to measure on.
    fine_tuned : bool
        Whether the rows measured the whole network after fine-tuning, and not a head on stored vectors.
    rows, measured_rows : int
        Number of rows that the head was fitted on, and of distinct rows that measured it.
    left_out : dict
        Reason -> number of the store's rows that were neither fitted on nor measured on.
    notes : list of str
        What a reader of the metrics should know, such as held-out rows with near-duplicates among the training rows.
    metrics, baseline : dict
        Metric -> one value per split: of the head, and of the most frequent class or the mean.
    chosen : dict
        Parameters that the head chose, such as ``C``.
    trials : list of dict
        What ``auto`` tried on the rows that it was fitted on: see `embedpipe.AutoClassifier`.
    classes : list
        Sorted classes of all rows, or the labels of the multilabel task; empty for regression.
    confusion : list of list of int
        Rows are true classes, columns predicted classes, summed over all splits; empty for other tasks and for more
        than 500 classes.
    seconds : float
        Wall time of measuring and fitting.
    """

    task: Task
    measured_on: MeasuredOn
    rows: int
    measured_rows: int = 0
    n_folds: int = 0
    split_ignored: bool = False
    fine_tuned: bool = False
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    baseline: dict[str, list[float]] = field(default_factory=dict)
    chosen: dict[str, Any] = field(default_factory=dict)
    trials: list[dict[str, Any]] = field(default_factory=list)
    classes: list[Any] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def protocol(self) -> str:
        """How the head was measured, in words: ``5-fold cross-validation``, ``test split``, ``not measured``."""
        words = {
            "test": "test split",
            "validation": "validation split",
            "folds": f"{self.n_folds}-fold cross-validation",
            "none": "not measured",
        }[self.measured_on]
        if self.split_ignored:
            words += " (the split column does not name train and test)"
        return f"{words}, after fine-tuning" if self.fine_tuned else words

    @property
    def accuracy(self) -> Estimate | None:
        """Accuracy over all measured rows with its 95 % interval; None without a confusion matrix."""
        if not self.confusion:
            return None
        counts = np.asarray(self.confusion)
        return Estimate(*share_interval(int(np.trace(counts)), int(counts.sum())))

    def __repr__(self) -> str:
        """Return the task, the rows, and the mean of each metric on one line."""
        means = "".join(f", {name}={np.mean(values):.4g}" for name, values in self.metrics.items())
        return f"FitReport({self.task}, rows={self.rows}, measured by {self.protocol!r}{means})"

    def _repr_html_(self) -> str:
        title = f"FitReport: {self.task}, {self.rows:,} rows, measured by {self.protocol}"
        if not self.metrics:
            return html_table(title, {"rows": f"{self.rows:,}"})
        shown = [
            {
                "metric": name.replace("_", " "),
                "head": metric_value(float(np.mean(values)), name),
                "baseline": metric_value(float(np.mean(self.baseline[name])), name) if name in self.baseline else "",
            }
            for name, values in self.metrics.items()
        ]
        return html_records(title, shown)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and the protocol as plain numbers, strings, lists and dicts."""
        return {"protocol": self.protocol, **asdict(self)}


def measure(
    estimator: Any,
    X: npt.NDArray[Any] | MappedRows,
    y: npt.NDArray[Any],
    splits: list[Split],
    report: FitReport,
    fit: Callable[[Any, npt.NDArray[np.int64]], Any],
    advance: Advance,
) -> tuple[Any, HeldOut]:
    """Fit a clone on each split's training rows, score it on the test rows, and return the last clone.

    The metrics, classes and confusion matrix go into ``report``; the predictions of the test rows are returned too.

    Parameters
    ----------
    X : float array (n_samples, dim), or MappedRows
    y : array (n_samples,), or bool (n_samples, n_labels) of the multilabel task
    splits : list of (train rows, test rows)
    fit : callable
        ``fit(estimator, rows)`` returns the estimator fitted on those rows.
    """
    classes = np.unique(y) if report.task == "classification" else np.empty(0)
    if (named := getattr(innermost_estimator(estimator), "classes", None)) is not None:  # some may have no label yet
        classes = np.union1d(classes, np.asarray(named))
    counted = report.task == "classification" and len(splits) > 0 and len(classes) <= MANY_CLASSES
    confusion = np.zeros((len(classes), len(classes)) if counted else (0, 0), np.int64)
    majority = _majority_class(y, splits) if report.task == "classification" else None
    model, held_out = None, HeldOut(report.task, classes)
    for train, test in splits:
        model = None  # frees the memory of the last fit
        model = fit(clone(estimator), train)
        scores, baseline, predicted, outputs, counts = _score(
            model, X, y, (train, test), classes, majority, report.task
        )
        held_out.add(test, predicted, outputs, hasattr(model, "predict_proba"))
        if counts is not None:
            confusion += counts
        for values, lists in ((scores, report.metrics), (baseline, report.baseline)):
            for name, value in values.items():
                lists.setdefault(name, []).append(float(value))
        advance()
    report.measured_rows = len(np.unique(np.concatenate([test for _, test in splits]))) if splits else 0
    if report.task == "classification":
        report.classes = classes.tolist()
        report.confusion = confusion.tolist()
    return model, held_out


def measure_logits(
    logits: Floats, y: npt.NDArray[Any], y_train: npt.NDArray[Any], classes: npt.NDArray[Any], report: FitReport
) -> None:
    """Fill a classification report with the metrics of logits on test rows, and of the baseline.

    Parameters
    ----------
    logits : float64 array (n_samples, n_classes)
    y : array (n_samples,)
        The true classes.
    y_train : array (n_training_rows,)
        The classes of the training rows, for the baseline.
    classes : array (n_classes,)
        In the order of the logits, sorted.
    """
    actual, predicted = np.searchsorted(classes, y), logits.argmax(axis=1)
    margin = logits[:, 1] - logits[:, 0] if len(classes) == 2 else None
    labels, counts = np.unique(y_train, return_counts=True)
    scores = _class_metrics(actual, predicted, len(classes), softmax(logits, axis=1), margin)
    baseline = _score_class_baseline(y_train, actual, classes, labels[counts.argmax()])
    report.metrics = {name: [float(value)] for name, value in scores.items()}
    report.baseline = {name: [float(value)] for name, value in baseline.items()}
    report.measured_rows = len(y)
    report.classes = classes.tolist()
    if len(classes) <= MANY_CLASSES:
        report.confusion = _confusion(actual, predicted, len(classes)).tolist()


def _score(
    model: Any,
    X: npt.NDArray[Any] | MappedRows,
    y: npt.NDArray[Any],
    split: Split,
    classes: npt.NDArray[Any],
    majority: Any,
    task: Task,
) -> tuple[dict[str, float], dict[str, float], npt.NDArray[Any], Floats | None, Counts | None]:
    """Return the metrics of a model and of the baseline on a split's test rows, the predictions and their scores.

    The scores are those of `_class_scores`, for classes only, as are the counts of `_confusion`, the last value.
    """
    train, test = split
    held_out, truth = take_rows(X, test), y[test]
    predicted = model.predict(held_out)
    if task == "multilabel":
        scores = _score_labels(model, held_out, predicted, truth)
        return scores, _score_label_baseline(y[train], truth), predicted, None, None
    if task == "regression":
        # A baseline uses no feature.
        mean = DummyRegressor().fit(np.zeros((len(train), 1)), y[train]).predict(np.zeros((len(test), 1)))
        scores = {**_score_numbers(predicted, truth), **_score_intervals(model, held_out, truth)}
        return scores, _score_numbers(mean, truth), predicted, None, None
    actual, numbers = np.searchsorted(classes, truth), _class_numbers(predicted, classes)
    baseline = _score_class_baseline(y[train], actual, classes, majority)
    outputs = _class_scores(model, held_out, classes)
    scores = _score_classes(model, held_out, outputs, numbers, actual, classes)
    scores |= _score_rejection(model, held_out, numbers == actual)
    counts = _confusion(actual, numbers, len(classes)) if len(classes) <= MANY_CLASSES else None
    return scores, baseline, predicted, outputs, counts


def _class_numbers(predicted: npt.NDArray[Any], classes: npt.NDArray[Any]) -> Rows:
    """Return the numbers of predictions among sorted classes. Raises HeadError for one that is no class."""
    numbers = np.minimum(np.searchsorted(classes, predicted), len(classes) - 1)
    if len(others := np.flatnonzero(classes[numbers] != predicted)):
        other = str(predicted[others[0]])
        raise HeadError(f"a classifier must predict classes of its training rows, and predicts {other!r}: correct it")
    return numbers


def _majority_class(y: npt.NDArray[Any], splits: list[Split]) -> Any:
    """Return the most frequent class of all training rows.

    That of one fold's training rows would be, with even classes, the rarest of its test rows.
    """
    trained_on = np.unique(np.concatenate([train for train, _ in splits])) if splits else np.arange(len(y))
    labels, counts = np.unique(y[trained_on], return_counts=True)
    return labels[counts.argmax()]


def _score_class_baseline(
    y_train: npt.NDArray[Any], actual: Rows, classes: npt.NDArray[Any], majority: Any
) -> dict[str, float]:
    """Return the metrics of always predicting one class; the log-loss is that of the training rows' class shares."""
    known, counts = np.unique(y_train, return_counts=True)
    shares = np.zeros(len(classes))
    shares[np.searchsorted(classes, known)] = counts / len(y_train)
    always = np.full(len(actual), np.searchsorted(classes, majority))
    margin = np.zeros(len(actual)) if len(known) == 2 else None
    return _class_metrics(actual, always, len(classes), np.tile(shares / shares.sum(), (len(actual), 1)), margin)


def _class_scores(model: Any, X: npt.NDArray[Any] | MappedRows, classes: npt.NDArray[Any]) -> Floats | None:
    """Return the probabilities or decision scores of classes, float64 (n_samples, n_classes); None if there are none.

    A class that was not in the training rows has probability 0, or the score minus infinity.
    """
    known = np.searchsorted(classes, model.classes_)
    if hasattr(model, "predict_proba"):
        probabilities = np.zeros((len(X), len(classes)))
        probabilities[:, known] = model.predict_proba(X)
        normalised: Floats = probabilities / probabilities.sum(axis=1, keepdims=True)  # float32 sums are not exactly 1
        return normalised
    if not hasattr(model, "decision_function"):
        return None
    values = np.asarray(model.decision_function(X), np.float64).reshape(len(X), -1)
    if len(known) == 2 and values.shape[1] == 1:
        values = np.hstack([np.zeros_like(values), values])
    if values.shape[1] != len(known):
        return None
    scores = np.full((len(X), len(classes)), -np.inf)
    scores[:, known] = values
    return scores


def _score_classes(
    model: Any,
    X: npt.NDArray[Any] | MappedRows,
    outputs: Floats | None,
    predicted: Rows,
    actual: Rows,
    classes: npt.NDArray[Any],
) -> dict[str, float]:
    """Return the metrics of predictions whose scores are ``outputs``, as `_class_scores` returns them."""
    probabilities = outputs if hasattr(model, "predict_proba") else None
    margin = None
    if len(model.classes_) == 2 and hasattr(model, "decision_function"):
        margin = model.decision_function(X)
    elif len(model.classes_) == 2 and probabilities is not None:
        margin = probabilities[:, np.searchsorted(classes, model.classes_)[1]]
    return _class_metrics(actual, predicted, len(classes), probabilities, margin)


def _class_metrics(
    actual: Rows, predicted: Rows, n_classes: int, probabilities: Floats | None, margin: Floats | None
) -> dict[str, float]:
    """Return the metrics of predictions, both as numbers of sorted classes.

    ``margin`` ranks the rows by the second of two classes, (n_samples,).
    """
    right = predicted == actual
    rows = np.bincount(actual, minlength=n_classes)
    predictions = np.bincount(predicted, minlength=n_classes)
    hits = np.bincount(actual[right], minlength=n_classes)
    used = rows + predictions > 0
    scores = {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float((hits[rows > 0] / rows[rows > 0]).mean()),
        "macro_f1": float((2 * hits[used] / (rows + predictions)[used]).mean()),
    }
    if probabilities is not None:
        scores["log_loss"] = float(log_losses(probabilities, actual).mean())
    if margin is not None and n_classes == 2 and rows.all():
        scores["roc_auc"] = metrics.roc_auc_score(actual, margin)
    return scores


def _confusion(actual: Rows, predicted: Rows, n_classes: int) -> Counts:
    """Return the number of rows of each true class (first axis) and predicted class, int64 (n_classes, n_classes)."""
    counts: Counts = np.bincount(actual * n_classes + predicted, minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes)


def _score_rejection(model: Any, X: npt.NDArray[Any] | MappedRows, right: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Return the share of rejected rows, and the accuracy of the others if there are any."""
    if not hasattr(model, "rejected"):
        return {}
    rejected = model.rejected(X)
    kept = {} if rejected.all() else {"accuracy_of_the_rest": float(right[~rejected].mean())}
    return {"rejected": float(rejected.mean()), **kept}


def _score_intervals(model: Any, X: npt.NDArray[Any] | MappedRows, y: npt.NDArray[Any]) -> dict[str, float]:
    """Return the share of rows inside their interval, and the mean width of the intervals."""
    if not hasattr(model, "predict_interval"):
        return {}
    low, high = model.predict_interval(X).T
    return {"coverage": float(((low <= y) & (y <= high)).mean()), "interval_width": float((high - low).mean())}


def _score_numbers(predicted: npt.NDArray[Any], y: npt.NDArray[Any]) -> dict[str, float]:
    scores = {"mae": metrics.mean_absolute_error(y, predicted)}
    # R2 is not defined for a single row, nor for equal numbers, for which scikit-learn gives 1 or 0.
    return {"r2": metrics.r2_score(y, predicted), **scores} if len(y) > 1 and np.ptp(y) > 0 else scores


def _score_labels(model: Any, X: npt.NDArray[Any] | MappedRows, predicted: Bools, y: Bools) -> dict[str, float]:
    """Return the metrics of a fitted `MultiLabelClassifier` on rows with the labels ``y``, bool (n, n_labels)."""
    scores = model.predict_proba(X) if hasattr(model, "predict_proba") else model.decision_function(X)
    return _score_label_sets(predicted, np.asarray(scores, np.float64), y)


def _score_label_baseline(y_train: Bools, y: Bools) -> dict[str, float]:
    """Return the metrics of always predicting the labels that most training rows have, with their shares as scores."""
    shares = y_train.mean(axis=0)
    return _score_label_sets(np.tile(shares > 0.5, (len(y), 1)), np.tile(shares, (len(y), 1)), y)


def _score_label_sets(predicted: Bools, scores: npt.NDArray[np.float64], y: Bools) -> dict[str, float]:
    """Return micro and macro F1, mean average precision, and the share of rows with all labels right.

    Labels that no row has are left out of the means, as recall is not defined for them.
    """
    present = y.any(axis=0)
    scored = {"micro_f1": float(metrics.f1_score(y, predicted, average="micro", zero_division=0))}
    if present.any():
        each = metrics.f1_score(y[:, present], predicted[:, present], average="macro", zero_division=0)
        precisions = [metrics.average_precision_score(y[:, k], scores[:, k]) for k in np.flatnonzero(present)]
        scored |= {"macro_f1": float(each), "mean_average_precision": float(np.mean(precisions))}
    return {**scored, "subset_accuracy": float((predicted == y).all(axis=1).mean())}
