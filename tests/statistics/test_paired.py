"""Paired tests and intervals against published examples and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score

from embedpipe.statistics import mcnemar, paired_bootstrap, paired_interval, wilson

QUICK = settings(max_examples=40, deadline=None)
counts = st.integers(0, 60)


def rights(both: int, first: int, second: int, neither: int) -> np.ndarray:
    return np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], [both, first, second, neither], axis=0).T.astype(bool)


def accuracy(y: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.mean(y == predicted))


def test_paired_interval_equals_published_example() -> None:
    # Newcombe 1998, table III, method 10: 36, 12, 2, 0 of 50.
    assert paired_interval(36, 2, 12, 0) == pytest.approx((0.0569, 0.3404), abs=5e-5)
    assert paired_interval(36, 12, 2, 0) == pytest.approx((-0.3404, -0.0569), abs=5e-5)
    low, high = paired_interval(50, 0, 0, 0)
    assert low == -high < 0
    low, high = paired_interval(500, 0, 0, 500)  # method 10 alone would give 0.002
    assert high == -low == pytest.approx(stats.binomtest(0, 1000).proportion_ci(0.95, "exact").high)


@QUICK
@given(counts, counts, counts, counts)
def test_paired_interval_contains_the_difference(both: int, first: int, second: int, neither: int) -> None:
    n = both + first + second + neither
    if not n:
        with pytest.raises(ValueError, match="got right=0 and n=0"):
            paired_interval(both, first, second, neither)
        return
    low, high = paired_interval(both, first, second, neither)
    assert -1 - 1e-9 <= low <= (second - first) / n <= high <= 1 + 1e-9
    assert paired_interval(both, second, first, neither) == pytest.approx((-high, -low))


@QUICK
@given(st.integers(1, 200), st.data())
def test_wilson_equals_scipy(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    share, low, high = wilson(right, n)
    expected = stats.binomtest(right, n).proportion_ci(0.95, "wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= low <= share <= high <= 1


def test_wilson_refuses_more_right_than_rows() -> None:
    with pytest.raises(ValueError, match="got right=3 and n=2"):
        wilson(3, 2)


def test_mcnemar_equals_published_example() -> None:
    # Fagerland, Lydersen and Laake 2013, airway hyper-responsiveness: 1 and 7 discordant pairs of 21, p = 0.0703.
    assert mcnemar(*rights(1, 1, 7, 12)) == pytest.approx(0.0703, abs=5e-5)


@QUICK
@given(counts, counts, counts, counts)
def test_mcnemar_equals_binomial_test_of_discordant_rows(both: int, first: int, second: int, neither: int) -> None:
    if both + first + second + neither:
        p = mcnemar(*rights(both, first, second, neither))
        expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
        assert p == pytest.approx(expected)


@pytest.mark.parametrize(("first", "second"), [([], []), ([True], [True, False]), ([[True]], [[True]])])
def test_mcnemar_refuses_different_lengths(first: list[bool], second: list[bool]) -> None:
    with pytest.raises(ValueError, match="of the same length"):
        mcnemar(first, second)


def test_bootstrap_of_accuracy_agrees_with_paired_interval() -> None:
    item, other = rights(700, 60, 90, 150)
    y = np.ones(1000, bool)
    result = paired_bootstrap(accuracy, y, item, other)
    assert result.difference == pytest.approx(0.03)
    assert (result.low, result.high) == pytest.approx(paired_interval(700, 60, 90, 150), abs=0.002)
    assert result.p == pytest.approx(mcnemar(item, other), abs=0.01)


def test_bootstrap_of_a_mean_agrees_with_the_t_interval() -> None:
    rng = np.random.default_rng(2)
    y, noise = rng.normal(size=(2, 400))

    def error(y: np.ndarray, predicted: np.ndarray) -> float:
        return float(np.mean(np.abs(y - predicted)))

    other = y + noise
    result = paired_bootstrap(error, y, y, other)
    expected = stats.ttest_1samp(np.abs(noise), 0).confidence_interval()
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high), abs=0.01)
    assert result.p == pytest.approx(2 / 2001)
    assert paired_bootstrap(error, y, y, other) == result
    assert paired_bootstrap(error, y, y, other, seed=1) != result


def test_grouped_copies_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(3)
    y, item, other = rng.integers(2, size=(3, 60))
    alone = paired_bootstrap(accuracy, y, item, other)
    copies = [np.tile(each, 9) for each in (y, item, other)]
    together = paired_bootstrap(accuracy, *copies, groups=np.tile(np.arange(60), 9))
    assert together.difference == pytest.approx(alone.difference)
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high), abs=0.05)
    assert together.p == pytest.approx(alone.p, abs=0.05)
    apart = paired_bootstrap(accuracy, *copies)
    assert (apart.high - apart.low) / (alone.high - alone.low) == pytest.approx(1 / 3, abs=0.05)


def test_groups_of_one_row_equal_no_groups() -> None:
    rng = np.random.default_rng(4)
    y, item, other = rng.integers(3, size=(3, 50)).astype(str)
    names = [f"{row:02d}" for row in range(50)]
    grouped = paired_bootstrap(accuracy, y, item, other, groups=names)
    assert grouped == paired_bootstrap(accuracy, y, item, other)


def test_bootstrap_of_a_metric_of_probabilities() -> None:
    rng = np.random.default_rng(5)
    y = rng.integers(2, size=300)
    sure = np.stack([1 - 0.9 * y, 0.9 * y], axis=1) + [[0.0, 0.1]] * (1 - y[:, None])

    def macro(y: np.ndarray, p: np.ndarray) -> float:
        return float(f1_score(y, p.argmax(axis=1), average="macro"))

    result = paired_bootstrap(macro, y, rng.dirichlet([1, 1], 300), sure, draws=40)
    assert result.difference > result.low > 0.3
    assert result.p == pytest.approx(2 / 41)


def test_bootstrap_of_equal_predictions() -> None:
    y = np.arange(5) % 2
    result = paired_bootstrap(accuracy, y, y, y)
    assert (result.difference, result.p) == (0, 1)
    assert result.high == -result.low == pytest.approx(stats.binomtest(0, 5).proportion_ci(0.95, "exact").high)


def test_undefined_draws_are_left_out() -> None:
    y = np.array([0, 0, 0, 1])

    def recall(y: np.ndarray, predicted: np.ndarray) -> float:
        return float(np.mean(predicted[y == 1] == 1)) if (y == 1).any() else float("nan")

    result = paired_bootstrap(recall, y, np.zeros(4), y)
    assert (result.difference, result.high) == (1, 1)
    assert result.low < 0  # of 4 rows, all but 1 could be others
    assert result.p == 2.0**-3
    with pytest.raises(ValueError, match="undefined in all draws"):
        paired_bootstrap(recall, np.zeros(4), y, y)


@pytest.mark.parametrize(
    ("rows", "groups", "message"),
    [
        ((0, 0), None, "the same length"),
        ((3, 2), None, "the same length"),
        ((3, 3), [1, 1], "the same length"),
        ((2, 2), [1, 1], "two distinct values or more"),
    ],
)
def test_bootstrap_refuses_invalid_rows(rows: tuple[int, int], groups: list[int] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(accuracy, np.zeros(rows[0]), np.zeros(rows[0]), np.zeros(rows[1]), groups=groups)
