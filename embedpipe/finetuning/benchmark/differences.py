"""Differences between learners at each number of labels, and the savings of one against another, with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from embedpipe.finetuning.benchmark.benchmark_data import BenchmarkData, Cell, Learner, LearnerDifference, Savings
from embedpipe.finetuning.benchmark.paired_runs import PilotRun, summarise_runs
from embedpipe.finetuning.split_rows import VALIDATION_FOLDS
from embedpipe.statistics import Estimate, share_interval, unseen_share
from embedpipe.statistics.shares import LEVEL

#: Pairs of learner and reference that are compared.
PAIRS: tuple[tuple[Learner, Learner], ...] = (
    ("lp-ft", "linear-probe"),
    ("lp-ft", "finetune"),
    ("lp-ft", "scratch"),
    ("finetune", "linear-probe"),
    ("finetune", "scratch"),
    ("linear-probe", "scratch"),
    ("contrastive", "linear-probe"),
    ("contrastive", "lp-ft"),
)


def find_differences(benchmark: BenchmarkData) -> list[LearnerDifference]:
    """Return the differences of all pairs of learners at all numbers of labels."""
    return [
        _difference(benchmark.cells_of(learner, labels), benchmark.cells_of(reference, labels), benchmark.test_rows)
        for learner, reference in _measured_pairs(benchmark)
        for labels in benchmark.label_counts
    ]


def find_savings(benchmark: BenchmarkData) -> list[Savings]:
    """Return the savings of the learner of each pair against its reference."""
    return [_savings(benchmark, learner, reference) for learner, reference in _measured_pairs(benchmark)]


def _measured_pairs(benchmark: BenchmarkData) -> list[tuple[Learner, Learner]]:
    return [pair for pair in PAIRS if {*pair} <= {*benchmark.learners}]


def _difference(cells: Sequence[Cell], reference_cells: Sequence[Cell], rows: int) -> LearnerDifference:
    """Compare the cells of two learners at one number of labels, in the order of the seeds."""
    pairs = list(zip(cells, reference_cells, strict=True))
    first = cells[0]
    runs = [pair_cells(cell, reference, rows) for cell, reference in pairs]
    pilot = summarise_runs(runs, first.labels, rows, max(len(first.shifted_correct), 1))
    trained = all(len(cell.epochs) > 1 for pair in pairs for cell in pair)
    after_one_epoch = [
        (cell.epochs[1].validation_accuracy, other.epochs[1].validation_accuracy) for cell, other in pairs if trained
    ]
    return LearnerDifference(
        learner=first.learner,
        reference=reference_cells[0].learner,
        labels=first.labels,
        accuracy=pilot.gain.interval(),
        initial_accuracy=_initial_difference(pairs),
        after_one_epoch=_validation_difference(after_one_epoch, first.labels) if trained else None,
        slope=_slope_difference(pairs) if trained else None,
        shifted_accuracy=pilot.shift.interval() if pilot.shift else None,
    )


def pair_cells(
    cell: Cell, reference: Cell, rows: int, reference_correct: npt.NDArray[np.bool_] | None = None
) -> PilotRun:
    """Return two cells of one draw as a paired run, ``reference`` in the place of the probe.

    ``reference_correct``, if given, replaces the test rows that ``reference`` classifies correctly.
    """
    correct = cell.correct_rows(rows)
    other_correct = reference.correct_rows(rows) if reference_correct is None else reference_correct
    by_row = np.subtract(cell.shifted_correct, reference.shifted_correct)
    return PilotRun(
        labels=cell.labels,
        seed=cell.seed,
        probe=float(other_correct.mean()),
        finetuned=cell.accuracy,
        seconds=cell.seconds,
        shifted_probe=reference.shifted_accuracy,
        shifted_finetuned=cell.shifted_accuracy,
        paired_counts=(
            int((correct & other_correct).sum()),
            int((other_correct & ~correct).sum()),
            int((correct & ~other_correct).sum()),
            int((~correct & ~other_correct).sum()),
        ),
        shifted_error=float(by_row.std(ddof=1) / np.sqrt(len(by_row))) if len(by_row) > 1 else None,
    )


def _slope_difference(pairs: Sequence[tuple[Cell, Cell]]) -> Estimate:
    """Compare the gains per epoch; seeds that agree say only what so many validation rows may leave unseen."""
    epochs = max(cell.best_epoch for pair in pairs for cell in pair)
    unseen = unseen_share(_validation_rows(pairs[0][0].labels, len(pairs))) / max(epochs, 1)
    return _mean_over_seeds([_slope(cell) - _slope(other) for cell, other in pairs], unseen)


def _validation_rows(labels: int, seeds: int) -> int:
    return max(labels // VALIDATION_FOLDS, 1) * seeds


def _initial_difference(pairs: Sequence[tuple[Cell, Cell]]) -> Estimate:
    """Compare learners before training.

    LP-FT is the linear probe then: for this pair the validation rows add only what they may leave unseen.
    """
    cell, reference = pairs[0]
    accuracies = [(cell.initial_accuracy, reference.initial_accuracy) for cell, reference in pairs]
    if {cell.learner, reference.learner} == {"linear-probe", "lp-ft"}:
        unseen = unseen_share(_validation_rows(cell.labels, len(pairs)))
        return _mean_over_seeds([first - second for first, second in accuracies], unseen)
    return _validation_difference(accuracies, cell.labels)


def _validation_difference(accuracies: Sequence[tuple[float, float]], labels: int) -> Estimate:
    """Return the mean difference of validation accuracies, whose rows each seed draws anew.

    The interval is that of the seeds, but not narrower than Newcombe's for so many validation rows with independent
    errors, as few seeds on few rows may agree by chance.
    """
    by_seeds = _mean_over_seeds([first - second for first, second in accuracies], 0.0)
    runs = [
        PilotRun(labels, seed, probe=second, finetuned=first, seconds=0)
        for seed, (first, second) in enumerate(accuracies)
    ]
    rows = _validation_rows(labels, len(runs))
    gain = summarise_runs(runs, labels, rows, 1).gain
    low, high = min(by_seeds.low, gain.value - gain.below), max(by_seeds.high, gain.value + gain.above)
    return Estimate(by_seeds.value, max(low, -1.0), min(high, 1.0))


def _slope(cell: Cell) -> float:
    """Return the gain of accuracy per epoch up to the best one; 0 if that is the one before training."""
    return (cell.epochs[cell.best_epoch].validation_accuracy - cell.epochs[0].validation_accuracy) / max(
        cell.best_epoch, 1
    )


def _mean_over_seeds(differences: Sequence[float], least: float) -> Estimate:
    """Return the mean of the seeds' differences with Student's t interval, at least ``least`` to each side."""
    values = np.array(differences)
    mean = float(values.mean())
    if len(values) < 2:
        return Estimate(mean, -1.0, 1.0)
    half = max(float(stdtrit(len(values) - 1, (1 + LEVEL) / 2) * values.std(ddof=1) / np.sqrt(len(values))), least)
    return Estimate(mean, max(mean - half, -1.0), min(mean + half, 1.0))


def _savings(benchmark: BenchmarkData, learner: Learner, reference: Learner) -> Savings:
    """Find for each seed where the learner's curve reaches the last accuracy of the reference.

    There are no savings against a reference that is not better than the majority class.
    """
    ends = benchmark.cells_of(reference, benchmark.label_counts[-1])
    accuracy = float(np.mean([end.accuracy for end in ends]))
    rows = benchmark.test_rows
    if share_interval(round(accuracy * rows), rows)[1] <= benchmark.majority_accuracy:
        return Savings(learner, reference, accuracy, None, None)
    labels, seconds = [], []
    for end in ends:
        curve = [
            cell
            for count in benchmark.label_counts
            for cell in benchmark.cells_of(learner, count)
            if cell.seed == end.seed
        ]
        labels.append(_cost_to_reach(curve, end.accuracy, [cell.labels for cell in curve]))
        seconds.append(_cost_to_reach(curve, end.accuracy, [cell.seconds for cell in curve]))
    return Savings(
        learner,
        reference,
        accuracy,
        _relative_cost(labels, [end.labels for end in ends]),
        _relative_cost(seconds, [end.seconds for end in ends]),
    )


def _cost_to_reach(curve: Sequence[Cell], accuracy: float, costs: Sequence[float]) -> tuple[float, float, float] | None:
    """Return the cost of reaching an accuracy, and the costs between which it lies; None if no cell reaches it.

    Between two cells the logarithm of the cost is interpolated linearly. Before the first cell, the cost is above 0.
    """
    first = next((number for number, cell in enumerate(curve) if cell.accuracy >= accuracy), None)
    if first is None:
        return None
    if not first:
        return costs[0], 0.0, costs[0]
    before, after = curve[first - 1].accuracy, curve[first].accuracy
    below, above = max(costs[first - 1], 1e-9), max(costs[first], 1e-9)
    share = (accuracy - before) / (after - before)
    return float(np.exp(np.log(below) + share * np.log(above / below))), min(below, above), max(below, above)


def _relative_cost(
    reached: Sequence[tuple[float, float, float] | None], reference_costs: Sequence[float]
) -> Estimate | None:
    """Return costs as a fraction of the reference's, the mean of logarithms over seeds with Student's t interval.

    If all seeds agree, the interval goes from the last label count below the accuracy to the first one that reaches it.
    None for one seed, or if a seed never reaches the accuracy.
    """
    costs = [cost for cost in reached if cost is not None]
    if len(costs) < max(len(reached), 2):
        return None
    references = np.maximum(reference_costs, 1e-9)
    logs = np.log(np.maximum([cost for cost, _, _ in costs], 1e-9) / references)
    mean = float(logs.mean())
    half = float(stdtrit(len(logs) - 1, (1 + LEVEL) / 2) * logs.std(ddof=1) / np.sqrt(len(logs)))
    low, high = float(np.exp(mean - half)), float(np.exp(mean + half))
    if np.ptp(logs) < 1e-9:
        low = min(low, *(below / reference for (_, below, _), reference in zip(costs, references, strict=True)))
        high = max(high, *(above / reference for (_, _, above), reference in zip(costs, references, strict=True)))
    # If the smallest number of labels is enough, fewer may be enough as well.
    low = 0.0 if any(not below for _, below, _ in costs) else low
    return Estimate(float(np.exp(mean)), low, high)
