"""What can be had without training the network: heads, layers, layers joined, and other backbones' stores."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.estimators.linear.logistic_regression import TunedLogisticRegression
from embedpipe.estimators.wrappers.base import fit_on
from embedpipe.evaluation import Evaluation, evaluate
from embedpipe.evaluation.comparison.candidate_result import CandidateResult
from embedpipe.evaluation.differences import differences, estimates
from embedpipe.evaluation.metrics import Predictions
from embedpipe.finetuning.advice.result import FrozenBaseline, FrozenBaselines
from embedpipe.finetuning.benchmark.label_sampling import draw_labels
from embedpipe.finetuning.split_rows import SplitRows, network_layer
from embedpipe.heads.registry import make_estimator
from embedpipe.heads.training_data import read_finite
from embedpipe.splits.make import make_splits
from embedpipe.splits.splits import Splits
from embedpipe.statistics import Estimate
from embedpipe.store import FeatureStore

PLAIN = "logreg"
UNIT = "logreg of unit vectors"
#: From a number of labels and a seed to which test rows are right.
Hits = Callable[[int, int], npt.NDArray[np.bool_]]
#: Folds, and how often they are drawn anew.
FOLDS, REPEATS = 5, 2


def measure_frozen_baselines(
    stores: Sequence[FeatureStore], split: SplitRows, label: str, margin: float, progress: bool | None
) -> FrozenBaselines:
    """Compare heads on all layers of all stores by cross-validation on training and validation rows.

    Every head chooses its own penalty inside the rows that it is fitted on. Test rows and their labels take no part.

    Parameters
    ----------
    stores : sequence of FeatureStore
        Of the same items; the split is that of the first.
    split : SplitRows
    label : str
    margin : float
        Differences of the accuracy up to this make no difference in practice, a share.
    progress : bool, optional

    Raises
    ------
    UsageError, TrainingDataError
        As `embedpipe.evaluate` does.
    """
    rows, missing = _shared_rows(stores, split)
    ids = split.ids.take(pa.array(rows)).to_pylist()
    groups = None if split.splits.groups is None else split.splits.groups[rows]
    labels = split.classes[split.y[rows]]
    splits = make_splits(ids, labels, task="classification", groups=groups, folds=FOLDS, repeats=REPEATS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "splits.parquet"
        splits.save(path)
        found = evaluate(
            list(stores),
            heads=list(_heads().values()),
            label=label,
            task="classification",
            metric="accuracy",
            layer=tuple(dict.fromkeys(name for store in stores for name in _layers(store))),
            splits=str(path),
            progress=progress,
        )
    failed = [f"{_named(name)} could not be measured: {why}" for name, why in found.failed.items()]
    return _compared(found, splits, stores[0], margin, [*missing, *splits.notes, *failed])


def best_hits(cheap: FrozenBaselines, stores: Sequence[FeatureStore], split: SplitRows) -> Hits | None:
    """Return what fits the best option on draws of labels, and says which test rows it has right.

    None where it is the plain probe, or its store lacks some of the rows.
    """
    best = cheap.best
    store = next(store for store in stores if store.path == best.store)
    there = pc.is_in(split.ids, value_set=store.to_arrow(["id"])["id"].combine_chunks())
    if best is cheap.plain or not pc.all(there).as_py():
        return None
    X = read_finite(store, store.select_layers("+".join(best.layers)), split.ids)
    pool = np.sort(np.concatenate([split.train, split.validation]))

    def hits(labels: int, seed: int) -> npt.NDArray[np.bool_]:
        rows = draw_labels(split.y, split.splits.groups, pool, labels, seed).rows
        _, estimator = make_estimator(_heads()[best.head], "classification", len(rows))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
            try:
                fitted = fit_on(estimator, X[rows], split.y[rows])
            except ValueError as error:
                raise TrainingDataError(f"{best.name} cannot be fitted on {labels} labels: {error}") from error
        return np.asarray(fitted.predict(X[split.test]) == split.y[split.test])

    return hits


def _heads() -> dict[str, Any]:
    """Return the heads by name: all choose by themselves inside the rows that they are fitted on."""
    return {PLAIN: PLAIN, UNIT: make_pipeline(Normalizer(), TunedLogisticRegression()), "lda": "lda", "knn": "knn"}


def _shared_rows(stores: Sequence[FeatureStore], split: SplitRows) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return the training and validation rows that all stores have, and what to say of the others."""
    rows, notes = np.sort(np.concatenate([split.train, split.validation])), []
    for store in stores[1:]:
        there = pc.is_in(split.ids.take(pa.array(rows)), value_set=store.to_arrow(["id"])["id"].combine_chunks())
        kept = there.to_numpy(zero_copy_only=False)
        if not kept.any():
            raise UsageError(f"{store.path!r} has none of the ids of {stores[0].path!r}: give stores of the same items")
        if not kept.all():
            notes.append(f"{int((~kept).sum()):,} rows are not in {store.path}: no option is measured on them")
        rows = rows[kept]
    return rows, notes


def _layers(store: FeatureStore) -> list[str]:
    """Return the store's layers, and all of them joined."""
    return [*store.layers, "+".join(store.layers)] if len(store.layers) > 1 else list(store.layers)


def _named(name: str) -> str:
    return name.replace("Pipeline", UNIT, 1)


def _compared(
    found: Evaluation, splits: Splits, first: FeatureStore, margin: float, notes: list[str]
) -> FrozenBaselines:
    """Hold all options against the plain probe."""
    hits = _hits(found, splits)
    order = sorted(range(len(hits)), key=lambda at: not _is_plain(found.candidates[at], first))
    candidates, hits = [found.candidates[at] for at in order], [hits[at] for at in order]
    if not _is_plain(candidates[0], first):
        raise UsageError(f"{PLAIN} on {network_layer(first).name} could not be measured: {'; '.join(notes)}")
    shares = np.array([[each.mean() for each in own] for own in hits])  # (options, resamples)
    answers = [[_answers(each) for each in own] for own in hits]
    verdict = [None, *differences("accuracy", True, margin, splits, shares.tolist(), answers)]
    options = [
        FrozenBaseline(
            name=_named(one.name),
            store=one.store,
            backbone=one.backbone,
            layers=list(one.layers),
            head=_named(one.head),
            accuracy=one.estimates["accuracy"],
            difference=difference.estimate if difference else None,
            adjusted=difference.adjusted if difference else None,
            verdict=difference.verdict if difference else "reference",
        )
        for one, difference in zip(candidates, verdict, strict=True)
    ]
    ranked = sorted(options, key=lambda option: -option.accuracy.value)  # of equals the plain one is the first
    chosen = _chosen(hits, shares, splits)
    # Groups are those of the split: near-duplicates, and what the user says belongs together.
    protocol = splits.description.replace("groups together", "near-duplicates and groups together")
    return FrozenBaselines(ranked, options[0], chosen, found.rows, protocol, notes)


def _is_plain(one: CandidateResult, first: FeatureStore) -> bool:
    return (one.store, one.layers, one.head) == (first.path, (network_layer(first).name,), PLAIN)


def _hits(found: Evaluation, splits: Splits) -> list[list[npt.NDArray[np.bool_]]]:
    """Return which rows each candidate has right on each resample: the table's order is theirs."""
    table = found.predictions
    right = pc.equal(table["actual"], table["predicted"]).to_numpy()
    lengths = [len(one.test) for one in splits.resamples]
    own = np.split(right, len(found.candidates))
    return [np.split(each, np.cumsum(lengths)[:-1]) for each in own]


def _answers(hits: npt.NDArray[np.bool_]) -> Predictions:
    return Predictions(np.ones(len(hits), np.int64), hits.astype(np.int64))


def _chosen(
    hits: Sequence[Sequence[npt.NDArray[np.bool_]]], shares: npt.NDArray[np.float64], splits: Splits
) -> Estimate:
    """Return the accuracy on each fold of what is the best on the other folds of its repeat."""
    seeds = np.array([one.seed for one in splits.resamples])
    picked = []
    for number, seed in enumerate(seeds):
        others = seeds == seed
        others[number] = False
        picked.append(hits[int(shares[:, others].mean(axis=1).argmax())][number])
    values = {"accuracy": [float(each.mean()) for each in picked]}
    return estimates(values, splits, [_answers(each) for each in picked])["accuracy"]
