"""Vectors of several backbones compared on the same rows and folds, by a linear probe and nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, r2_score

from embedpipe._utils.blas_threads import SMALL, one_blas_thread
from embedpipe._utils.progress import Advance, Progress
from embedpipe.errors import BackboneError, TrainingDataError
from embedpipe.evaluation.differences import TestAgainstBest, count_repeats, differences_of, test_train_ratio
from embedpipe.evaluation.ranking.backbones import Candidate
from embedpipe.evaluation.ranking.result import RankedBackbone, Ranking
from embedpipe.evaluation.ranking.sampling import Drawn
from embedpipe.evaluation.ranking.transferability import h_score, log_me
from embedpipe.heads.options import Task
from embedpipe.heads.registry import make_estimator
from embedpipe.neighbours import normalised
from embedpipe.splits.inner import take_rows
from embedpipe.splits.make import Splits, make_splits
from embedpipe.statistics import Estimate, corrected_interval, corrected_t

FOLDS = 5
REPEATS = 5
#: Half the width of the region of practical equivalence: one point of accuracy, or of R2.
MARGIN = 0.01
#: A backbone that has vectors of fewer items than this share of what another has is not compared.
FEWEST_EMBEDDED = 0.9


TEST = "corrected resampled t-test (Nadeau and Bengio, 2003), Holm's correction"


def compare(
    label: str, ids: list[str], drawn: Drawn, candidates: Sequence[Candidate], seed: int, progress: Progress
) -> Ranking:
    """Compare candidates on the rows that all of them have.

    Parameters
    ----------
    label : str
    ids : list of str
        Of the rows drawn.
    drawn : Drawn
    candidates : sequence of Candidate
    seed : int
        Of the folds.

    Raises
    ------
    BackboneError
        If there is no candidate to compare.
    TrainingDataError
        If there are too few rows.
    """
    able = _able(candidates)
    present = set[str](ids).intersection(*(one.ids for one in able))
    kept = np.array([id in present for id in ids])
    left_out = dict(drawn.left_out)
    if lost := int((~kept).sum()):
        left_out["without a vector by every backbone"] = lost
    y, names = drawn.y[kept], [id for id in ids if id in present]
    if len(np.unique(y)) < 2 or len(y) < 2 * FOLDS:
        raise TrainingDataError(
            f"only {len(y)} items have a {label} and a vector by every backbone: too few to compare"
        )
    vectors = [_aligned(one, names) for one in able]
    pretrained = [X for X, one in zip(vectors, able, strict=True) if one.pretrained] or vectors
    splits = _splits(names, y, drawn.task, pretrained, seed)
    rows = []
    small = max(X.nbytes for X in vectors) < SMALL
    with one_blas_thread(small), progress.step("probing", len(able) * len(splits.resamples), "fits") as advance:
        for one, X in zip(able, vectors, strict=True):
            rows.append(_measured(one, X, y, drawn.task, splits, advance))
    rows.sort(key=lambda row: -row.probe.value if row.probe else np.inf)
    _set_differences(rows, splits)
    left_out |= {why: len(gone) for why, gone in splits.left_out.items()}
    used = y[np.union1d(splits.resamples[0].train, splits.resamples[0].test)]
    counts = np.unique(used, return_counts=True)[1]
    metric = "accuracy" if drawn.task == "classification" else "r2"
    return Ranking(
        label=label,
        task=drawn.task,
        metric=metric,
        protocol=splits.description,
        splits_id=splits.identity,
        sample=len(used),
        classes=len(counts) if drawn.task == "classification" else 0,
        baseline=float(counts.max() / len(used)) if drawn.task == "classification" else 0.0,
        margin=MARGIN,
        left_out=left_out,
        notes=[*drawn.notes, *splits.notes],
        rows=rows + [RankedBackbone(one.name, one.layer, failed=one.failed) for one in candidates if one.failed],
    )


def _able(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates that have vectors of nearly as many rows as any other; the rest become failed ones."""
    most = max((len(one.ids) for one in candidates), default=0)
    for one in candidates:
        if not one.failed and (not one.ids or len(one.ids) < FEWEST_EMBEDDED * most):
            one.failed = f"only {len(one.ids)} of the sample's items have a vector, and {most} by another backbone"
    able = [one for one in candidates if not one.failed]
    if not able:
        reasons = "\n".join(f"  {one.name}: {one.failed}" for one in candidates)
        raise BackboneError(f"no backbone could be used:\n{reasons}")
    return able


def _splits(
    ids: list[str], y: npt.NDArray[Any], task: Task, vectors: list[npt.NDArray[np.float32]], seed: int
) -> Splits:
    """Draw folds, with near-duplicates in one: by all vectors together, as a copy is near whatever the network."""
    arguments: dict[str, Any] = {"task": task, "folds": FOLDS, "repeats": REPEATS, "seed": seed}
    try:
        return make_splits(ids, y, vectors=np.hstack([normalised(X) for X in vectors]), **arguments)
    except TrainingDataError as error:
        # These vectors take nearly all items of a class for one: they are poor, which the probe will show.
        splits = make_splits(ids, y, **arguments)
        splits.notes.append(f"near-duplicates are not kept in one fold: {error}")
        return splits


def _aligned(candidate: Candidate, ids: Sequence[str]) -> npt.NDArray[np.float32]:
    place = {id: row for row, id in enumerate(candidate.ids)}
    X: npt.NDArray[np.float32] = candidate.X[[place[id] for id in ids]]
    return X


def _measured(
    candidate: Candidate,
    X: npt.NDArray[np.float32],
    y: npt.NDArray[Any],
    task: Task,
    splits: Splits,
    advance: Advance,
) -> RankedBackbone:
    values: dict[str, list[float]] = {"probe": [], "knn": []}
    probe = "logreg" if task == "classification" else "ridge"
    for resample in splits.resamples:
        train, test = resample.train, resample.test
        for name, head in (("probe", probe), ("knn", "knn")):
            estimator = make_estimator(head, task, len(train))[1]
            if name == "probe" and resample.tune is not None:
                estimator.set_params(cv=resample.tune)
            predicted = estimator.fit(take_rows(X, train), y[train]).predict(take_rows(X, test))
            score = accuracy_score if task == "classification" else r2_score
            values[name].append(float(score(y[test], predicted)))
        advance()
    used = np.union1d(splits.resamples[0].train, splits.resamples[0].test)
    return RankedBackbone(
        name=candidate.name,
        layer=candidate.layer,
        probe=_estimate(values["probe"], splits),
        values=values["probe"],
        knn=_estimate(values["knn"], splits),
        h_score=h_score(X[used], y[used]) if task == "classification" else None,
        log_me=log_me(X[used], y[used], task),
        prior=candidate.prior,
        dim=X.shape[1],
        cost=candidate.cost,
    )


def _estimate(values: list[float], splits: Splits) -> Estimate:
    mean, low, high = corrected_interval(values, test_train_ratio(splits), repeats=count_repeats(splits))
    return Estimate(mean, low, min(high, 1.0))


def _set_differences(rows: list[RankedBackbone], splits: Splits) -> None:
    """Hold every backbone against the first."""
    ratio, repeats = test_train_ratio(splits), count_repeats(splits)
    tests = [corrected_t(np.subtract(row.values, rows[0].values), ratio, MARGIN, repeats=repeats) for row in rows[1:]]
    found = [
        TestAgainstBest(Estimate(test.mean, test.low, test.high), test.p, (test.worse, test.equal, test.better), TEST)
        for test in tests
    ]
    for row, difference in zip(rows[1:], differences_of(found, higher_is_better=True), strict=True):
        row.difference = difference
