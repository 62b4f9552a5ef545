"""What learners differ by at each label budget, and what one saves against another, with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from embedpipe.finetuning.benchmark.paired_runs import PilotRun, read_pilot
from embedpipe.finetuning.benchmark.result import Benchmark, Cell, Learner, LearnerDifference, Savings
from embedpipe.finetuning.split_rows import VALIDATION_FOLDS
from embedpipe.statistics import Estimate
from embedpipe.statistics.paired import LEVEL, wilson

#: Which learners are held against each other, where both are there.
PAIRS: tuple[tuple[Learner, Learner], ...] = (
    ("lp-ft", "linear-probe"),
    ("lp-ft", "finetune"),
    ("lp-ft", "scratch"),
    ("finetune", "linear-probe"),
    ("finetune", "scratch"),
    ("linear-probe", "scratch"),
)


def find_differences(found: Benchmark) -> list[LearnerDifference]:
    """Return the differences of all pairs of learners at all budgets."""
    pairs = [pair for pair in PAIRS if {*pair} <= {*found.learners}]
    return [
        _difference(found.cells_of(learner, labels), found.cells_of(reference, labels), found.test_rows)
        for learner, reference in pairs
        for labels in found.label_counts
    ]


def find_savings(found: Benchmark) -> list[Savings]:
    """Return what each learner of a pair saves against the other."""
    return [_savings(found, *pair) for pair in PAIRS if {*pair} <= {*found.learners}]


def _difference(ones: Sequence[Cell], others: Sequence[Cell], rows: int) -> LearnerDifference:
    """Compare cells of two learners at one budget, in the order of the seeds."""
    pairs = list(zip(ones, others, strict=True))
    first = ones[0]
    runs = [pair_of(one, other, rows) for one, other in pairs]
    pilot = read_pilot(runs, first.labels, rows, max(len(first.shifted_correct), 1))
    trained = all(len(cell.epochs) > 1 for pair in pairs for cell in pair)
    return LearnerDifference(
        learner=first.learner,
        reference=others[0].learner,
        labels=first.labels,
        accuracy=pilot.gain.interval(),
        initial_accuracy=_start(pairs),
        after_one_epoch=_of_validation(
            [(one.epochs[1].validation_accuracy, other.epochs[1].validation_accuracy) for one, other in pairs],
            first.labels,
        )
        if trained
        else None,
        slope=_over_seeds([_slope(one) - _slope(other) for one, other in pairs]) if trained else None,
        shifted_accuracy=pilot.shift.interval() if pilot.shift else None,
    )


def pair_of(one: Cell, other: Cell, rows: int, hits: npt.NDArray[np.bool_] | None = None) -> PilotRun:
    """Return what two cells of a draw say of each other: ``other`` takes the probe's place.

    Where ``hits`` are given, they say which test rows the other has right instead of its cell.
    """
    a, b = one.correct_rows(rows), other.correct_rows(rows) if hits is None else hits
    apart = np.subtract(one.shifted_correct, other.shifted_correct)
    return PilotRun(
        labels=one.labels,
        seed=one.seed,
        probe=float(b.mean()),
        tuned=one.accuracy,
        seconds=one.seconds,
        shifted_probe=other.shifted_accuracy,
        shifted_tuned=one.shifted_accuracy,
        paired=(int((a & b).sum()), int((b & ~a).sum()), int((a & ~b).sum()), int((~a & ~b).sum())),
        shifted_error=float(apart.std(ddof=1) / np.sqrt(len(apart))) if len(apart) > 1 else None,
    )


def _start(pairs: Sequence[tuple[Cell, Cell]]) -> Estimate:
    """Compare learners before training. A hand-off is the probe then, so that validation rows leave nothing open."""
    one, other = pairs[0]
    starts = [(one.initial_accuracy, other.initial_accuracy) for one, other in pairs]
    same = {one.learner, other.learner} == {"linear-probe", "lp-ft"}
    return _over_seeds([a - b for a, b in starts]) if same else _of_validation(starts, one.labels)


def _of_validation(accuracies: Sequence[tuple[float, float]], labels: int) -> Estimate:
    """Return the mean difference of accuracies on validation rows, which each seed draws anew.

    Seeds say how far it is open; where they agree by chance, as on few rows, the number of these does: by Newcombe's
    interval, learners' errors taken as independent.
    """
    by_seeds = _over_seeds([one - other for one, other in accuracies])
    runs = [PilotRun(labels, seed, probe=other, tuned=one, seconds=0) for seed, (one, other) in enumerate(accuracies)]
    rows = max(labels // VALIDATION_FOLDS, 1) * len(runs)
    gain = read_pilot(runs, labels, rows, 1).gain
    low, high = min(by_seeds.low, gain.value - gain.below), max(by_seeds.high, gain.value + gain.above)
    return Estimate(by_seeds.value, max(low, -1.0), min(high, 1.0))


def _slope(cell: Cell) -> float:
    """Return the accuracy won per epoch, up to the best one; 0 where that is before any training."""
    return (cell.epochs[cell.best_epoch].validation_accuracy - cell.epochs[0].validation_accuracy) / max(
        cell.best_epoch, 1
    )


def _over_seeds(differences: Sequence[float]) -> Estimate:
    """Return the mean of the seeds' differences, by Student's t."""
    values = np.array(differences)
    mean = float(values.mean())
    if len(values) < 2:
        return Estimate(mean, -1.0, 1.0)
    half = float(stdtrit(len(values) - 1, (1 + LEVEL) / 2) * values.std(ddof=1) / np.sqrt(len(values)))
    return Estimate(mean, max(mean - half, -1.0), min(mean + half, 1.0))


def _savings(found: Benchmark, learner: Learner, reference: Learner) -> Savings:
    """Find, for each seed, where one curve reaches the other's end; nothing is saved against a guess."""
    ends = found.cells_of(reference, found.label_counts[-1])
    accuracy = float(np.mean([end.accuracy for end in ends]))
    if wilson(round(accuracy * found.test_rows), found.test_rows)[1] <= found.majority_accuracy:
        return Savings(learner, reference, accuracy, None, None)
    budgets, seconds = [], []
    for end in ends:
        curve = [
            cell for labels in found.label_counts for cell in found.cells_of(learner, labels) if cell.seed == end.seed
        ]
        budgets.append(_reached(curve, end.accuracy, [cell.labels for cell in curve]))
        seconds.append(_reached(curve, end.accuracy, [cell.seconds for cell in curve]))
    return Savings(
        learner,
        reference,
        accuracy,
        _share(budgets, [end.labels for end in ends]),
        _share(seconds, [end.seconds for end in ends]),
    )


def _reached(curve: Sequence[Cell], accuracy: float, cost: Sequence[float]) -> tuple[float, bool] | None:
    """Return what reaching an accuracy costs, and whether the smallest budget does already; None if none does.

    Between two budgets by a line over the logarithm of the cost.
    """
    at = next((number for number, cell in enumerate(curve) if cell.accuracy >= accuracy), None)
    if at is None:
        return None
    if not at:
        return cost[0], True
    share = (accuracy - curve[at - 1].accuracy) / (curve[at].accuracy - curve[at - 1].accuracy)
    logs: npt.NDArray[np.float64] = np.log(np.maximum([cost[at - 1], cost[at]], 1e-9))
    return float(np.exp(logs[0] + share * (logs[1] - logs[0]))), False


def _share(reached: Sequence[tuple[float, bool] | None], of: Sequence[float]) -> Estimate | None:
    """Return costs as a share of others, by the mean of logarithms; None for one seed, or one that never gets there."""
    found = [one for one in reached if one is not None]
    if len(found) < max(len(reached), 2):
        return None
    logs = np.log([max(cost, 1e-9) / max(whole, 1e-9) for (cost, _), whole in zip(found, of, strict=True)])
    mean = float(logs.mean())
    half = float(stdtrit(len(logs) - 1, (1 + LEVEL) / 2) * logs.std(ddof=1) / np.sqrt(len(logs)))
    # Where the smallest budget is enough, how much less would be is not known.
    low = 0.0 if any(at_once for _, at_once in found) else float(np.exp(mean - half))
    return Estimate(float(np.exp(mean)), low, float(np.exp(mean + half)))
