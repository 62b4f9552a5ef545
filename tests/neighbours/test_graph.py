"""The nearest rows of every row, and near-duplicates that are found by them."""

from __future__ import annotations

from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest

from embedpipe.neighbours import duplicates, graph, neighbour_graph, normalised
from embedpipe.neighbours.duplicates import near_duplicate_groups
from embedpipe.neighbours.exact import METRICS, Metric


def mixture(rows: int, seed: int) -> npt.NDArray[np.float32]:
    """Return rows around 60 fixed centres, of several lengths."""
    rng = np.random.default_rng(seed)
    X = np.random.default_rng(9).standard_normal((60, 13))[rng.integers(0, 60, rows)]
    return ((X + 0.4 * rng.standard_normal((rows, 13))) * rng.uniform(1, 2, (rows, 1))).astype(np.float32)


@pytest.mark.parametrize("metric", METRICS)
def test_graph_of_few_rows_is_exact(metric: Metric) -> None:
    X = mixture(300, 0)
    X[200:240] = X[7]
    neighbours = neighbour_graph(X, 5, metric)
    Z = normalised(X).astype(np.float64) if metric == "cosine" else X.astype(np.float64)
    costs = -Z @ Z.T if metric == "cosine" else np.linalg.norm(Z[:, None] - Z, axis=2)
    np.fill_diagonal(costs, np.inf)
    expected = np.sort(costs, axis=1)[:, :5]
    np.testing.assert_allclose(neighbours.scores, -expected if metric == "cosine" else expected, atol=1e-6)
    assert (neighbours.positions != np.arange(300)[:, None]).all()
    assert neighbours.positions[7].tolist() == [200, 201, 202, 203, 204]
    assert (neighbours.recall.mean, neighbours.recall.rows) == (1, 0)


def test_graph_of_many_rows_has_the_recall_that_it_measured() -> None:
    X = mixture(3000, 0)
    exact = neighbour_graph(X, 10)
    with mock.patch.object(graph, "EXACT_ROWS", 1000):
        neighbours = neighbour_graph(X, 10)
    share = (neighbours.scores >= exact.scores[:, -1:] - 1e-12).mean()
    assert 0.97 <= neighbours.recall.at_least < neighbours.recall.mean
    assert abs(share - neighbours.recall.mean) < 0.02
    assert (neighbours.positions != np.arange(3000)[:, None]).all()


@pytest.mark.parametrize("k", [0, 5])
def test_k_must_be_below_the_number_of_rows(k: int) -> None:
    with pytest.raises(ValueError, match="k must be at least 1 and below the number of rows, 5"):
        neighbour_graph(mixture(5, 0), k)


def test_near_duplicates_of_many_rows_are_those_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    X = mixture(1500, 0)
    copies = rng.choice(1500, 400, replace=False)
    X[copies[200:]] = X[copies[:200]] + 0.1 * rng.standard_normal((200, 13)).astype(np.float32)
    crowd = rng.choice(1500, 60, replace=False)  # more near-duplicates than neighbours are searched for at first
    X[crowd] = X[crowd[0]] + 0.02 * rng.standard_normal((60, 13)).astype(np.float32)
    expected = near_duplicate_groups(X, 0.98)
    with mock.patch.object(duplicates, "ALL_PAIRS", 0), mock.patch.object(graph, "EXACT_ROWS", 500):
        groups = near_duplicate_groups(X, 0.98)
    assert expected.max() < 1300
    same = (expected[:, None] == expected) == (groups[:, None] == groups)
    assert same.mean() > 0.9999
