"""Which epoch is kept."""

from __future__ import annotations

import pytest

from embedpipe.finetuning.result import Epoch
from embedpipe.finetuning.training.trainer import Run


@pytest.mark.parametrize(
    ("accuracies", "rows", "kept"),
    [
        ([0.80, 0.80], 100, 1),  # of equals the latest
        ([0.80, 0.79], 100, 0),  # worse than before any training
        ([0.10, 0.80, 0.76], 100, 2),  # four rows of a hundred tell little
        ([0.10, 0.80, 0.70], 100, 1),  # ten tell enough
        ([0.10, 0.80, 0.79], 10_000, 1),  # and so do a hundred of ten thousand
        ([0.80, 0.90, 0.89, 0.70], 100, 2),
        ([0.80, 0.76, 0.90], 100, 2),
        ([0.80, 0.78, 0.99, 0.78, 0.98], 100, 4),
        ([1.0, 1.0, 0.99], 100, 1),
        ([0.60, 0.48, 0.60, 0.48, 0.56], 25, 0),  # a lucky epoch on the way is none to keep
        ([0.60, 0.48, 0.60, 0.48, 0.60], 25, 4),
    ],
)
def test_the_latest_near_the_best_is_kept_unless_the_first_is_better(
    accuracies: list[float], rows: int, kept: int
) -> None:
    run = Run()
    for number, accuracy in enumerate(accuracies):
        run.add(Epoch(number, None, accuracy, 0.5, 10, 1.0), rows)
    assert run.best.number == kept
