"""Heads on stored features: single layers, joined layers, and the stores of other backbones."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer

from embedpipe._utils.messages.counting import counted
from embedpipe._utils.option_names import fixed_options
from embedpipe._utils.progress import Progress
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.estimators.linear.logistic_regression import TunedLogisticRegression
from embedpipe.estimators.wrappers.base import fit_on
from embedpipe.evaluation.comparison.candidates import HeadCandidate, make_candidates
from embedpipe.evaluation.comparison.measuring import measure_candidates
from embedpipe.evaluation.comparison.options import EvaluateOptions
from embedpipe.evaluation.comparison.rows import Layer, read_rows
from embedpipe.evaluation.differences import differences, estimates
from embedpipe.evaluation.metrics import PredictedRows
from embedpipe.evaluation.shared_rows import shared_rows
from embedpipe.finetuning.advice.advice_data import FrozenBaseline, FrozenBaselines
from embedpipe.finetuning.benchmark.label_sampling import draw_labels
from embedpipe.finetuning.split_rows import SplitRows, network_layer
from embedpipe.heads.registry import make_estimator
from embedpipe.heads.training.vectors import read_finite
from embedpipe.splits.make import make_splits
from embedpipe.splits.splits import Splits
from embedpipe.statistics import Estimate
from embedpipe.store import FeatureStore

REFERENCE_HEAD, NORMALISED = "logreg", "normalised logreg"
#: From a number of labels and a seed to the test rows that are classified correctly.
CorrectRows = Callable[[int, int], npt.NDArray[np.bool_]]
FOLDS = 5
#: Fewer rows than these are divided into folds twice: the accuracy of the folds spreads more, and fits take less time.
MANY_ROWS = 2000


class NormalizedLogreg(Pipeline):  # type: ignore[misc]
    """Logistic regression on vectors of length 1, with its penalty chosen by cross-validation."""


def measure_frozen_baselines(
    stores: Sequence[FeatureStore], split: SplitRows, label: str, margin: float, progress: Progress
) -> FrozenBaselines:
    """Compare heads on all layers of all stores by cross-validation on the training and validation rows.

    Each head chooses its penalty inside the rows that it is fitted on. Test rows and their labels are not used.

    Parameters
    ----------
    stores : sequence of FeatureStore
        Stores of the same items; ``split`` is that of the first.
    split : SplitRows
    label : str
    margin : float
        Half the width of the region of practical equivalence of the accuracy, as a fraction.
    progress : Progress

    Raises
    ------
    UsageError, TrainingDataError
        As `embedpipe.evaluate` does.
    """
    rows, notes = _shared_rows(stores, split)
    ids = split.ids.take(pa.array(rows)).to_pylist()
    groups = None if split.splits.groups is None else split.splits.groups[rows]
    y = split.classes[split.y[rows]]
    repeats = 1 if len(rows) >= MANY_ROWS else 2
    with fixed_options("folds"):
        splits = make_splits(ids, y, task="classification", groups=groups, folds=FOLDS, repeats=repeats)
    layers = tuple(dict.fromkeys(name for store in stores for name in _layers(store)))
    read = read_rows(stores, EvaluateOptions(label=label, task="classification", layer=layers), splits)
    candidates = make_candidates(read, list(_heads().values()), _no_names)
    used = np.unique(np.concatenate([resample.test for resample in read.splits.resamples]))
    classes = np.unique(read.y[used])
    numbers = np.searchsorted(classes, read.y)  # meaningless for test rows, which are in no resample
    results, _, failed = measure_candidates(candidates, read, numbers, len(classes), None, progress, details=False)
    notes += [*splits.notes, *(f"{_named(name)} could not be measured: {why}" for name, why in failed.items())]
    resamples = read.splits.resamples
    correct = [
        [result.predicted == numbers[resample.test] for result, resample in zip(each, resamples, strict=True)]
        for each in results
    ]
    measured = [candidate for candidate in candidates if candidate.name not in failed]
    return _compare(measured, correct, read.splits, stores[0], margin, notes)


def refit_best(baselines: FrozenBaselines, stores: Sequence[FeatureStore], split: SplitRows) -> CorrectRows | None:
    """Return a function that fits the best baseline on a draw of labels and returns which test rows are correct.

    None if the best baseline is the reference, or if its store lacks some of the rows.
    """
    best = baselines.best
    store = next(store for store in stores if store.path == best.store)
    if best is baselines.reference or not shared_rows(split.ids, stores[0], [store]).kept.all():
        return None
    X = read_finite(store, store.select_layers("+".join(best.layers)), split.ids)
    pool = np.sort(np.concatenate([split.train, split.validation]))

    def correct_rows(labels: int, seed: int) -> npt.NDArray[np.bool_]:
        rows = draw_labels(split.y, split.splits.groups, pool, labels, seed).rows
        _, estimator = make_estimator(_heads()[best.head], "classification", len(rows))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
            try:
                fitted = fit_on(estimator, X[rows], split.y[rows])
            except ValueError as error:
                raise TrainingDataError(f"{best.name} cannot be fitted on {labels} labels: {error}") from error
        return np.asarray(fitted.predict(X[split.test]) == split.y[split.test])

    return correct_rows


def _heads() -> dict[str, Any]:
    """Return the heads by name. Each chooses its parameters inside the rows that it is fitted on."""
    normalized = NormalizedLogreg([("normalizer", Normalizer()), ("logreg", TunedLogisticRegression())])
    return {REFERENCE_HEAD: REFERENCE_HEAD, NORMALISED: normalized, "lda": "lda", "knn": "knn"}


def _named(text: str) -> str:
    """Return the name of a candidate or head with the head's own name in place of its class's."""
    return text.replace(NormalizedLogreg.__name__, NORMALISED)


def _shared_rows(stores: Sequence[FeatureStore], split: SplitRows) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return the training and validation rows that all stores have, and notes on the others."""
    rows = np.sort(np.concatenate([split.train, split.validation]))
    shared = shared_rows(split.ids.take(pa.array(rows)), stores[0], stores[1:])
    reasons = (
        f"{counted(count, 'row')} {reason}: no baseline is measured on them"
        for reason, count in shared.left_out.items()
    )
    return rows[shared.kept], [*reasons, *shared.notes]


def _layers(store: FeatureStore) -> list[str]:
    """Return the layers of a store, and all of them joined."""
    return [*store.layers, "+".join(store.layers)] if len(store.layers) > 1 else list(store.layers)


def _no_names(head: str, layer: Layer) -> Any:
    """Refuse heads of class names, which are none of the baselines."""
    raise AssertionError(f"{head} on {layer.names}")


def _compare(
    candidates: Sequence[HeadCandidate],
    correct: Sequence[Sequence[npt.NDArray[np.bool_]]],
    splits: Splits,
    first: FeatureStore,
    margin: float,
    notes: list[str],
) -> FrozenBaselines:
    """Compare all baselines with the reference, by which test rows of each resample each has correct."""
    order = sorted(range(len(correct)), key=lambda number: not _is_reference(candidates[number], first))
    candidates, correct = [candidates[number] for number in order], [correct[number] for number in order]
    if not candidates or not _is_reference(candidates[0], first):
        raise UsageError(f"{REFERENCE_HEAD} on {network_layer(first).name} could not be measured: {'; '.join(notes)}")
    accuracies = np.array([[rows.mean() for rows in resamples] for resamples in correct])  # (baselines, resamples)
    predictions = [[_as_predictions(rows) for rows in resamples] for resamples in correct]
    compared = [None, *differences("accuracy", True, margin, splits, accuracies.tolist(), predictions)]
    baselines = [
        FrozenBaseline(
            name=_named(candidate.name),
            store=candidate.layer.store.path,
            backbone=candidate.layer.store.spec.title,
            layers=list(candidate.layer.names),
            head=_named(candidate.head),
            accuracy=_accuracy(rows, splits),
            difference=difference.estimate if difference else None,
            adjusted=difference.adjusted if difference else None,
            verdict=difference.verdict if difference else "reference",
        )
        for candidate, rows, difference in zip(candidates, correct, compared, strict=True)
    ]
    return FrozenBaselines(
        baselines=sorted(baselines, key=lambda baseline: -baseline.accuracy.value),  # the reference first among equals
        reference=baselines[0],
        selected_accuracy=_selected_accuracy(correct, accuracies, splits),
        rows=len(np.unique(np.concatenate([resample.test for resample in splits.resamples]))),
        n_repeats=len({resample.seed for resample in splits.resamples}),
        n_folds=FOLDS,
        grouped=splits.groups is not None,
        notes=notes,
    )


def _is_reference(candidate: HeadCandidate, first: FeatureStore) -> bool:
    layers = (network_layer(first).name,)
    return (candidate.layer.store.path, candidate.layer.names, candidate.head) == (first.path, layers, REFERENCE_HEAD)


def _accuracy(correct: Sequence[npt.NDArray[np.bool_]], splits: Splits) -> Estimate:
    """Return the mean accuracy over the resamples, with its interval."""
    values = {"accuracy": [float(rows.mean()) for rows in correct]}
    return estimates(values, splits, [_as_predictions(rows) for rows in correct])["accuracy"]


def _as_predictions(correct: npt.NDArray[np.bool_]) -> PredictedRows:
    """Return predictions of "is correct", whose accuracy is that of the rows."""
    return PredictedRows(np.ones(len(correct), np.int64), correct.astype(np.int64))


def _selected_accuracy(
    correct: Sequence[Sequence[npt.NDArray[np.bool_]]], accuracies: npt.NDArray[np.float64], splits: Splits
) -> Estimate:
    """Return the accuracy on each fold of the baseline that is best on the other folds of its repeat."""
    seeds = np.array([resample.seed for resample in splits.resamples])
    selected = []
    for number, seed in enumerate(seeds):
        others = seeds == seed
        others[number] = False
        selected.append(correct[int(accuracies[:, others].mean(axis=1).argmax())][number])
    return _accuracy(selected, splits)
