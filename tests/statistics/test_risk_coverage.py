"""Risk-coverage curves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embedpipe.statistics import risk_coverage

QUICK = settings(max_examples=40, deadline=None)
rights = arrays(bool, st.integers(1, 40))


def test_curve_equals_hand_computed_values() -> None:
    result = risk_coverage([0.6, 0.9, 0.8, 0.7], [False, True, False, True])
    assert result.coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert result.risk == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert result.area == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_ties_are_one_point_of_the_curve() -> None:
    result = risk_coverage([0.9, 0.5, 0.5], [True, False, True])
    assert result.coverage == pytest.approx([1 / 3, 1])
    assert result.risk == pytest.approx([0, 1 / 3])
    # In either order of the tie: risks 0, 1/2, 1/3 or 0, 0, 1/3.
    assert result.area == pytest.approx((1 / 4 + 1 / 3) / 3)


def test_infinite_confidence_is_allowed() -> None:
    result = risk_coverage([-1.0, -np.inf, np.inf], [True, False, True])
    assert result.risk == pytest.approx([0, 0, 1 / 3])


@QUICK
@given(rights, st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_area_is_between_the_best_and_the_worst_order(right: np.ndarray, levels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.integers(levels, size=len(right)) / levels
    result = risk_coverage(confidence, right)
    best, worst = risk_coverage(right, right).area, risk_coverage(~right, right).area
    assert best - 1e-12 <= result.area <= worst + 1e-12
    assert result.risk[-1] == pytest.approx(np.mean(~right))
    assert (np.diff(result.coverage) > 0).all()
    assert result.coverage[-1] == 1
    order = rng.permutation(len(right))
    assert risk_coverage(confidence[order], right[order]).area == pytest.approx(result.area)


@QUICK
@given(rights)
def test_area_of_uninformative_confidence_is_the_error_rate(right: np.ndarray) -> None:
    assert risk_coverage(np.zeros(len(right)), right).area == pytest.approx(np.mean(~right))


@pytest.mark.parametrize(
    ("confidence", "right", "message"),
    [([], [], "same length >= 1"), ([0.5], [True, False], "same length >= 1"), ([np.nan, 0.5], [True, True], "row 0")],
)
def test_invalid_arguments_are_refused(confidence: list[float], right: list[bool], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        risk_coverage(confidence, right)
