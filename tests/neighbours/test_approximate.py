"""Approximate against exact neighbours: recall, exact scores, ties, filters, keys that shift, reproducibility."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedpipe.neighbours import (
    NearRows,
    Tuning,
    approximate,
    make_cells,
    nearest_rows,
    normalised,
    restore_cells,
    tune,
)
from embedpipe.neighbours.cells import (
    add_rows,
    cell_of_rows,
    centroids_of,
    find_candidates,
    nearest_cells,
    padded,
    unevenness,
)
from embedpipe.neighbours.exact import METRICS, Metric
from embedpipe.neighbours.tuning import MOST_SAMPLE, NO_GATE, Z, lower_bound
from embedpipe.querying.options import MOST_RECALL


def mixture(rows: int, seed: int, metric: Metric, dim: int = 13) -> npt.NDArray[np.float32]:
    """Return rows around 60 fixed centres, far from the origin for the euclidean metric."""
    rng = np.random.default_rng(seed)
    X = np.random.default_rng(9).standard_normal((60, dim))[rng.integers(0, 60, rows)]
    X = X + 0.4 * rng.standard_normal((rows, dim))
    return normalised(X) if metric == "cosine" else (X + 30).astype(np.float32)


def recall(result: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Return the share of the expected rows that were found."""
    return sum(len(np.intersect1d(*pair)) for pair in zip(result, expected, strict=True)) / result.size


def search_with(rows: npt.NDArray[np.float32], metric: Metric, probes: int, **options: Any) -> NearRows:
    """Return a search of so many cells, for up to 10 neighbours, without a gate."""
    return NearRows(rows, metric, make_cells(rows, metric), Tuning((10,), (probes,), 4, NO_GATE), **options)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("target", [0.8, 0.95])
def test_recall_reaches_the_target_with_exact_scores(metric: Metric, target: float) -> None:
    rows, queries = mixture(4000, 0, metric), mixture(500, 1, metric)
    cells = make_cells(rows, metric)
    tuning, measured = tune(rows, metric, cells, target, (10, 50))
    assert tuning.probes[0] <= tuning.probes[1]
    assert tuning.probes[0] < cells.nlist / 2
    assert target <= measured.at_least < measured.mean
    assert (measured.k, measured.rows) == (10, 1000)
    scores, result = NearRows(rows, metric, cells, tuning).search(queries, 10)
    expected_scores, expected = nearest_rows(queries, rows, 10, metric)
    assert target - 0.01 <= recall(result, expected) < 1
    # Rows that both searches find have the same score and order.
    for row in range(len(queries)):
        _, ours, theirs = np.intersect1d(result[row], expected[row], return_indices=True)
        assert (scores[row, ours] == expected_scores[row, theirs]).all()
    assert (np.diff(scores if metric == "euclidean" else -scores, axis=1) >= 0).all()
    assert all(len(set(row)) == 10 for row in result.tolist())


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 300),
    distinct=st.integers(1, 60),
    k=st.integers(1, 12),
    share=st.sampled_from([1.0, 0.5, 0.05]),
    metric=st.sampled_from(METRICS),
    probes=st.sampled_from([1, 3, 1000]),
)
def test_all_cells_within_rows_equal_exact_search(
    seed: int, count: int, distinct: int, k: int, share: float, metric: Metric, probes: int
) -> None:
    rng = np.random.default_rng(seed)
    X = mixture(distinct, seed, metric)[rng.integers(0, distinct, count)]
    queries = np.concatenate([X[:2], mixture(3, seed + 1, metric)])
    within = np.flatnonzero(rng.random(count) < share)
    k = min(k, len(within))
    search = search_with(X, metric, probes)
    with mock.patch.object(approximate, "FEW_ROWS", 0):
        scores, result = search.search(queries, k, within=within)
    expected_scores, expected = nearest_rows(queries, X, k, metric, within=within)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-12, atol=1e-12)
    assert (result == expected).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), metric=st.sampled_from(METRICS))
def test_removed_rows_are_masked_and_new_rows_searched(seed: int, metric: Metric) -> None:
    rng = np.random.default_rng(seed)
    old, new = mixture(200, seed, metric), mixture(30, seed + 1, metric)
    kept = np.flatnonzero(rng.random(200) < 0.7)
    rows = np.concatenate([old[kept], new])
    order = rng.permutation(len(rows))  # rows of the next version are in another order
    place = np.empty(len(rows), np.int64)
    place[order] = np.arange(len(rows))
    row_of = np.full(200, -1)
    row_of[kept] = place[: len(kept)]
    tuning = Tuning((10,), (1000,), 4, NO_GATE)
    loose = np.sort(place[len(kept) :])
    search = NearRows(rows[order], metric, make_cells(old, metric), tuning, row_of, loose)
    within = np.flatnonzero(rng.random(len(rows)) < 0.5)
    with mock.patch.object(approximate, "FEW_ROWS", 0):
        for chosen in (None, within):
            result = search.search(new[:4], 8, within=chosen)
            expected = nearest_rows(new[:4], rows[order], 8, metric, within=chosen)
            np.testing.assert_array_equal(result[1], expected[1])
            np.testing.assert_array_equal(result[0], expected[0])


def test_gate_finds_neighbours_of_queries_unlike_the_rows() -> None:
    rows = mixture(3000, 0, "cosine")
    others = normalised(np.random.default_rng(3).standard_normal((200, 13)))
    cells = make_cells(rows, "cosine")
    tuning, _ = tune(rows, "cosine", cells, 0.9)
    expected = nearest_rows(others, rows, 10, "cosine")[1]
    without = NearRows(rows, "cosine", cells, Tuning(tuning.k, tuning.probes, tuning.candidates, NO_GATE))
    assert recall(without.search(others, 10)[1], expected) < 0.85
    assert recall(NearRows(rows, "cosine", cells, tuning).search(others, 10)[1], expected) > 0.97
    few = NearRows(rows, "cosine", cells, tuning).search(others[:5], 10)[1]
    assert recall(few, expected[:5]) > 0.97


def test_results_are_reproducible_and_independent_of_the_batch() -> None:
    rows, queries = mixture(3000, 0, "cosine"), mixture(100, 1, "cosine")
    first, second = (make_cells(rows, "cosine") for _ in range(2))
    assert (centroids_of(first) == centroids_of(second)).all()
    assert (cell_of_rows(first) == cell_of_rows(second)).all()
    tunings = [tune(rows, "cosine", cells, 0.9) for cells in (first, second)]
    assert tunings[0] == tunings[1]
    search = NearRows(rows, "cosine", first, tunings[0][0])
    scores, result = search.search(queries, 10)
    for at in (0, 41, 99):
        one_score, each = search.search(queries[at : at + 1], 10)
        assert (each[0] == result[at]).all()
        assert (one_score[0] == scores[at]).all()


@pytest.mark.parametrize("metric", METRICS)
def test_cells_are_the_same_after_they_were_stored_as_arrays(metric: Metric) -> None:
    rows, queries = mixture(1500, 0, metric), mixture(100, 1, metric)
    cells = make_cells(rows, metric)
    again = restore_cells(centroids_of(cells)[:, : rows.shape[1]], cell_of_rows(cells), rows, metric)
    tuning = Tuning((10,), (3,), 2, NO_GATE)
    for ours, theirs in zip(
        NearRows(rows, metric, cells, tuning).search(queries, 5),
        NearRows(rows, metric, again, tuning).search(queries, 5),
        strict=True,
    ):
        assert (ours == theirs).all()


def test_queries_with_too_few_candidates_are_searched_exactly() -> None:
    rows, queries = mixture(2000, 0, "cosine"), mixture(5, 1, "cosine")
    search = NearRows(rows, "cosine", make_cells(rows, "cosine"), Tuning((500,), (1,), 4, NO_GATE))
    assert (search.search(queries, 500)[1] == nearest_rows(queries, rows, 500, "cosine")[1]).all()


@pytest.mark.parametrize("metric", METRICS)
def test_copies_are_in_row_order(metric: Metric) -> None:
    rows = mixture(2000, 0, metric)
    rows[1400:1500] = rows[7]
    _, result = search_with(rows, metric, 2).search(rows[7:8], 8)
    assert result[0].tolist() == [7, *range(1400, 1407)]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_rows(count: int) -> None:
    rows = mixture(count, 0, "cosine")
    cells = make_cells(rows, "cosine")
    tuning, measured = tune(rows, "cosine", cells, 0.9)
    assert NearRows(rows, "cosine", cells, tuning).search(rows, 1)[1][:, 0].tolist() == list(range(count))
    assert measured.mean == 1
    assert measured.at_least < 0.9


def test_no_queries_give_empty_results() -> None:
    rows = mixture(100, 0, "cosine")
    scores, result = search_with(rows, "cosine", 1).search(rows[:0], 3)
    assert scores.shape == result.shape == (0, 3)


@pytest.mark.parametrize("large", ["constant", "varying"])
def test_bytes_hold_vectors_of_which_a_few_values_are_large(large: str) -> None:
    X = np.random.default_rng(0).standard_normal((2200, 64))
    X[:, :2] = 20 + X[:, :2] if large == "constant" else 10 * X[:, :2]
    rows, queries = normalised(X[:2000]), normalised(X[2000:])
    cells = make_cells(rows, "cosine")
    near = nearest_cells(cells, padded(queries, "cosine"), cells.nlist)
    _, candidates = find_candidates(cells, padded(queries, "cosine"), 20, near)
    best = nearest_rows(queries, rows, 10, "cosine")[1]
    assert np.mean([np.isin(*pair).mean() for pair in zip(best, candidates, strict=True)]) > 0.97


def test_fewer_bits_find_fewer_rows_among_as_many_candidates() -> None:
    rows, queries = mixture(3000, 0, "cosine", dim=64), mixture(200, 1, "cosine", dim=64)
    expected = nearest_rows(queries, rows, 10, "cosine")[1]
    tuning = Tuning((10,), (40,), 1, NO_GATE)
    answers = [
        recall(NearRows(rows, "cosine", make_cells(rows, "cosine", bits), tuning).search(queries, 10)[1], expected)
        for bits in (4, 8)
    ]
    assert answers[0] < answers[1]


def test_unevenness_grows_as_rows_are_added_to_one_cell() -> None:
    rows = mixture(2000, 0, "cosine")
    cells = make_cells(rows, "cosine")
    before = unevenness(cells)
    assert 1 <= before < 3
    more = np.repeat(rows[:1], 4000, axis=0)
    add_rows(cells, more, np.arange(4000), np.arange(2000, 6000), "cosine")
    assert unevenness(cells) > 2 * before


def test_bound_is_below_one_without_a_miss_and_covers_the_mean() -> None:
    assert 0.99 < lower_bound(np.ones(1000)) < 0.998
    assert lower_bound(np.ones(30)) < 0.95
    rng = np.random.default_rng(0)
    shares = rng.binomial(10, 0.96, (400, 500)) / 10
    covered = np.mean([lower_bound(each) <= 0.96 for each in shares])
    assert covered >= 0.93


def test_largest_recall_that_may_be_asked_for_can_be_shown() -> None:
    perfect = lower_bound(np.ones(MOST_SAMPLE), Z * (1 + 2**0.5))
    assert perfect - 1e-5 < MOST_RECALL <= perfect
