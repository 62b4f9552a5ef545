"""A made-up benchmark of learners, for tests of its page and charts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from embedpipe.finetuning.benchmark.benchmark_data import LEARNERS, Cell, Learner, LearnerDifference, Savings
from embedpipe.finetuning.benchmark.charts import mean_curve
from embedpipe.finetuning.benchmark.result import Benchmark
from embedpipe.finetuning.training.epochs import Epoch
from embedpipe.statistics import Estimate

#: Accuracy with unlimited labels, and the number of labels at which half the way from chance is reached.
SHAPES = {"linear-probe": (0.9, 25), "lp-ft": (0.93, 28), "finetune": (0.93, 70), "scratch": (0.75, 600)}
#: Loss of accuracy for each unit of severity.
LOSSES = {"linear-probe": 0.07, "lp-ft": 0.055, "finetune": 0.075, "scratch": 0.06}
PAIRS: tuple[tuple[Learner, Learner], ...] = (
    ("lp-ft", "linear-probe"),
    ("finetune", "linear-probe"),
    ("lp-ft", "finetune"),
    ("lp-ft", "scratch"),
    ("linear-probe", "scratch"),
)


def expected_accuracy(learner: Learner, labels: int) -> float:
    highest, half = SHAPES[learner]
    return 0.1 + (highest - 0.1) * labels / (labels + half)


def sample_epochs(learner: Learner, labels: int, seed: int) -> list[Epoch]:
    """Return epochs whose accuracy approaches the expected one."""
    if learner == "linear-probe":
        return []
    end = expected_accuracy(learner, labels)
    start = expected_accuracy("linear-probe", labels) if learner == "lp-ft" else 0.1
    count, speed = 9 + seed % 3, 4 if learner == "scratch" else 1.5
    noise = np.random.default_rng(seed).normal(0, 0.008, 20)
    left = [math.exp(-i / speed) for i in range(count)]
    accuracies = [start, *(end - (end - start) * left[i] + noise[i] for i in range(1, count))]
    return [
        Epoch(i, 2 * left[i] if i else None, accuracies[i], 0.6, labels, 0.04 * labels if i else 0.0)
        for i in range(count)
    ]


def sample_cell(learner: Learner, labels: int, seed: int, severities: Sequence[int]) -> Cell:
    rng = np.random.default_rng([LEARNERS.index(learner), labels, seed])
    accuracy = float(np.clip(round((expected_accuracy(learner, labels) + rng.normal(0, 0.012)) * 372) / 372, 0, 1))
    epochs = sample_epochs(learner, labels, seed)
    kinds = ("gaussian_noise", "defocus_blur", "fog", "jpeg_compression") if severities else ()
    starts_from_probe = learner in ("linear-probe", "lp-ft")
    return Cell(
        learner=learner,
        labels=labels,
        seed=seed,
        accuracy=accuracy,
        log_loss=0.2 + 2.5 * (1 - accuracy),
        initial_accuracy=expected_accuracy("linear-probe", labels) if starts_from_probe else 0.1,
        epochs=epochs,
        best_epoch=max(epochs, key=lambda epoch: epoch.validation_accuracy).number if epochs else 0,
        seconds=3.0 + 0.02 * labels if learner == "linear-probe" else sum(epoch.seconds for epoch in epochs),
        shifted={
            kind: [accuracy - LOSSES[learner] * (1 + i / 3) * severity for severity in severities]
            for i, kind in enumerate(kinds)
        },
    )


def sample_benchmark(
    learners: Sequence[Learner] = LEARNERS,
    label_counts: Sequence[int] = (100, 200, 500, 1000),
    seeds: int = 3,
    severities: Sequence[int] = (1, 3, 5),
) -> Benchmark:
    cells = [
        sample_cell(learner, labels, seed, severities)
        for labels in label_counts
        for learner in learners
        for seed in range(seeds)
    ]
    result = Benchmark(
        data="shared/data/clothing",
        backbone="timm/tf_efficientnet_lite0",
        label="label",
        device="cpu",
        classes=["dress", "hat", "shirt"],
        label_counts=list(label_counts),
        seeds=list(range(seeds)),
        learners=list(learners),
        test_rows=372,
        severities=list(severities),
        cells=cells,
        differences=[],
        savings=[],
        splits_id="ab" * 32,
        notes=["7 rows in 3 groups of near-duplicates were kept together"],
        seconds=4321.0,
    )
    pairs = [(learner, reference) for learner, reference in PAIRS if {learner, reference} <= set(learners)]
    result.differences = [sample_difference(result, *pair, labels) for labels in label_counts for pair in pairs]
    result.savings = [sample_savings(result, *pair) for pair in pairs]
    return result


def sample_difference(result: Benchmark, learner: Learner, reference: Learner, labels: int) -> LearnerDifference:
    pairs = list(zip(result.cells_of(learner, labels), result.cells_of(reference, labels), strict=True))

    def estimate(values: list[float], half: float = 0.017) -> Estimate:
        return Estimate(mean := float(np.mean(values)), mean - half, mean + half)

    trained = all(cell.epochs and other.epochs for cell, other in pairs)
    after = [
        cell.epochs[1].validation_accuracy - other.epochs[1].validation_accuracy for cell, other in pairs if trained
    ]
    shifted = [
        cell.shifted_accuracy - other.shifted_accuracy
        for cell, other in pairs
        if cell.shifted_accuracy is not None and other.shifted_accuracy is not None
    ]
    return LearnerDifference(
        learner,
        reference,
        labels,
        accuracy=estimate([cell.accuracy - other.accuracy for cell, other in pairs]),
        initial_accuracy=estimate([cell.initial_accuracy - other.initial_accuracy for cell, other in pairs]),
        after_one_epoch=estimate(after) if trained else None,
        slope=Estimate(0.0123, 0.0045, 0.0201) if trained else None,
        shifted_accuracy=estimate(shifted, 0.02) if shifted else None,
    )


def sample_savings(result: Benchmark, learner: Learner, reference: Learner) -> Savings:
    goal, curve = mean_curve(result, reference)[-1].value, mean_curve(result, learner)
    if curve[-1].value < goal:
        return Savings(learner, reference, goal, None, None)
    labels = np.exp(np.interp(goal, [mean.value for mean in curve], np.log([mean.labels for mean in curve])))
    part = float(labels / result.label_counts[-1])
    intervals = Estimate(part, 0.8 * part, 1.3 * part), Estimate(part, 0.7 * part, 1.5 * part)
    return Savings(learner, reference, goal, *intervals)
