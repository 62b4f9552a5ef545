"""Approximate against exact neighbours: recall, exact scores, reproducibility."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embedpipe.neighbours import Cells, make_cells, near_rows, nearest_rows, normalised
from embedpipe.neighbours.exact import METRICS, Metric


def mixture(rows: int, seed: int, metric: Metric, dim: int = 16) -> npt.NDArray[np.float32]:
    """Return rows around 60 fixed centres, far from the origin for the euclidean metric."""
    rng = np.random.default_rng(seed)
    X = np.random.default_rng(9).standard_normal((60, dim))[rng.integers(0, 60, rows)]
    X = X + 0.4 * rng.standard_normal((rows, dim))
    return normalised(X) if metric == "cosine" else (X + 30).astype(np.float32)


def recall(result: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Return the share of the expected rows that were found."""
    return sum(len(np.intersect1d(*pair)) for pair in zip(result, expected, strict=True)) / result.size


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("target", [0.8, 0.95])
def test_recall_reaches_the_target(metric: Metric, target: float) -> None:
    rows, queries = mixture(4000, 0, metric), mixture(500, 1, metric)
    cells = make_cells(rows, 10, metric, target)
    assert cells.probes < len(cells.centroids) / 2
    scores, result = near_rows(queries, rows, cells, 10, metric)
    expected_scores, expected = nearest_rows(queries, rows, 10, metric)
    assert recall(result, expected) >= target - 0.03
    # Rows that both searches find have the same score and order.
    for row in range(len(queries)):
        _, ours, theirs = np.intersect1d(result[row], expected[row], return_indices=True)
        assert (scores[row, ours] == expected_scores[row, theirs]).all()
    assert (np.diff(scores if metric == "euclidean" else -scores, axis=1) >= 0).all()
    assert all(len(set(row)) == 10 for row in result.tolist())


@pytest.mark.parametrize("metric", METRICS)
def test_more_probes_find_more_and_all_cells_are_exact(metric: Metric) -> None:
    rows, queries = mixture(2000, 0, metric), mixture(200, 1, metric)
    expected_scores, expected = nearest_rows(queries, rows, 10, metric)
    cells = [make_cells(rows, 10, metric, target) for target in (0.5, 0.9, 0.999, 1.0)]
    assert [each.probes for each in cells] == sorted(each.probes for each in cells)
    shares = [recall(near_rows(queries, rows, each, 10, metric)[1], expected) for each in cells]
    assert shares == sorted(shares)
    everywhere = Cells(cells[0].centroids, cells[0].cell_of, len(cells[0].centroids))
    scores, result = near_rows(queries, rows, everywhere, 10, metric)
    assert (result == expected).all()
    assert (scores == expected_scores).all()


def test_results_are_reproducible_and_independent_of_the_batch() -> None:
    rows, queries = mixture(3000, 0, "cosine"), mixture(100, 1, "cosine")
    first, second = (make_cells(rows, 10, "cosine", 0.9) for _ in range(2))
    assert (first.centroids == second.centroids).all()
    assert (first.cell_of == second.cell_of).all()
    assert first.probes == second.probes
    scores, result = near_rows(queries, rows, first, 10, "cosine")
    for at in (0, 41, 99):
        one_score, each = near_rows(queries[at : at + 1], rows, first, 10, "cosine")
        assert (each[0] == result[at]).all()
        assert (one_score[0] == scores[at]).all()


def test_queries_with_too_few_candidates_are_searched_exactly() -> None:
    rows, queries = mixture(2000, 0, "cosine"), mixture(50, 1, "cosine")
    made = make_cells(rows, 5, "cosine", 0.5)
    one_cell = Cells(made.centroids, made.cell_of, 1)
    assert np.bincount(made.cell_of).max() < 500
    _, result = near_rows(queries, rows, one_cell, 500, "cosine")
    assert (result == nearest_rows(queries, rows, 500, "cosine")[1]).all()


@pytest.mark.parametrize("metric", METRICS)
def test_copies_are_in_row_order(metric: Metric) -> None:
    rows = mixture(2000, 0, metric)
    rows[1500:1510] = rows[7]
    cells = make_cells(rows, 5, metric, 0.9)
    _, result = near_rows(rows[7:8], rows, cells, 8, metric)
    assert result[0].tolist() == [7, *range(1500, 1507)]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_rows(count: int) -> None:
    rows = mixture(count, 0, "cosine")
    cells = make_cells(rows, 1, "cosine", 0.9)
    assert near_rows(rows, rows, cells, 1, "cosine")[1][:, 0].tolist() == list(range(count))


def test_values_whose_squares_are_beyond_float32_are_refused() -> None:
    with pytest.raises(ValueError, match="search exactly"):
        make_cells(np.full((10, 2), 1e30, np.float32), 1, "euclidean", 0.9)


def test_no_queries_give_empty_results() -> None:
    rows = mixture(100, 0, "cosine")
    scores, result = near_rows(rows[:0], rows, make_cells(rows, 3, "cosine", 0.9), 3, "cosine")
    assert scores.shape == result.shape == (0, 3)
