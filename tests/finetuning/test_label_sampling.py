"""Draws of labels: nested, stratified, in whole groups, and the label counts that are measured."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from embedpipe.errors import TrainingDataError
from embedpipe.finetuning.benchmark.label_sampling import draw_labels, label_count_ladders, smallest_label_count


@pytest.mark.parametrize("seed", range(5))
def test_draws_are_nested_and_stratified(seed: int) -> None:
    rng = np.random.default_rng(0)
    y = rng.choice(4, 400, p=[0.6, 0.25, 0.12, 0.03])
    pool = np.sort(rng.permutation(400)[:300])
    frequencies = np.bincount(y[pool]) / 300
    draws = [draw_labels(y, None, pool, labels, seed) for labels in (16, 40, 100, 300)]
    for smaller, larger in itertools.pairwise(draws):
        assert {*smaller.rows} < {*larger.rows} <= {*pool}
    for draw in draws:
        assert len(draw.rows) == draw.labels == len(draw.train) + len(draw.validation)
        for part in (draw.train, draw.validation):
            assert np.bincount(y[part], minlength=4).min() >= 2
    for draw in draws[2:]:
        assert len(draw.validation) == pytest.approx(draw.labels / 5, abs=2)
        np.testing.assert_allclose(np.bincount(y[draw.rows]) / draw.labels, frequencies, atol=0.03)
    assert {*draws[1].rows} != {*draw_labels(y, None, pool, 40, seed + 1).rows}


def test_smallest_label_count_has_four_rows_of_each_class() -> None:
    assert smallest_label_count(np.arange(40) % 4, np.arange(40)) == 16
    assert smallest_label_count(np.array([0] * 10 + [1]), np.arange(11)) == 5


def test_groups_are_not_divided() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(40), 3)
    y = rng.integers(0, 2, 40)[groups]
    draw = draw_labels(y, groups, np.arange(120), 60, 0)
    assert not {*groups[draw.train]} & {*groups[draw.validation]}
    assert len(draw.validation)
    with pytest.raises(TrainingDataError, match="because their groups are too large"):
        draw_labels(np.arange(20) % 2, np.zeros(20, np.int64), np.arange(20), 20, 0)


def test_default_label_counts_end_at_all_rows() -> None:
    y = np.arange(4000) % 5
    ladders = list(label_count_ladders((), y, np.arange(4000)))
    assert ladders[:2] == [[62, 250, 1000, 4000], [31, 125, 500, 2000]]
    assert next(label_count_ladders((), y, np.arange(100))) == [25, 50, 100]
    assert all(min(counts) >= 20 for counts in label_count_ladders((), y, np.arange(100)))


def test_given_label_counts_lose_the_largest_first() -> None:
    y = np.arange(4000) % 5
    assert list(label_count_ladders((20, 50), y, np.arange(100))) == [[20, 50], [20]]
