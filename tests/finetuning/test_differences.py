"""Differences between learners and savings, from made-up cells."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from embedpipe.finetuning.benchmark.benchmark_data import Cell
from embedpipe.finetuning.benchmark.differences import find_differences, find_savings
from embedpipe.finetuning.benchmark.result import Benchmark
from embedpipe.finetuning.training.epochs import Epoch
from embedpipe.statistics import Estimate

COUNTS = (100, 200, 400)
CURVES: dict[Any, tuple[float, ...]] = {"lp-ft": (0.6, 0.8, 0.9), "scratch": (0.3, 0.5, 0.7)}


def made_cell(learner: Any, labels: int, seed: int, accuracy: float) -> Cell:
    """Return a cell of a thousand test rows, of which the first ones are correct."""
    correct = np.packbits(np.arange(1000) < 1000 * accuracy).tobytes().hex()
    epochs = [Epoch(number, None, value, 0.0, 0, 0.0) for number, value in enumerate((0.2, 0.5, accuracy))]
    return Cell(learner, labels, seed, accuracy, 0.0, 0.2, epochs, 2, labels / 10, correct=correct)


@pytest.fixture
def result() -> Benchmark:
    """Five seeds of two curves."""
    cells = [
        made_cell(learner, labels, seed, accuracy + 0.002 * seed)
        for seed in range(5)
        for learner, accuracies in CURVES.items()
        for labels, accuracy in zip(COUNTS, accuracies, strict=True)
    ]
    return Benchmark(
        "data", "net", "label", "cpu", [0, 1], [*COUNTS], list(range(5)), [*CURVES], 1000, [], cells, [], [], ""
    )


def test_difference_of_two_learners(result: Benchmark) -> None:
    last = find_differences(result)[-1]
    assert last.accuracy.value == pytest.approx(0.2)
    # The seeds agree, so that the interval is that of the test rows.
    assert 0.15 < last.accuracy.low < 0.19 < 0.21 < last.accuracy.high < 0.25
    assert last.slope is not None
    assert last.slope.value == pytest.approx((0.9 - 0.7) / 2)
    assert last.initial_accuracy.value == 0
    assert last.initial_accuracy.low < -0.02 < 0.02 < last.initial_accuracy.high
    assert last.shifted_accuracy is None


def test_savings_are_interpolated_between_label_counts(result: Benchmark) -> None:
    (savings,) = find_savings(result)
    assert savings.accuracy == pytest.approx(0.704)
    assert savings.labels is not None
    assert savings.seconds is not None
    assert savings.labels.value == pytest.approx(100 * 2**0.5 / 400)
    assert savings.seconds.value == pytest.approx(savings.labels.value)
    # All seeds agree: what is known is that 100 labels are too few, and 200 enough.
    assert (savings.labels.low, savings.labels.high) == pytest.approx((100 / 400, 200 / 400))
    assert savings.is_informative


def test_savings_have_no_lower_end_if_the_smallest_count_is_enough(result: Benchmark) -> None:
    (savings,) = find_savings(dataclasses.replace(result, label_counts=[100]))
    assert savings.labels is not None
    assert savings.labels.low == 0
    assert not dataclasses.replace(savings, labels=Estimate(0.2, 0.0, 14.4)).is_informative


def test_savings_are_unknown_if_the_accuracy_is_never_reached(result: Benchmark) -> None:
    names: dict[str, Any] = {"lp-ft": "finetune", "scratch": "lp-ft"}
    cells = [dataclasses.replace(cell, learner=names[cell.learner]) for cell in result.cells]
    (savings,) = find_savings(dataclasses.replace(result, cells=cells, learners=["lp-ft", "finetune"]))
    assert savings.labels is None
    assert not savings.is_informative


def test_no_savings_against_the_majority_class(result: Benchmark) -> None:
    (savings,) = find_savings(dataclasses.replace(result, majority_accuracy=0.69))
    assert (savings.labels, savings.seconds) == (None, None)
    assert find_savings(dataclasses.replace(result, majority_accuracy=0.6)) == find_savings(result)


@pytest.mark.parametrize(
    ("seeds", "warning"),
    [
        (1, "One seed is too few for intervals: run it again with more (seeds=5), finished cells are kept."),
        (2, "2 seeds are too few for intervals: run it again with more (seeds=5), finished cells are kept."),
        (3, ""),
    ],
)
def test_few_seeds_give_a_warning(result: Benchmark, seeds: int, warning: str) -> None:
    assert dataclasses.replace(result, seeds=list(range(seeds))).seeds_warning == warning
