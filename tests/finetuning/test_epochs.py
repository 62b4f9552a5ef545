"""Which epoch of a run is kept."""

from __future__ import annotations

import pytest

from embedpipe.finetuning.training.epochs import Epoch, Run


@pytest.mark.parametrize(
    ("accuracies", "rows", "kept"),
    [
        ([0.80, 0.80], 100, 1),  # the latest of equals
        ([0.80, 0.79], 100, 0),  # worse than epoch 0
        ([0.10, 0.80, 0.76], 100, 2),  # 4 rows of 100 are within one standard error
        ([0.10, 0.80, 0.70], 100, 1),  # 10 rows of 100 are not
        ([0.10, 0.80, 0.79], 10_000, 1),  # nor are 100 rows of 10,000
        ([0.80, 0.90, 0.89, 0.70], 100, 2),
        ([0.80, 0.76, 0.90], 100, 2),
        ([0.80, 0.78, 0.99, 0.78, 0.98], 100, 4),
        ([1.0, 1.0, 0.99], 100, 1),
        ([0.60, 0.48, 0.60, 0.48, 0.56], 25, 0),  # a lucky earlier epoch is not kept
        ([0.60, 0.48, 0.60, 0.48, 0.60], 25, 4),
    ],
)
def test_latest_epoch_near_the_best_is_kept_unless_epoch_0_is_better(
    accuracies: list[float], rows: int, kept: int
) -> None:
    run = Run()
    for number, accuracy in enumerate(accuracies):
        run.add(Epoch(number, None, accuracy, 0.5, 10, 1.0), rows)
    assert run.best.number == kept


@pytest.mark.parametrize(
    ("epochs", "kept"),
    [
        ([(0.8, 0.5), (0.8, 0.6)], 0),  # the network before training is as accurate, and surer
        ([(0.8, 0.5), (0.8, 0.4)], 1),
        ([(0.6, 0.9), (0.8, 0.5), (0.8, 2.0)], 1),
        ([(0.6, 0.9), (0.8, 0.5), (0.8, 2.0), (0.78, 3.0)], 3),  # the latest that is near the best, with its log-loss
        ([(0.8, 0.5), (0.78, 0.4), (0.8, 0.6)], 0),
    ],
)
def test_equal_accuracies_are_decided_by_the_log_loss(epochs: list[tuple[float, float]], kept: int) -> None:
    run = Run()
    for number, (accuracy, loss) in enumerate(epochs):
        run.add(Epoch(number, None, accuracy, loss, 10, 1.0), 100)
    assert run.best.number == kept


def test_equal_accuracy_with_a_worse_log_loss_is_still_near_the_best() -> None:
    run = Run()
    for number, loss in enumerate((0.5, 0.6, 0.7)):
        run.add(Epoch(number, None, 0.8, loss, 10, 1.0), 100)
    assert (run.best.number, run.near) == (0, 2)
    run.add(Epoch(3, None, 0.4, 0.8, 10, 1.0), 100)
    assert [run.is_exhausted(patience) for patience in (1, 2)] == [True, False]
    assert Run(epochs=run.epochs, candidate=2).near == 2  # as a state of version 0.2.0 has it
