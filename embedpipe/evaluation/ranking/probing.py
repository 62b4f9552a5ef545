"""Comparison of backbones on the same rows and folds, by a linear probe and nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe._utils.blas_threads import SMALL, one_blas_thread
from embedpipe._utils.option_names import fixed_options, option
from embedpipe._utils.progress import Advance, Progress
from embedpipe.errors import BackboneError, TrainingDataError
from embedpipe.evaluation.differences import differences, estimates
from embedpipe.evaluation.metrics import PredictedRows
from embedpipe.evaluation.ranking.backbones import BackboneCandidate
from embedpipe.evaluation.ranking.result import RankedBackbone, Ranking
from embedpipe.evaluation.ranking.sampling import LabelledSample
from embedpipe.evaluation.ranking.transferability import h_score, log_me
from embedpipe.heads.options import Task
from embedpipe.heads.registry import make_estimator
from embedpipe.neighbours import normalised
from embedpipe.splits.inner import take_rows
from embedpipe.splits.make import Splits, make_splits

FOLDS = 5
REPEATS = 5
#: Half the width of the region of practical equivalence: one point of accuracy, or of R2.
MARGIN = 0.01
#: A backbone with vectors of less than this share of the items that another has is not compared.
MIN_EMBEDDED_SHARE = 0.9
#: Metric by which backbones are compared.
METRIC: dict[Task, str] = {"classification": "accuracy", "regression": "r2"}


def compare(
    label: str,
    ids: list[str],
    drawn: LabelledSample,
    candidates: Sequence[BackboneCandidate],
    seed: int,
    progress: Progress,
) -> Ranking:
    """Compare candidates on the rows of which all of them have vectors.

    Parameters
    ----------
    label : str
    ids : list of str
        Ids of the rows of the sample.
    drawn : LabelledSample
    candidates : sequence of BackboneCandidate
    seed : int
        Seed of the folds.

    Raises
    ------
    BackboneError
        If there is no candidate to compare.
    TrainingDataError
        If there are too few rows.
    """
    usable = _usable(candidates)
    present = set[str](ids).intersection(*(candidate.ids for candidate in usable))
    is_present = np.array([id in present for id in ids])
    left_out = dict(drawn.left_out)
    if lost := int((~is_present).sum()):
        left_out["without a vector of every backbone"] = lost
    y, names = drawn.y[is_present], [id for id in ids if id in present]
    if len(np.unique(y)) < 2 or len(y) < 2 * FOLDS:
        raise TrainingDataError(
            f"at least {2 * FOLDS} items of 2 classes must have a {label} and a vector of every backbone, got {len(y)}"
        )
    vectors = [_aligned(candidate, names) for candidate in usable]
    pretrained = [X for X, candidate in zip(vectors, usable, strict=True) if candidate.pretrained] or vectors
    with progress.step("splitting the sample"):
        splits = _splits(names, y, drawn.task, pretrained, seed)
    measured: list[tuple[RankedBackbone, list[PredictedRows]]] = []
    small = max(X.nbytes for X in vectors) < SMALL
    with one_blas_thread(small), progress.step("comparing", len(usable) * len(splits.resamples), "fits") as advance:
        for candidate, X in zip(usable, vectors, strict=True):
            measured.append(_measure(candidate, X, y, drawn.task, splits, advance))
    measured.sort(key=lambda each: -each[0].linear_probe.value if each[0].linear_probe else np.inf)
    rows, metric = [row for row, _ in measured], METRIC[drawn.task]
    compared = differences(
        metric, True, MARGIN, splits, [row.values for row in rows], [predictions for _, predictions in measured]
    )
    for row, difference in zip(rows[1:], compared, strict=True):
        row.difference = difference
    left_out |= {reason: len(positions) for reason, positions in splits.left_out.items()}
    used = y[np.union1d(splits.resamples[0].train, splits.resamples[0].test)]
    counts = np.unique(used, return_counts=True)[1]
    return Ranking(
        label=label,
        task=drawn.task,
        metric=metric,
        resampling=splits.description,
        splits_id=splits.identity,
        sample=len(used),
        classes=len(counts) if drawn.task == "classification" else 0,
        baseline=float(counts.max() / len(used)) if drawn.task == "classification" else 0.0,
        margin=MARGIN,
        left_out=left_out,
        notes=[*drawn.notes, *splits.notes],
        rows=[
            *rows,
            *(RankedBackbone(each.name, each.layer, failed=each.failed) for each in candidates if each.failed),
        ],
    )


def _usable(candidates: Sequence[BackboneCandidate]) -> list[BackboneCandidate]:
    """Return the candidates with vectors of nearly as many rows as any other; mark the others as failed."""
    most = max((len(each.ids) for each in candidates), default=0)
    for candidate in candidates:
        count = len(candidate.ids)
        if not candidate.failed and (not count or count < MIN_EMBEDDED_SHARE * most):
            candidate.failed = f"only {count} items of the sample have a vector; another backbone has {most}"
    usable = [each for each in candidates if not each.failed]
    if not usable:
        reasons = "\n".join(f"  {each.name}: {each.failed}" for each in candidates)
        raise BackboneError(f"all backbones failed:\n{reasons}")
    return usable


def _splits(
    ids: list[str], y: npt.NDArray[Any], task: Task, vectors: list[npt.NDArray[np.float32]], seed: int
) -> Splits:
    """Make folds that keep near-duplicates together, found by the concatenated vectors of all backbones."""
    arguments: dict[str, Any] = {"task": task, "folds": FOLDS, "repeats": REPEATS, "seed": seed}
    try:
        with fixed_options("folds", "near_duplicates"):
            return make_splits(ids, y, vectors=np.hstack([normalised(X) for X in vectors]), **arguments)
    except TrainingDataError as error:
        # Poor vectors make near-duplicates of nearly all items of a class: the linear probe will show it.
        with fixed_options("folds"):
            splits = make_splits(ids, y, **arguments)
        splits.notes.append(f"near-duplicates are not kept in one fold: {error}")
        return splits


def _aligned(candidate: BackboneCandidate, ids: Sequence[str]) -> npt.NDArray[np.float32]:
    position = {id: row for row, id in enumerate(candidate.ids)}
    X: npt.NDArray[np.float32] = candidate.X[[position[id] for id in ids]]
    return X


def _measure(
    candidate: BackboneCandidate,
    X: npt.NDArray[np.float32],
    y: npt.NDArray[Any],
    task: Task,
    splits: Splits,
    advance: Advance,
) -> tuple[RankedBackbone, list[PredictedRows]]:
    """Return the result of a candidate, and the predictions of its linear probe for each resample."""
    metric, probes, neighbours = METRIC[task], list[PredictedRows](), list[PredictedRows]()
    linear = "logreg" if task == "classification" else "ridge"
    for resample in splits.resamples:
        train, test = resample.train, resample.test
        for predictions, head in ((probes, linear), (neighbours, "knn")):
            estimator = make_estimator(head, task, len(train))[1]
            if predictions is probes and resample.tune is not None:
                estimator.set_params(cv=resample.tune)
            predicted = estimator.fit(take_rows(X, train), y[train]).predict(take_rows(X, test))
            predictions.append(PredictedRows(y[test], predicted))
        advance()
    if not np.isfinite([each.metric(metric)[0] for each in probes]).all():
        raise TrainingDataError(
            f"labels must vary in every fold, for {metric}, and do not: draw a larger {option('sample')}"
        )
    values = [float(each.metric(metric)[0]) for each in probes]
    knn_values = [float(each.metric(metric)[0]) for each in neighbours]
    used = np.union1d(splits.resamples[0].train, splits.resamples[0].test)
    row = RankedBackbone(
        name=candidate.name,
        layer=candidate.layer,
        linear_probe=estimates({metric: values}, splits, probes)[metric],
        values=values,
        knn=estimates({metric: knn_values}, splits, neighbours)[metric],
        h_score=h_score(X[used], y[used]) if task == "classification" else None,
        log_me=log_me(X[used], y[used], task),
        imagenet=candidate.imagenet,
        dim=X.shape[1],
        cost=candidate.cost,
    )
    return row, probes
