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
