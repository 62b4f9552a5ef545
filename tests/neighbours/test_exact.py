"""Exact neighbours against NumPy: scores, order, ties, independence of the batch."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedpipe.neighbours import exact, nearest_rows, normalised
from embedpipe.neighbours.exact import METRICS, Metric


def by_numpy(
    queries: npt.NDArray[Any], rows: npt.NDArray[Any], k: int, metric: Metric
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Score every pair in float64, one by one, and sort: by score, then by row."""
    costs = np.empty((len(queries), len(rows)))
    for i, query in enumerate(queries.astype(np.float64)):
        for j, row in enumerate(rows.astype(np.float64)):
            if metric == "cosine":
                length = np.sqrt(np.einsum("d,d->", query, query) * np.einsum("d,d->", row, row))
                costs[i, j] = -min(1, np.einsum("d,d->", query, row) / length) if length else 0
            else:
                costs[i, j] = ((row - query) ** 2).sum()
    order = np.lexsort((np.broadcast_to(np.arange(len(rows)), costs.shape), costs), axis=1)[:, :k]
    best = np.take_along_axis(costs, order, 1)
    return (-best if metric == "cosine" else np.sqrt(best)), order


@st.composite
def problems(draw: st.DrawFn) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], int]:
    """Draw rows from a few distinct vectors, so that there are many exact ties, and queries near or on them."""
    dim = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    distinct = rng.standard_normal((draw(st.integers(1, 30)), dim)) * draw(
        st.sampled_from([1e-30, 1e-15, 1.0, 1e6, 1e30])
    )
    distinct += draw(st.sampled_from([0.0, 10.0])) * np.abs(distinct).max()
    rows = distinct[rng.integers(0, len(distinct), draw(st.integers(1, 150)))].astype(np.float32)
    others = rng.standard_normal((draw(st.integers(0, 25)), dim)) * np.abs(distinct).max()
    queries = np.concatenate([rows[:2], others]).astype(np.float32)
    return queries, rows, draw(st.integers(1, len(rows)))


@settings(max_examples=60, deadline=None)
@given(problem=problems(), metric=st.sampled_from(METRICS))
def test_results_equal_numpy_with_ties(problem: tuple[Any, Any, int], metric: Metric) -> None:
    queries, rows, k = problem
    if metric == "cosine":
        queries = normalised(queries)
    scores, result = nearest_rows(queries, rows, k, metric)
    expected_scores, expected = by_numpy(queries, rows, k, metric)
    close = 1e-13 * np.abs(expected_scores).max()
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-12, atol=close)
    # Distinct rows may swap if their scores are equal up to float64 rounding; exact copies may not.
    same = (result == expected) | np.isclose(scores, expected_scores, rtol=1e-12, atol=close)
    assert same.all()
    copies = (rows[result[:, 1:]] == rows[result[:, :-1]]).all(axis=2)
    assert (result[:, 1:][copies] > result[:, :-1][copies]).all()
    assert all(len(set(row)) == k for row in result.tolist())


@settings(max_examples=50, deadline=None)
@given(problem=problems(), metric=st.sampled_from(METRICS), block=st.integers(1, 3000), share=st.floats(0, 1))
def test_search_within_rows_in_any_blocks(
    problem: tuple[Any, Any, int], metric: Metric, block: int, share: float
) -> None:
    queries, rows, k = problem
    within = np.flatnonzero(np.random.default_rng(0).random(len(rows)) < share)
    k = min(k, len(within))
    expected_scores, expected = nearest_rows(normalised(queries), rows[within], k, metric)
    with mock.patch.object(exact, "ROW_BLOCK", block):
        scores, result = nearest_rows(normalised(queries), rows, k, metric, within=within)
    assert (scores == expected_scores).all()
    assert (result == within[expected]).all()


@pytest.mark.parametrize("metric", METRICS)
def test_more_copies_than_candidates_are_in_row_order(metric: Metric) -> None:
    rng = np.random.default_rng(0)
    distinct = normalised(rng.standard_normal((3, 16)))
    rows = distinct[rng.integers(0, 3, 1000)]
    _, result = nearest_rows(distinct, rows, 40, metric)
    for i in range(3):
        copies = np.flatnonzero((rows == distinct[i]).all(axis=1))
        assert result[i].tolist() == copies[:40].tolist()


@pytest.mark.parametrize("metric", METRICS)
def test_scores_do_not_depend_on_the_batch(metric: Metric) -> None:
    rng = np.random.default_rng(1)
    rows = normalised(rng.standard_normal((3000, 200)))
    queries = normalised(rng.standard_normal((100, 200)))
    scores, result = nearest_rows(queries, rows, 10, metric)
    for at in (0, 57, 99):
        one_score, each = nearest_rows(queries[at : at + 1], rows, 10, metric)
        assert (one_score[0] == scores[at]).all()
        assert (each[0] == result[at]).all()


def test_euclidean_is_exact_far_from_the_origin() -> None:
    # Here |x|^2 + |y|^2 - 2xy has no correct digit in float32.
    rng = np.random.default_rng(2)
    rows = (1e4 + rng.standard_normal((500, 30))).astype(np.float32)
    queries = (1e4 + rng.standard_normal((20, 30))).astype(np.float32)
    scores, result = nearest_rows(queries, rows, 5, "euclidean")
    expected_scores, expected = by_numpy(queries, rows, 5, "euclidean")
    assert (result == expected).all()
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-12)


def test_normalised_rows_have_length_one_at_any_scale() -> None:
    rng = np.random.default_rng(3)
    X = rng.standard_normal((6, 50)) * np.array([1e-300, 1e-30, 1, 1e30, 1e300, 0])[:, None]
    lengths = np.linalg.norm(normalised(X).astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, [1, 1, 1, 1, 1, 0], atol=1e-6)


def test_no_queries_give_empty_results() -> None:
    scores, result = nearest_rows(np.empty((0, 4), np.float32), np.ones((3, 4), np.float32), 2, "cosine")
    assert scores.shape == result.shape == (0, 2)
