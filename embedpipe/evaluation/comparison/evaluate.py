"""`evaluate`: heads, layers and backbones compared on the same rows and splits."""

from __future__ import annotations

import hashlib
import statistics
import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.errors import EmbedpipeError, TrainingDataError, UsageError
from embedpipe.evaluation.comparison.candidates import Competitor, check_metric, make_competitors
from embedpipe.evaluation.comparison.class_details import add_class_details, distances_to_training_rows, first_repeat
from embedpipe.evaluation.comparison.measuring import Measured, measure_all
from embedpipe.evaluation.comparison.options import EvaluateOptions
from embedpipe.evaluation.comparison.result import CandidateResult, Evaluation
from embedpipe.evaluation.comparison.rows import EvaluationRows, open_stores, read_rows
from embedpipe.evaluation.differences import differences, estimates
from embedpipe.evaluation.metrics import FIGURES, Answers
from embedpipe.heads.training_data import read_finite

if TYPE_CHECKING:
    from embedpipe._utils.parameters import EvaluateParameters


@takes_options(EvaluateOptions)
def evaluate(
    stores: Any, *, heads: Sequence[Any] = (), progress: bool | None = None, **options: Unpack[EvaluateParameters]
) -> Evaluation:
    """Compare heads on the layers of one or more stores, all on the same rows and splits.

    Parameters
    ----------
    stores : FeatureStore or path, or a sequence of them
        Of the same items, such as embedded by different backbones. The rows that all have are compared; labels, groups
        and splits are the first one's.
    heads : sequence of str or scikit-learn estimators, optional
        As `embedpipe.fit` takes them, one or several, and ``auto``, which picks a layer and a head by itself. By
        default ``logreg``, ``lda``, ``ridge`` and ``knn``, or for numbers ``ridge`` and ``knn``.
    progress : bool, optional
        Show progress on standard error; by default only on a terminal.
    **options
        Fields of `EvaluateOptions`.

    Returns
    -------
    Evaluation

    Raises
    ------
    UsageError
        If an argument is wrong, or the stores have no items in common.
    TrainingDataError
        If the labels or vectors cannot be learned from.

    Notes
    -----
    What was measured before, on the same rows of the same version of a store, is taken from the cache folder.

    Examples
    --------
    >>> found = embedpipe.evaluate("photos.features", heads=["logreg", "knn"])  # doctest: +SKIP
    >>> found.to_frame()[["candidate", "accuracy", "difference", "verdict"]]  # doctest: +SKIP
    """
    (chosen,) = build_options((EvaluateOptions,), options)
    start = time.perf_counter()
    rows = read_rows(open_stores(stores), chosen)
    metric = chosen.metric or next(iter(FIGURES[rows.task]))
    taking_part = np.unique(np.concatenate([part for one in rows.splits.resamples for part in (one.train, one.test)]))
    if rows.task == "classification":
        classes = np.unique(rows.y[taking_part])
        y = np.searchsorted(classes, rows.y)  # of rows that take no part it says nothing, and nobody asks
    else:
        classes, y = np.zeros(0), np.asarray(rows.y, np.float64)
    candidates = make_competitors(rows, heads)
    check_metric(metric, rows.task, len(classes), candidates)
    measured, distances, failed = _measure(candidates, rows, y, len(classes), Progress(progress))
    candidates = [one for one in candidates if one.name not in failed]
    if not candidates:
        raise TrainingDataError(next(f"{name} cannot learn from these rows: {why}" for name, why in failed.items()))
    made = [
        _result(candidate, rows, y, classes, own, distances[id(candidate.layer)])
        for candidate, own in zip(candidates, measured, strict=True)
    ]
    if lacking := [one.name for one in made if metric not in one.metrics]:
        raise UsageError(f"{', '.join(lacking)} has no {metric} on some resample: choose another metric")
    higher = FIGURES[rows.task][metric]
    order = sorted(range(len(made)), key=lambda i: float(np.mean(made[i].metrics[metric])) * (-1 if higher else 1))
    values = [made[i].metrics[metric] for i in order]
    answers = [_answers(rows, y, len(classes), measured[i]) for i in order]
    found = differences(metric, higher, chosen.margin, rows.splits, values, answers)
    for i, difference in zip(order[1:], found, strict=True):
        made[i].difference = difference
    return Evaluation(
        label=chosen.label,
        task=rows.task,
        metric=metric,
        higher_is_better=higher,
        protocol=rows.splits.description,
        splits_id=rows.splits.identity,
        rows=len(taking_part),
        classes=[str(name) for name in classes.tolist()],
        baseline=_baseline(rows, y, len(classes)),
        margin=chosen.margin,
        left_out=rows.left_out,
        notes=[*rows.splits.notes, *(f"{name} could not be measured: {why}" for name, why in failed.items())],
        candidates=[made[i] for i in order],
        predictions=_predictions(rows, [candidates[i].name for i in order], [measured[i] for i in order], classes),
        failed=failed,
        seconds=time.perf_counter() - start,
    )


def _measure(
    candidates: Sequence[Competitor], rows: EvaluationRows, y: npt.NDArray[Any], n_classes: int, show: Progress
) -> tuple[list[list[Measured]], dict[int, list[npt.NDArray[np.float64]]], dict[str, str]]:
    """Measure all candidates, layer by layer, so that one matrix is in memory at a time.

    Returns what each candidate made of each resample, for classes how far the first repeat's test rows lie from the
    training rows in each layer, and by name why some candidates could not be measured.
    """
    measured: dict[int, list[Measured]] = {}
    failed: dict[str, str] = {}
    distances: dict[int, list[npt.NDArray[np.float64]]] = {}
    resamples = rows.splits.resamples
    by_layer: dict[tuple[str, tuple[str, ...]], list[Competitor]] = {}
    for one in candidates:
        by_layer.setdefault((one.layer.store.path, one.layer.names), []).append(one)
    items = hashlib.sha256("\0".join(rows.ids.to_pylist()).encode()).hexdigest()  # which rows the positions are
    with show.step("evaluating", len(candidates) * len(resamples), "fits") as advance:
        for (path, names), group in by_layer.items():
            store = group[0].layer.store
            X = read_finite(store, group[0].layer.specs, rows.ids)
            key = repr((path, store.table_id, store.version, names, items))
            apart = distances_to_training_rows(X, rows) if rows.task == "classification" else []
            for one in group:
                distances[id(one.layer)] = apart
                with warnings.catch_warnings():
                    # Classes with few rows each are told from the figures.
                    warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
                    try:
                        measured[id(one)] = measure_all(one.estimator, X, y, resamples, n_classes, key, advance)
                    except EmbedpipeError:
                        raise
                    except Exception as error:  # of any estimator; the others go on
                        failed[one.name] = f"{type(error).__name__}: {error}"
    return [measured[id(one)] for one in candidates if id(one) in measured], distances, failed


def _answers(rows: EvaluationRows, y: npt.NDArray[Any], n_classes: int, measured: Sequence[Measured]) -> list[Answers]:
    return [
        Answers(y[resample.test], one.predicted, one.probabilities, one.scores, n_classes)
        for one, resample in zip(measured, rows.splits.resamples, strict=True)
    ]


def _result(
    candidate: Competitor,
    rows: EvaluationRows,
    y: npt.NDArray[Any],
    classes: npt.NDArray[Any],
    measured: Sequence[Measured],
    distances: Sequence[npt.NDArray[np.float64]],
) -> CandidateResult:
    store = candidate.layer.store
    values: dict[str, list[float]] = {}
    answers = _answers(rows, y, len(classes), measured)
    for answer in answers:
        for name, value in answer.figures().items():
            if np.isfinite(value):
                values.setdefault(name, []).append(value)
    # What is not defined on every resample cannot be averaged.
    values = {name: each for name, each in values.items() if len(each) == len(measured)}
    chosen: dict[str, list[Any]] = {}
    for one in measured:
        for name, value in one.chosen.items():
            chosen.setdefault(name, []).append(value)
    result = CandidateResult(
        name=candidate.name,
        store=store.path,
        backbone=f"{store.spec.provider}/{store.spec.name}",
        layers=candidate.layer.names,
        head=candidate.head,
        dim=candidate.layer.dim,
        metrics=values,
        estimates=estimates(values, rows.splits, answers),
        chosen=chosen,
        fit_seconds=statistics.median(one.fit_seconds for one in measured),
        predict_seconds=statistics.median(one.predict_seconds for one in measured),
        size_bytes=int(statistics.median(one.size_bytes for one in measured)),
    )
    if len(classes):
        add_class_details(result, rows, y, classes, [measured[i] for i in first_repeat(rows)], distances)
    return result


def _baseline(rows: EvaluationRows, y: npt.NDArray[Any], n_classes: int) -> dict[str, float]:
    """Return the mean figures of the commonest class of the training rows, at its share, or of their mean."""
    found: dict[str, list[float]] = {}
    for one in rows.splits.resamples:
        if n_classes:
            shares = np.bincount(y[one.train], minlength=n_classes) / len(one.train)
            spread = np.tile(shares, (len(one.test), 1))
            said = Answers(y[one.test], spread.argmax(axis=1), spread, n_classes=n_classes)
        else:
            said = Answers(y[one.test], np.full(len(one.test), y[one.train].mean()))
        for name, value in said.figures().items():
            found.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def _predictions(
    rows: EvaluationRows, names: Sequence[str], measured: Sequence[Sequence[Measured]], classes: npt.NDArray[Any]
) -> pa.Table:
    """Lay out every prediction of every candidate, one a row."""
    parts = []
    for name, own in zip(names, measured, strict=True):
        for number, (one, resample) in enumerate(zip(own, rows.splits.resamples, strict=True)):
            count = len(resample.test)
            columns = {
                "candidate": pa.array([name] * count),
                "resample": pa.array(np.full(count, number, np.int32)),
                "id": rows.ids.take(pa.array(resample.test)),
                "actual": pa.array(rows.y[resample.test]),
                "predicted": pa.array(classes[one.predicted] if len(classes) else one.predicted),
            }
            if len(classes):
                kind = pa.list_(pa.float32())
                columns["probabilities"] = (
                    pa.nulls(count, kind)
                    if one.probabilities is None
                    else pa.array(list(one.probabilities.astype(np.float32)), kind)
                )
            parts.append(pa.table(columns))
    return pa.concat_tables(parts, promote_options="default")
