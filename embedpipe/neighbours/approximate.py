"""Approximate k nearest neighbours: cells propose candidates, float64 ranks them, and the recall is measured.

How many cells a query must search is chosen by the recall of some rows, the calibration rows, and measured again on
others. Queries unlike the rows need more cells than rows do: an index tuned to a recall of 0.95 on photographs of
clothes gave 0.70 for other photographs. So a query whose nearest centroid is farther away than that of nearly all
calibration rows is searched for among all rows, and so is every search within some rows, where probes chosen without
the filter found 0.3 of the neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe.neighbours.cells import centroid_costs, find_candidates, nearest_cells, padded
from embedpipe.neighbours.exact import (
    Floats,
    Metric,
    Rows,
    Scores,
    Vectors,
    costs_to_scores,
    nearest_rows,
    rank_candidates,
)

#: Maximum number of queries that are searched together.
QUERIES = 4096
#: So many queries, or more, are compared with all rows faster by exact search, which reads the rows once for all.
MANY_QUERIES = 16
#: A search within so many rows, or fewer, is exact.
FEW_ROWS = 1000


@dataclass(frozen=True)
class Tuning:
    """How a search uses the cells.

    Attributes
    ----------
    k : tuple of int
        Numbers of neighbours for which probes were chosen, ascending.
    probes : tuple of int
        Number of cells to search for each. For more neighbours than the last of ``k``, all cells are searched.
    candidates : int
        Number of candidates per neighbour.
    gate : float
        Cost of the nearest centroid above which a query is compared with all rows.
    """

    k: tuple[int, ...]
    probes: tuple[int, ...]
    candidates: int
    gate: float


class NearRows:
    """Approximate search of rows by their cells.

    Parameters
    ----------
    rows : float32 array (n_rows, dim), or a memory map
    metric : str
    cells : faiss.IndexIVFScalarQuantizer
        See `embedpipe.neighbours.cells.make_cells`.
    tuning : Tuning
    row_of : int64 array (n_keys,), optional
        The row of each key in the cells, -1 where it was removed. By default, keys are row numbers.
    loose : int64 array, optional
        Rows that are in no cell, ascending; they are compared with every query.
    """

    def __init__(
        self,
        rows: Vectors,
        metric: Metric,
        cells: Any,
        tuning: Tuning,
        row_of: Rows | None = None,
        loose: Rows | None = None,
    ) -> None:
        self.rows, self.metric, self.cells, self.tuning = rows, metric, cells, tuning
        self.row_of, self.loose = row_of, np.empty(0, np.int64) if loose is None else loose

    def search(
        self, queries: Floats, k: int, n_jobs: int | None = None, within: Rows | None = None
    ) -> tuple[Scores, Rows]:
        """Return k near rows of each query, with exact scores; see `nearest_rows` for the parameters.

        Queries for which copies of the row at rank k may have been missed are searched exactly, so that ties go to the
        lower row.
        """
        every = int(self.cells.nlist)
        probes = self._probes(k) if within is None else every
        few = within is not None and len(within) <= FEW_ROWS
        if few or not len(queries) or (probes == every and len(queries) >= MANY_QUERIES):
            return nearest_rows(queries, self.rows, k, self.metric, n_jobs, within=within)
        allowed = self._allowed(within)
        loose = self.loose if within is None else np.intersect1d(self.loose, within, assume_unique=True)
        scores, positions = np.empty((len(queries), k)), np.empty((len(queries), k), np.int64)
        for start in range(0, len(queries), QUERIES):
            part = slice(start, start + QUERIES)
            *found, sure = self._from_cells(queries[part], k, probes, allowed, n_jobs)
            if len(loose):
                others = nearest_rows(queries[part], self.rows, min(k, len(loose)), self.metric, n_jobs, within=loose)
                found = _merged(found, others, k, self.metric)
            scores[part], positions[part] = found
            if not sure.all():
                unsure = start + np.flatnonzero(~sure)
                exact = nearest_rows(queries[unsure], self.rows, k, self.metric, n_jobs, within=within)
                scores[unsure], positions[unsure] = exact
        return scores, positions

    def _from_cells(
        self, queries: Floats, k: int, probes: int, allowed: npt.NDArray[np.bool_] | None, n_jobs: int | None
    ) -> tuple[Scores, Rows, npt.NDArray[np.bool_]]:
        """Return scores, rows, and for which queries they are certain; the others must be searched exactly."""
        wide = padded(queries, self.metric)
        near = nearest_cells(self.cells, wide, probes, n_jobs)
        # One after the other, queries of a cell find its rows in the processor's cache.
        order = np.argsort(near[1][:, 0], kind="stable")
        queries, wide, near = queries[order], wide[order], (near[0][order], near[1][order])
        far = np.zeros(len(queries), bool)
        if probes < self.cells.nlist:
            far = centroid_costs(near, self.metric) > self.tuning.gate
        count = max(k, min(self.tuning.candidates * k, int(self.cells.ntotal)))
        rough, keys = find_candidates(self.cells, wide, count, near, allowed, n_jobs)
        if 0 < far.sum() < MANY_QUERIES:
            near = nearest_cells(self.cells, wide[far], self.cells.nlist, n_jobs)
            rough[far], keys[far] = find_candidates(self.cells, wide[far], count, near, allowed, n_jobs)
            far[:] = False
        candidates = keys if self.row_of is None else np.where(keys < 0, -1, self.row_of[keys])
        costs, ordered = rank_candidates(queries, self.rows, candidates, self.metric)
        place = (candidates == ordered[:, k - 1 : k]).argmax(axis=1)
        # Copies have the same rough cost: if that of rank k is the last candidate's too, there may be more of them.
        more = (np.take_along_axis(rough, place[:, None], 1)[:, 0] >= rough[:, -1]) & (candidates[:, -1] >= 0)
        sure = ~far & ~more & (ordered[:, k - 1] >= 0)
        back = np.argsort(order)
        return costs_to_scores(costs[back, :k], self.metric), ordered[back, :k], sure[back]

    def _probes(self, k: int) -> int:
        # A row of the store is its own neighbour, and one more was searched for when probes were chosen.
        chosen = [probes for size, probes in zip(self.tuning.k, self.tuning.probes, strict=True) if k <= size + 1]
        return chosen[0] if chosen else int(self.cells.nlist)

    @cached_property
    def _live(self) -> npt.NDArray[np.bool_] | None:
        """Which keys have a row, found once: it takes longer than the search of a query. None if all have."""
        live = None if self.row_of is None else self.row_of >= 0
        return None if live is None or live.all() else live

    def _allowed(self, within: Rows | None) -> npt.NDArray[np.bool_] | None:
        """Return which keys may be found; None for all."""
        if within is None:
            return self._live
        chosen = np.zeros(len(self.rows) + 1, bool)  # the last one stands for removed rows
        chosen[within] = True
        return chosen[: len(self.rows)] if self.row_of is None else chosen[self.row_of]


def _merged(some: Sequence[Any], others: Sequence[Any], k: int, metric: Metric) -> list[Any]:
    """Return the k best of two results for the same queries, scores and rows each."""
    scores, positions = (np.concatenate(pair, axis=1) for pair in zip(some, others, strict=True))
    order = np.lexsort((positions, scores if metric == "euclidean" else -scores), axis=1)[:, :k]
    return [np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)]
