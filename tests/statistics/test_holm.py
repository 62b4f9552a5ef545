"""Holm's correction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from embedpipe.statistics import holm

QUICK = settings(max_examples=40, deadline=None)
p_values = arrays(np.float64, st.integers(0, 20), elements=st.floats(0, 1))


def test_hand_computed_example() -> None:
    # Multiplied by 4, 3, 2, 1 in ascending order, and at least the previous value.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]).tolist() == [1, 1]
    assert holm([0.04]).tolist() == [0.04]
    assert holm([]).shape == (0,)


@QUICK
@given(p_values)
def test_adjusted_values_are_monotone_and_between_p_and_bonferroni(p: np.ndarray) -> None:
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(p * len(p), 1)).all()
    order = np.argsort(p)
    assert (np.diff(adjusted[order]) >= 0).all()
    assert holm(p[::-1]).tolist() == adjusted[::-1].tolist()


@QUICK
@given(p_values)
def test_holm_rejects_no_more_than_benjamini_hochberg(p: np.ndarray) -> None:
    if len(p):
        assert (holm(p) >= stats.false_discovery_control(p) - 1e-12).all()


@pytest.mark.parametrize("p", [[0.5, 1.1], [-0.1], [np.nan], [[0.5]]])
def test_invalid_p_values_are_refused(p: list[float]) -> None:
    with pytest.raises(ValueError, match=r"values in \[0, 1\]"):
        holm(p)
