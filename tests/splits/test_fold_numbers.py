"""Stratified folds with groups: groups stay whole, and classes are as even as in scikit-learn."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from embedpipe.splits.grouped import fold_numbers


@st.composite
def fold_problems(draw: st.DrawFn) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int, int]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = draw(st.integers(2, 200))
    classes = np.unique(rng.integers(0, draw(st.integers(1, 8)), rows), return_inverse=True)[1]
    groups = np.unique(rng.integers(0, draw(st.integers(1, 2 * rows)), rows), return_inverse=True)[1]
    return classes, groups, draw(st.integers(2, 6)), draw(st.integers(0, 1000))


@settings(max_examples=100, deadline=None)
@given(fold_problems())
def test_fold_numbers_keep_groups_whole_and_classes_even(
    problem: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int, int],
) -> None:
    classes, groups, folds, seed = problem
    numbers = fold_numbers(classes, groups, folds, np.random.default_rng(seed))
    assert all(len(set(numbers[groups == group])) == 1 for group in set(groups))
    assert len(set(numbers)) == min(folds, len(set(groups)))
    alone = fold_numbers(classes, None, folds, np.random.default_rng(seed))
    assert np.ptp(np.bincount(alone, minlength=folds)) <= 1
    for kind in set(classes):
        assert np.ptp(np.bincount(alone[classes == kind], minlength=folds)) <= 1
        pure = {group for group in set(groups) if (classes[groups == group] == kind).all()}
        if len(pure) >= folds:
            assert set(numbers[classes == kind]) == set(range(folds))


def test_fold_numbers_are_as_even_as_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    sizes = np.minimum(rng.zipf(1.8, 300), 60)
    groups = np.repeat(np.arange(300), sizes)
    classes = rng.choice(5, 300, p=[0.5, 0.2, 0.15, 0.1, 0.05])[groups]
    theirs = np.zeros(len(groups), np.int64)
    split = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(groups, classes, groups)
    for number, (_, test) in enumerate(split):
        theirs[test] = number
    ours = fold_numbers(classes, groups, 5, np.random.default_rng(0))

    def unevenness(numbers: npt.NDArray[np.int64]) -> float:
        shares = np.array(
            [np.bincount(numbers[classes == kind], minlength=5) / (classes == kind).sum() for kind in range(5)]
        )
        return float(((shares - 0.2) ** 2).sum())

    assert unevenness(ours) <= unevenness(theirs) + 1e-3
    assert np.ptp(np.bincount(ours)) <= np.ptp(np.bincount(theirs)) + 2
