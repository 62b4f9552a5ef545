"""`evaluate`: heads, layers and backbones compared on the same rows and splits."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe._utils.option_names import option
from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import ReloadOptions
from embedpipe.backbones.spec import random_notes
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.evaluation.comparison.cached_results import ResampleResult
from embedpipe.evaluation.comparison.candidate_result import CandidateResult
from embedpipe.evaluation.comparison.candidates import HeadCandidate, check_metric, make_candidates
from embedpipe.evaluation.comparison.class_details import (
    add_class_details,
    first_repeat,
    largest_errors,
)
from embedpipe.evaluation.comparison.class_names import text_head_maker
from embedpipe.evaluation.comparison.measuring import measure_candidates, require_room
from embedpipe.evaluation.comparison.options import EvaluateOptions
from embedpipe.evaluation.comparison.result import Evaluation
from embedpipe.evaluation.comparison.rows import EvaluationRows, open_stores, read_rows
from embedpipe.evaluation.differences import count_repeats, differences, estimates
from embedpipe.evaluation.metrics import METRICS, PredictedRows
from embedpipe.evaluation.protocols.measure import ProtocolEvaluation, measure_protocol
from embedpipe.heads.zero_shot.text_heads import is_text_head, refuse_names
from embedpipe.splits.splits import Splits

if TYPE_CHECKING:
    from embedpipe._utils.parameters import EvaluateParameters


@overload
def evaluate(
    stores: Any,
    *,
    heads: Sequence[Any] = (),
    splits: str | Path | Splits | None = None,
    protocol: None = None,
    progress: bool | None = None,
    **options: Unpack[EvaluateParameters],
) -> Evaluation: ...


@overload
def evaluate(
    stores: Any,
    *,
    splits: str | Path | Splits | None = None,
    protocol: str,
    progress: bool | None = None,
    **options: Unpack[EvaluateParameters],
) -> ProtocolEvaluation: ...


@takes_options(EvaluateOptions, ReloadOptions)
def evaluate(
    stores: Any,
    *,
    heads: Sequence[Any] = (),
    splits: str | Path | Splits | None = None,
    protocol: str | None = None,
    progress: bool | None = None,
    **options: Unpack[EvaluateParameters],
) -> Evaluation | ProtocolEvaluation:
    """Compare heads on the layers of one or more stores, all on the same rows and splits.

    A store with a test split is measured there, any other store by repeated cross-validation. Near-duplicates and
    groups are never split between training and test rows.

    Parameters
    ----------
    stores : FeatureStore, path, or sequence of them
        Stores of the same items, for example of different backbones. Only items in all stores, with the same content,
        are compared; labels, groups and splits are those of the first store.
    heads : sequence of str or scikit-learn estimators, optional
        Heads as in `embedpipe.fit`, one or several; ``"auto"`` chooses a layer and a head by cross-validation.
        The default is ``logreg``, ``lda``, ``ridge`` and ``knn``, or for regression ``ridge`` and ``knn``.
        ``zero-shot`` and ``text-prior`` start from the names of the classes.
    splits : path or Splits, optional
        Splits to use: a `Splits`, or a ``.parquet`` file of them. A file that does not exist is written.
    protocol : str, optional
        Measure every layer by a published protocol instead: ``clip-lp``, ``dino-knn``, ``mteb-cls``, ``few-shot`` or
        ``retrieval``, which searches training rows for test rows and compares the layers.
        A protocol has its own heads and metrics: ``heads``, ``metric``, ``margin`` and ``repeats`` must be left out.
        Its metrics are comparable with a paper only on the paper's test split; a store without a test split is
        divided into folds, each of which is measured once.
    progress : bool, optional
        Show progress on standard error; by default only in a terminal.

    Returns
    -------
    Evaluation or ProtocolEvaluation
        A `ProtocolEvaluation` if ``protocol`` is given.

    Raises
    ------
    UsageError
        If an argument is wrong, the stores have no items in common, or most items of the same id differ in content.
    TrainingDataError
        If the labels or vectors cannot be learned.

    Notes
    -----
    Results are cached: a candidate is not measured again on the same vectors and labels of a store.

    Examples
    --------
    >>> result = embedpipe.evaluate("photos.features", heads=["lda", "knn"], repeats=1)
    >>> result.to_frame()[["candidate", "accuracy", "difference", "verdict"]]
      candidate  accuracy  difference    verdict
    0       lda       1.0         0.0       best
    1       knn       1.0         0.0  undecided
    """
    chosen, reload_options = build_options((EvaluateOptions, ReloadOptions), options)
    show = Progress(progress)
    if protocol is not None:
        _refuse_beside_protocol(protocol, heads, chosen)
        return measure_protocol(stores, protocol, chosen, splits=splits, progress=show)
    start = time.perf_counter()
    with show.step("reading rows and splitting them"):
        rows = read_rows(open_stores(stores), chosen, splits)
    metric = chosen.metric or next(iter(METRICS[rows.task]))
    resamples = rows.splits.resamples
    used = np.unique(np.concatenate([part for each in resamples for part in (each.train, each.test)]))
    if rows.task == "classification":
        classes = np.unique(rows.y[used])
        y = np.searchsorted(classes, rows.y)  # meaningless for rows that are in no resample, and not used there
    else:
        classes, y = np.zeros(0), np.asarray(rows.y, np.float64)
    of_names = text_head_maker(classes, chosen.classes, chosen.templates, reload_options, show)
    candidates = make_candidates(rows, heads, of_names)
    if not any(is_text_head(candidate.head) for candidate in candidates):
        refuse_names(chosen.classes, chosen.templates)
    check_metric(metric, rows.task, len(classes), candidates)
    require_room(len(candidates), rows.splits, len(classes), chosen.memory)
    results, distances, failed = measure_candidates(candidates, rows, y, len(classes), chosen.memory, show)
    candidates = [candidate for candidate in candidates if candidate.name not in failed]
    if not candidates:
        raise TrainingDataError(next(f"{name} cannot be fitted on these rows: {why}" for name, why in failed.items()))
    summaries = []
    with show.step("measuring", unit="candidates") as advance:
        for candidate, candidate_results in zip(candidates, results, strict=True):
            near = distances[id(candidate.layer)]
            summaries.append(_summary(candidate, rows, y, classes, candidate_results, near))
            advance()
    order = _order(summaries, metric, METRICS[rows.task][metric])
    summaries, results = [summaries[i] for i in order], [results[i] for i in order]
    with show.step("comparing candidates"):
        predictions = [_predictions(rows, y, len(classes), each) for each in results]
        values = [summary.metrics[metric] for summary in summaries]
        paired = differences(metric, METRICS[rows.task][metric], chosen.margin, rows.splits, values, predictions)
    for summary, difference in zip(summaries[1:], paired, strict=True):
        summary.difference = difference
    n_repeats = count_repeats(rows.splits)
    result = Evaluation(
        label=chosen.label,
        task=rows.task,
        metric=metric,
        higher_is_better=METRICS[rows.task][metric],
        resampling=rows.splits.description,
        n_repeats=n_repeats,
        n_folds=len(resamples) // n_repeats,
        splits_id=rows.splits.identity,
        rows=len(used),
        classes=[str(name) for name in classes.tolist()],
        baseline=_baseline(rows, y, len(classes)),
        margin=chosen.margin,
        left_out=rows.left_out,
        notes=[
            *random_notes(layer.store.spec for layer in rows.layers),
            *rows.splits.notes,
            *(f"{name} could not be measured: {why}" for name, why in failed.items()),
            *_notes_on_distances(distances, rows),
        ],
        candidates=summaries,
        predictions=_table([summary.name for summary in summaries], rows, results, classes),
        test_rows=len(np.unique(np.concatenate([resample.test for resample in resamples]))),
        failed=failed,
        seconds=time.perf_counter() - start,
    )
    means = {candidate.name: candidate.estimates[metric].value for candidate in result.candidates}
    show.event("summary", label=result.label, rows=result.rows, metric=metric, candidates=means, notes=result.notes)
    return result


def _refuse_beside_protocol(protocol: str, heads: Sequence[Any], chosen: EvaluateOptions) -> None:
    """Raise UsageError if heads or options are given that a protocol decides itself."""
    if heads if isinstance(heads, list | tuple) else [heads]:
        raise UsageError(
            f"{option('heads')} must be left out with {option('protocol', protocol)}, which has its own heads"
        )
    usual = EvaluateOptions()
    for name in ("features", "classes", "templates", "metric", "margin", "repeats"):
        if (value := getattr(chosen, name)) != getattr(usual, name):
            raise UsageError(
                f"{option(name, value)} must be left out with {option('protocol', protocol)}, which has its own rules"
            )


def _order(summaries: Sequence[CandidateResult], metric: str, higher_is_better: bool) -> list[int]:
    """Return the positions of the candidates, the best first. Raises UsageError if a metric has no mean."""
    if lacking := [summary.name for summary in summaries if metric not in summary.metrics]:
        raise UsageError(
            f"metric {metric!r} must be defined on every resample, and is not for {', '.join(lacking)}: choose another"
        )
    sign = -1 if higher_is_better else 1
    return sorted(range(len(summaries)), key=lambda i: sign * float(np.mean(summaries[i].metrics[metric])))


def _notes_on_distances(distances: dict[int, list[npt.NDArray[np.float64]]], rows: EvaluationRows) -> list[str]:
    if rows.task != "classification" or all(distances.values()):
        return []
    return ["rejection by distance is left out: vectors that stay on disk are not compared with all training rows"]


def _predictions(
    rows: EvaluationRows, y: npt.NDArray[Any], n_classes: int, results: Sequence[ResampleResult]
) -> list[PredictedRows]:
    return [
        PredictedRows(y[resample.test], result.predicted, result.probabilities, result.scores, n_classes)
        for result, resample in zip(results, rows.splits.resamples, strict=True)
    ]


def _summary(
    candidate: HeadCandidate,
    rows: EvaluationRows,
    y: npt.NDArray[Any],
    classes: npt.NDArray[Any],
    results: Sequence[ResampleResult],
    distances: Sequence[npt.NDArray[np.float64]],
) -> CandidateResult:
    store = candidate.layer.store
    values: dict[str, list[float]] = {}
    predictions = _predictions(rows, y, len(classes), results)
    for each in predictions:
        for name, value in each.metrics().items():
            if np.isfinite(value):
                values.setdefault(name, []).append(value)
    # A metric that is undefined on some resample has no mean.
    values = {name: per_resample for name, per_resample in values.items() if len(per_resample) == len(results)}
    chosen: dict[str, list[Any]] = {}
    for result in results:
        for name, value in result.chosen.items():
            chosen.setdefault(name, []).append(value)
    summary = CandidateResult(
        name=candidate.name,
        store=store.path,
        backbone=store.spec.title,
        layers=candidate.layer.names,
        head=candidate.head,
        dim=candidate.layer.dim,
        metrics=values,
        estimates=estimates(values, rows.splits, predictions),
        chosen=chosen,
        fit_seconds=statistics.median(result.fit_seconds for result in results),
        predict_seconds=statistics.median(result.predict_seconds for result in results),
        size_bytes=int(statistics.median(result.size_bytes for result in results)),
    )
    if len(classes):
        add_class_details(summary, rows, y, classes, [results[i] for i in first_repeat(rows)], distances)
    else:
        summary.wrong = largest_errors(rows, y, [results[i] for i in first_repeat(rows)])
    return summary


def _baseline(rows: EvaluationRows, y: npt.NDArray[Any], n_classes: int) -> dict[str, float]:
    """Return the mean metrics of predicting the class shares of the training rows, or their mean."""
    values: dict[str, list[float]] = {}
    for resample in rows.splits.resamples:
        train, test = y[resample.train], y[resample.test]
        if n_classes:
            shares = np.tile(np.bincount(train, minlength=n_classes) / len(train), (len(test), 1))
            constant = PredictedRows(test, shares.argmax(axis=1), shares, n_classes=n_classes)
        else:
            constant = PredictedRows(test, np.full(len(test), train.mean()))
        for name, value in constant.metrics().items():
            values.setdefault(name, []).append(value)
    return {name: float(np.mean(per_resample)) for name, per_resample in values.items()}


def _table(
    names: Sequence[str],
    rows: EvaluationRows,
    results: Sequence[Sequence[ResampleResult]],
    classes: npt.NDArray[Any],
) -> pa.Table:
    """Return a table of all predictions of all candidates, one row for each."""
    parts = []
    for name, candidate_results in zip(names, results, strict=True):
        for number, (result, resample) in enumerate(zip(candidate_results, rows.splits.resamples, strict=True)):
            count = len(resample.test)
            columns = {
                "candidate": pa.array([name] * count),
                "resample": pa.array(np.full(count, number, np.int32)),
                "id": rows.ids.take(pa.array(resample.test)),
                "actual": pa.array(rows.y[resample.test]),
                "predicted": pa.array(classes[result.predicted] if len(classes) else result.predicted),
            }
            if len(classes):
                type_ = pa.list_(pa.float32())
                columns["probabilities"] = (
                    pa.nulls(count, type_)
                    if result.probabilities is None
                    else pa.ListArray.from_arrays(
                        np.arange(count + 1, dtype=np.int32) * len(classes),
                        result.probabilities.astype(np.float32).reshape(-1),
                    )
                )
            parts.append(pa.table(columns))
    return pa.concat_tables(parts, promote_options="default")
