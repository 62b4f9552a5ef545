"""The graph of `clean` is made once for the same vectors, and again for others or where the file is damaged."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from embedpipe.cleaning import graph_cache
from embedpipe.cleaning.graph_cache import kept_graph
from embedpipe.neighbours.exact import normalised
from embedpipe.neighbours.graph import neighbour_graph


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_cache, "LEAST_ROWS", 50)


def searched(Z: np.ndarray, k: int) -> int:
    """Return the number of rows that were searched for, and check the graph."""
    counts: list[int] = []
    graph, expected = kept_graph(Z, k, counts.append), neighbour_graph(Z, k)
    np.testing.assert_array_equal(graph.positions, expected.positions)
    np.testing.assert_array_equal(graph.scores, expected.scores)
    assert graph.positions.dtype == np.int64
    assert graph.recall == expected.recall
    return sum(counts)


@pytest.mark.usefixtures("few")
def test_a_graph_is_made_once_for_the_same_vectors() -> None:
    Z = normalised(np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32))
    assert [searched(Z, 3), searched(Z, 3), searched(Z, 4)] == [60, 0, 60]
    changed = Z.copy()
    changed[-1, 0] += 0.5
    assert searched(changed, 3) == 60
    (folder,) = Path(os.environ["EMBEDPIPE_CACHE"]).iterdir()
    assert folder.name == "graphs"
    assert len([*folder.iterdir()]) == 3
    for file in folder.iterdir():
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    assert [searched(Z, 3), searched(Z, 3)] == [60, 0]


def test_small_graphs_are_not_kept() -> None:
    Z = normalised(np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32))
    assert [searched(Z, 3), searched(Z, 3)] == [60, 60]
