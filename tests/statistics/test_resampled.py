"""The corrected resampled t-test against a published example, SciPy, and its bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from embedpipe.statistics import corrected_interval, corrected_t

QUICK = settings(max_examples=40, deadline=None)
#: ROC AUC of an RBF minus a linear support vector machine on two moons, in 10 x 10-fold cross-validation: the count
#: of each difference, in hundredths, in scikit-learn's "Statistical comparison of models using grid search".
MOONS = {-12: 1, -8: 2, -4: 10, 0: 53, 4: 29, 8: 4, 20: 1}

differences = arrays(np.float64, st.integers(2, 30), elements=st.floats(-1, 1))
ratios = st.floats(0.01, 1)


def test_corrected_t_equals_example_of_scikit_learn() -> None:
    result = corrected_t(np.repeat([*MOONS], [*MOONS.values()]) / 100, 10 / 90, 0.01)
    assert result.mean == pytest.approx(0.01)
    assert result.p / 2 == pytest.approx(0.227, abs=5e-4)  # corrected t-value 0.750, of one side
    assert (result.low, result.high) == pytest.approx((-0.016445, 0.036445), abs=5e-7)
    assert (result.worse, result.equal, result.better) == pytest.approx((0.068, 0.432, 0.500), abs=6e-4)
    none = corrected_t(np.repeat([*MOONS], [*MOONS.values()]) / 100, 10 / 90)
    assert none.better == pytest.approx(0.773, abs=5e-4)
    assert none.equal == 0


def test_corrected_t_equals_scipy_t_with_published_variance() -> None:
    x = np.random.default_rng(0).normal(0.02, 0.03, 25)
    result = corrected_t(x, 1 / 4, 0.01)
    posterior = stats.t(24, x.mean(), np.sqrt(x.var(ddof=1) * (1 / 25 + 1 / 4)))
    assert (result.low, result.high) == pytest.approx(posterior.interval(0.95))
    assert result.p == pytest.approx(2 * posterior.cdf(0))
    assert (result.worse, result.better) == pytest.approx((posterior.cdf(-0.01), posterior.sf(0.01)))
    assert corrected_interval(x, 1 / 4) == pytest.approx((result.mean, result.low, result.high))


def test_repeats_of_the_same_folds_equal_one_cross_validation() -> None:
    once = np.array([0.01, 0.03, -0.02, 0.04, 0.02])
    again = np.tile(once, 4)
    result = corrected_t(again, 1 / 4, repeats=4)
    assert (result.high - result.mean) / stats.t.ppf(0.975, 19) == pytest.approx(
        again.std(ddof=1) * np.sqrt(1 / 5 + 1 / 4)
    )


def test_variance_between_repeats_is_subtracted() -> None:
    x = np.random.default_rng(1).normal(0, 0.03, (5, 5)) + np.array([[-1], [1], [0], [2], [-2]]) * 0.005
    between = x.mean(axis=1).var(ddof=1)
    variance = x.var(ddof=1) * (1 / 5 + 1 / 4) - 0.8 * between
    result = corrected_t(x.ravel(), 1 / 4, repeats=5)
    assert result.high - result.mean == pytest.approx(stats.t.ppf(0.975, 24) * np.sqrt(variance))
    assert corrected_interval(x.ravel(), 1 / 4, repeats=5)[2] == pytest.approx(result.high)


@QUICK
@given(differences, ratios, st.floats(0, 0.5))
def test_interval_and_posterior_are_consistent(x: np.ndarray, ratio: float, margin: float) -> None:
    assume(np.ptp(x) > 1e-9)
    result = corrected_t(x, ratio, margin)
    assert result.low <= result.mean <= result.high
    assert min(result.worse, result.equal, result.better) >= 0
    assert result.worse + result.equal + result.better == pytest.approx(1)
    assert 0 <= result.p <= 1
    turned = corrected_t(-x, ratio, margin)
    assert (turned.mean, turned.p) == pytest.approx((-result.mean, result.p))
    assert (turned.worse, turned.better) == pytest.approx((result.better, result.worse))


@QUICK
@given(differences, ratios)
def test_corrected_p_is_never_below_the_plain_t_test(x: np.ndarray, ratio: float) -> None:
    assume(np.ptp(x) > 1e-9)
    assert corrected_t(x, ratio).p >= stats.ttest_1samp(x, 0).pvalue - 1e-12


@QUICK
@given(arrays(np.float64, st.tuples(st.integers(2, 5), st.integers(2, 5)), elements=st.floats(-1, 1)), ratios)
def test_p_with_repeats_is_never_below_the_published_test(x: np.ndarray, ratio: float) -> None:
    assume(np.ptp(x) > 1e-9)
    assert corrected_t(x.ravel(), ratio, repeats=len(x)).p >= corrected_t(x.ravel(), ratio).p - 1e-12


@pytest.mark.parametrize("value", [0.0, 0.01, 0.02, -0.02])
def test_equal_differences_are_not_certain(value: float) -> None:
    for function in (corrected_t, corrected_interval):
        with pytest.raises(ValueError, match=f"min_standard_error be > 0, got {value} 7 times"):
            function([value] * 7, 0.25)
    result = corrected_t([value] * 7, 0.25, 0.01, min_standard_error=0.01)
    assert result.low < value < result.high
    assert max(result.worse, result.equal, result.better) < 1
    assert result.p > 0
    assert corrected_interval([value] * 7, 0.25, min_standard_error=0.01) == (value, result.low, result.high)


@pytest.mark.parametrize(
    ("values", "ratio", "margin", "repeats", "message"),
    [
        ([0.1], 0.25, 0, 1, "length >= 2"),
        ([], 0.25, 0, 1, "length >= 2"),
        ([[0.1, 0.2]], 0.25, 0, 1, "shape"),
        ([0.1, np.nan], 0.25, 0, 1, "values must be finite, got nan for resample 1"),
        ([0.1, 0.2], 0, 0, 1, "ratio"),
        ([0.1, 0.2], np.inf, 0, 1, "ratio"),
        ([0.1, 0.2], 0.25, -1, 1, "margin must be >= 0, got -1"),
        ([0.1, 0.2, 0.3], 0.25, 0, 2, "multiple of repeats=2, got 3"),
        ([0.1, 0.2, 0.3], 0.25, 0, 0, "multiple of repeats=0"),
    ],
)
def test_invalid_arguments_are_refused(
    values: list[float], ratio: float, margin: float, repeats: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        corrected_t(values, ratio, margin, repeats=repeats)
