"""The nearest rows of every row: exactly for few rows, else approximately, with the recall measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from embedpipe.neighbours.approximate import NearRows
from embedpipe.neighbours.cells import make_cells
from embedpipe.neighbours.exact import (
    Floats,
    Metric,
    Rows,
    Scores,
    Vectors,
    nearest_rows,
    normalised,
    without_itself,
)
from embedpipe.neighbours.tuning import Recall, tune

#: For so many rows, or fewer, comparing all of them takes less time than dividing them into cells.
EXACT_ROWS = 30_000
#: Lower bound of the share of neighbours to find among more rows.
RECALL = 0.97
#: Number of rows whose neighbours are searched together.
QUERIES = 8192


@dataclass(frozen=True)
class Graph:
    """The nearest rows of every row, itself left out.

    Attributes
    ----------
    scores : float64 array (n_rows, k)
        Similarities or distances, best first.
    positions : int64 array (n_rows, k)
        Row numbers.
    recall : Recall
        Measured share of the k nearest rows that were found; 1 if all rows were compared.
    """

    scores: Scores
    positions: Rows
    recall: Recall


class RowSearch:
    """Search for the neighbours of rows among all rows.

    Parameters
    ----------
    vectors : float32 array (n_rows, dim), or a memory map
    k : int
        Number of neighbours for which the recall is chosen and measured, below ``n_rows``.
    metric : str
    n_jobs : int, optional
        Number of threads; see `faiss_alone`.

    Attributes
    ----------
    recall : Recall
    """

    def __init__(self, vectors: Vectors, k: int, metric: Metric = "cosine", n_jobs: int | None = None) -> None:
        self.vectors, self.metric, self.n_jobs = vectors, metric, n_jobs
        self.recall = Recall(k, 1.0, 1.0, 0)
        self._near: NearRows | None = None
        if len(vectors) > EXACT_ROWS:
            cells = make_cells(vectors, metric, n_jobs=n_jobs)
            tuning, self.recall = tune(vectors, metric, cells, RECALL, (k,), n_jobs)
            self._near = NearRows(vectors, metric, cells, tuning)

    def neighbours(self, rows: Rows, k: int) -> tuple[Scores, Rows]:
        """Return scores and row numbers of the k nearest other rows of each row, (n, k); ties go to the lower row."""
        return without_itself(*self.nearest(np.asarray(self.vectors[rows], np.float32), k + 1), rows)

    def nearest(self, queries: Floats, k: int) -> tuple[Scores, Rows]:
        """Return scores and row numbers of the k nearest rows of each query, (n, k); the recall is that of rows."""
        queries = normalised(queries) if self.metric == "cosine" else queries
        if self._near is None:
            return nearest_rows(queries, self.vectors, k, self.metric, self.n_jobs)
        return self._near.search(queries, k, self.n_jobs)


def neighbour_graph(
    vectors: Vectors,
    k: int,
    metric: Metric = "cosine",
    n_jobs: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> Graph:
    """Return the k nearest other rows of every row.

    Parameters
    ----------
    vectors : float32 array (n_rows, dim), or a memory map
        Finite. A row of zeros has cosine 0 with every other.
    k : int
        Below ``n_rows``.
    metric : str
        ``cosine``: scores are similarities. ``euclidean``: scores are distances.
    n_jobs : int, optional
        Number of threads; see `faiss_alone`.
    advance : callable, optional
        Is called with the number of rows that are finished, for a bar of progress.

    Raises
    ------
    ValueError
        If ``k`` is not in [1, n_rows).

    Examples
    --------
    >>> import numpy as np
    >>> from embedpipe.neighbours.graph import neighbour_graph
    >>> graph = neighbour_graph(np.float32([[1, 0], [0, 1], [1, 0.1]]), k=1)
    >>> graph.positions[:, 0].tolist(), graph.recall.mean
    ([2, 2, 0], 1.0)
    """
    count = len(vectors)
    if not 1 <= k < count:
        raise ValueError(f"k must be at least 1 and below the number of rows, {count}, got {k}")
    search = RowSearch(vectors, k, metric, n_jobs)
    scores, positions = np.empty((count, k)), np.empty((count, k), np.int64)
    for start in range(0, count, QUERIES):
        rows = np.arange(start, min(start + QUERIES, count))
        scores[rows], positions[rows] = search.neighbours(rows, k)
        if advance is not None:
            advance(len(rows))
    return Graph(scores, positions, search.recall)
