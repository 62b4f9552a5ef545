"""Intervals of shares: exact where all rows are alike, and with their coverage near 0 and 1."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from embedpipe.statistics import share_interval, unseen_share, wilson

QUICK = settings(max_examples=60, deadline=None)


@QUICK
@given(st.integers(1, 3000))
def test_all_right_has_the_exact_interval(n: int) -> None:
    exact = stats.binomtest(n, n).proportion_ci(0.95, "exact")
    share, low, high = share_interval(n, n)
    assert (share, high) == (1, 1)
    assert low <= exact.low + 1e-12
    assert 1 - unseen_share(n) == pytest.approx(exact.low)
    assert share_interval(0, n)[2] == pytest.approx(1 - low)


@QUICK
@given(st.integers(1, 300), st.data())
def test_interval_contains_that_of_wilson_and_is_symmetric(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    share, low, high = share_interval(right, n)
    _, usual_low, usual_high = wilson(right, n)
    assert 0 <= low <= usual_low <= share <= usual_high <= high <= 1
    assert high - low >= 1 - stats.binomtest(n, n).proportion_ci(0.95, "exact").low - 1e-12 or 0 < right < n
    assert share_interval(n - right, n)[1:] == pytest.approx((1 - high, 1 - low))
    if 3 < right < n - 3:
        assert (low, high) == (usual_low, usual_high)


def coverage(n: int, p: float) -> float:
    """Return the exact probability that the interval contains p."""
    counts = np.arange(n + 1)
    ends = np.array([share_interval(int(count), n)[1:] for count in counts])
    inside = (ends[:, 0] <= p + 1e-12) & (p - 1e-12 <= ends[:, 1])
    return float(stats.binom.pmf(counts, n, p)[inside].sum())


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 10, 20, 30, 50, 100])
def test_coverage_of_few_rows_near_one(n: int) -> None:
    assert coverage(n, 1.0) == 1
    assert coverage(n, 0.99) >= 0.95
    assert coverage(n, 0.9) >= 0.91
    # of all shares; Wilson's has 0.82 to 0.92
    assert min(coverage(n, p) for p in np.linspace(0.5, 0.999, 60)) > 0.91


def test_limits_of_few_errors_are_those_of_the_poisson_distribution() -> None:
    # Brown, Cai and DasGupta 2001, section 4.1.1: half of the 5 % quantile of chi-squared with 2x degrees of freedom
    for n, errors in ((10, 1), (50, 2), (100, 3)):
        expected = stats.chi2.ppf(0.05, 2 * errors) / 2 / n
        assert share_interval(errors, n)[1] == pytest.approx(expected)
        assert share_interval(n - errors, n)[2] == pytest.approx(1 - expected)
    assert share_interval(3, 50)[1] == wilson(3, 50)[1]


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="n must be >= 1, got 0"):
        unseen_share(0)
    with pytest.raises(ValueError, match="got right=1 and n=0"):
        share_interval(1, 0)
