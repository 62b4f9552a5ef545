"""Near-duplicate groups against all pairs in NumPy: copies, chains, rounding at the threshold, tiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from embedpipe.errors import UsageError
from embedpipe.neighbours.duplicates import near_duplicate_groups


def by_numpy(X: npt.NDArray[Any], threshold: float) -> list[int]:
    """Return groups by comparing all pairs of distinct rows in float64, numbered by their first rows."""
    distinct, of = np.unique(X, axis=0, return_inverse=True)
    Z = distinct.astype(np.float64) - X.mean(axis=0, dtype=np.float64)
    lengths = np.linalg.norm(Z, axis=1)
    needed = threshold * np.outer(lengths, lengths)
    near = needed <= Z @ Z.T
    np.fill_diagonal(near, True)
    labels = connected_components(near, directed=False)[1][of]
    return [list(dict.fromkeys(labels.tolist())).index(label) for label in labels.tolist()]


@st.composite
def problems(draw: st.DrawFn) -> tuple[npt.NDArray[np.float32], float]:
    """Draw rows around a few centres, some of them exact copies, far from the origin or not."""
    dim = draw(st.integers(2, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = draw(st.integers(1, 120))
    centres = rng.standard_normal((draw(st.integers(1, 40)), dim))
    X = centres[rng.integers(0, len(centres), rows)]
    X = X + rng.choice([0.0, 0.03, 0.3], rows)[:, None] * rng.standard_normal((rows, dim))
    X += draw(st.sampled_from([0.0, 3.0]))
    return X.astype(np.float32), draw(st.sampled_from([0.7, 0.9, 0.97]))


@settings(max_examples=40, deadline=None)
@given(problems())
def test_groups_equal_all_pairs_in_numpy(problem: tuple[npt.NDArray[np.float32], float]) -> None:
    X, threshold = problem
    assert near_duplicate_groups(X, threshold).tolist() == by_numpy(X, threshold)


@pytest.mark.parametrize("threshold", [0.5, 0.95, 1.0])
def test_exact_copies_are_in_one_group(threshold: float) -> None:
    rng = np.random.default_rng(0)
    X = (5 + rng.standard_normal((200, 129))).astype(np.float32)
    X[[17, 60, 199]] = X[3]
    X[[100, 120]] = 0
    groups = near_duplicate_groups(X, threshold)
    assert (groups[[3, 17, 60, 199]] == 3).all()
    assert groups[100] == groups[120]
    assert len(np.unique(groups)) == 196


def test_groups_do_not_depend_on_the_tile() -> None:
    # Cosines differ in the last float32 digits, and the threshold lies among them.
    rng = np.random.default_rng(1)
    base = rng.standard_normal((150, 64))
    other = rng.standard_normal((150, 64))
    other -= (other * base).sum(1, keepdims=True) / (base * base).sum(1, keepdims=True) * base
    other *= np.linalg.norm(base, axis=1, keepdims=True) / np.linalg.norm(other, axis=1, keepdims=True)
    angles = np.arccos(0.9) + rng.uniform(-1e-7, 1e-7, (150, 1))
    X = np.concatenate([base, np.cos(angles) * base + np.sin(angles) * other, -base]).astype(np.float32)
    answers = [near_duplicate_groups(X, 0.9, tile=tile) for tile in (32, 100, 449, 2048)]
    pairs = len(X) - len(np.unique(answers[0]))
    assert 0 < pairs < 150
    assert all((answer == answers[0]).all() for answer in answers)


def test_many_copies_form_two_groups() -> None:
    rng = np.random.default_rng(2)
    scene, other = rng.standard_normal((2, 32))
    X = np.concatenate([scene + 1e-3 * rng.standard_normal((1500, 32)), np.tile(other, (1500, 1))]).astype(np.float32)
    assert near_duplicate_groups(X, 0.95, tile=256).tolist() == [0] * 1500 + [1] * 1500


def test_common_mean_does_not_join_rows() -> None:
    rng = np.random.default_rng(3)
    X = (10 + rng.standard_normal((300, 16))).astype(np.float32)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    assert (unit @ unit.T).min() > 0.95
    assert near_duplicate_groups(X, 0.95).tolist() == list(range(300))


def test_a_chain_is_one_group() -> None:
    angles = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    X = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert set(near_duplicate_groups(X, 0.99).tolist()) == {0}
    assert len(set(near_duplicate_groups(X, 0.999).tolist())) == 100


def test_input_is_unchanged_and_small_inputs_work() -> None:
    X = np.array([[1, 2], [3, 4], [1, 2]], np.float32)
    before = X.copy()
    assert near_duplicate_groups(X).tolist() == [0, 1, 0]
    assert (before == X).all()
    assert near_duplicate_groups(np.empty((0, 4), np.float32)).tolist() == []
    assert near_duplicate_groups(np.ones((1, 4), np.float32)).tolist() == [0]
    assert near_duplicate_groups(X[::-1, ::-1]).tolist() == [0, 1, 0]


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, float("nan")])
def test_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(UsageError, match=r"threshold must be a cosine in \(0, 1\], got"):
        near_duplicate_groups(np.ones((2, 2), np.float32), threshold)
