"""Approximate k nearest neighbours: an inverted file whose reach is set by measured recall.

Rows are put into cells by k-means, and a query looks only into the cells nearest to it (Jegou et al., IEEE TPAMI 33,
2011, section IV). Queries are many here, so a cell takes all that look into it at once, in one matrix product; FAISS's
own inverted file goes query by query, waits for memory, and took four times as long on 100,000 x 512. float64 decides
among the candidates, as in `nearest_rows`. What is learned is two plain arrays and a number: they need no format of
their own on disk, and nothing is built anew on load.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpipe.neighbours.exact import BLOCK, Floats, Metric, Rows, Scores, as_scores, decide, nearest_rows, scale_of
from embedpipe.neighbours.threads import faiss_alone

#: Candidates beyond k, so that near ties at rank k do not depend on how float32 rounds them.
SPARE = 4
#: Rows a cell that k-means sees at most, and how often.
ROWS_A_CELL, ITERATIONS = 64, 8
#: Rows whose neighbours are looked up exactly to measure recall.
SAMPLE = 512
#: Queries that are searched together, at most.
QUERIES = 4096
#: Share of the cells from which on the exact way is taken, as it is the shorter one.
MOST = 0.5


@dataclass(frozen=True)
class Cells:
    """Which rows lie together.

    Attributes
    ----------
    centroids : float32 array (n_cells, dim)
    cell_of : int32 array (n_rows,)
        Each row's cell.
    probes : int
        How many cells a query looks into.
    """

    centroids: Floats
    cell_of: npt.NDArray[np.int32]
    probes: int


def make_cells(rows: Floats, k: int, metric: Metric, recall_target: float, n_jobs: int | None = None) -> Cells:
    """Put rows into cells, and find how many of them a query must look into.

    There are as many cells as the square root of the number of rows. Of `SAMPLE` rows the exact neighbours are looked
    up, and at which place the cell of each stands in the order of the cells' distances: the quantile of those places is
    the number of cells that holds the share ``recall_target`` of the neighbours. The same rows give the same cells.

    Parameters
    ----------
    rows : float32 array (n_rows, dim)
        Finite and, for ``cosine``, `normalised`.
    k : int
        Neighbours that recall is measured for.
    metric : str
        As for `nearest_rows`.
    recall_target : float
        Above 0, at most 1.
    n_jobs : int, optional
        Threads; see `faiss_alone`.

    Raises
    ------
    ValueError
        If squares of the values are beyond float32.
    """
    _check_scale(rows)
    count = len(rows)
    n_cells = max(1, round(count**0.5))
    limits = {"min_points_per_centroid": 1, "max_points_per_centroid": ROWS_A_CELL}
    with faiss_alone(n_jobs) as faiss:
        clustering = faiss.Kmeans(rows.shape[1], n_cells, niter=ITERATIONS, seed=0, **limits)
        clustering.train(rows)
        centroids = np.array(clustering.centroids, np.float32)
        _, cell_of = faiss.knn(rows, centroids, 1)
    cell_of = cell_of[:, 0].astype(np.int32)
    sample = np.sort(np.random.default_rng(0).choice(count, min(SAMPLE, count), replace=False))
    _, found = nearest_rows(rows[sample], rows, min(k + 1, count), metric, n_jobs)
    others = found != sample[:, None]
    if not others.any():
        return Cells(centroids, cell_of, 1)
    places = np.argsort(_nearest_cells(rows[sample], centroids, n_cells, n_jobs), axis=1)
    needed = np.take_along_axis(places, cell_of[found], axis=1)[others]
    return Cells(centroids, cell_of, 1 + int(np.quantile(needed, recall_target, method="higher")))


def near_rows(
    queries: Floats, rows: Floats, cells: Cells, k: int, metric: Metric, n_jobs: int | None = None
) -> tuple[Scores, Rows]:
    """Return the k nearest rows of each query within the cells nearest to it; see `nearest_rows` for what is returned.

    Queries whose cells hold fewer than k rows are looked up exactly.
    """
    if cells.probes > MOST * len(cells.centroids) or not len(queries):
        return nearest_rows(queries, rows, k, metric, n_jobs)
    _check_scale(queries)
    scores, found = np.empty((len(queries), k)), np.empty((len(queries), k), np.int64)
    members = np.argsort(cells.cell_of, kind="stable")
    ends = np.cumsum(np.bincount(cells.cell_of, minlength=len(cells.centroids)))
    by_cell = np.split(members, ends[:-1])
    wanted = min(k + SPARE, len(rows))
    step = min(QUERIES, max(1, 8 * BLOCK // (12 * cells.probes * wanted)))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        candidates = _candidates(queries[part], rows, cells, by_cell, wanted, metric, n_jobs)
        costs, ordered = decide(queries[part], rows, candidates, metric)
        scores[part], found[part] = as_scores(costs[:, :k], metric), ordered[:, :k]
    few = np.flatnonzero(found[:, -1] < 0)
    scores[few], found[few] = nearest_rows(queries[few], rows, k, metric, n_jobs)
    return scores, found


def _candidates(
    queries: Floats, rows: Floats, cells: Cells, by_cell: list[Rows], wanted: int, metric: Metric, n_jobs: int | None
) -> Rows:
    """Return the best rows by float32 scores, in no order, (n_queries, wanted); -1 where the cells hold fewer."""
    probed = _nearest_cells(queries, cells.centroids, cells.probes, n_jobs).ravel()
    looks = np.split(np.argsort(probed, kind="stable"), np.cumsum(np.bincount(probed, minlength=len(by_cell)))[:-1])
    best = np.full((len(probed), wanted), -np.inf, np.float32)
    who = np.full((len(probed), wanted), -1, np.int64)
    for cell, (members, all_pairs) in enumerate(zip(by_cell, looks, strict=True)):
        if not len(members) or not len(all_pairs):
            continue
        held = rows[members]
        for pairs in np.array_split(all_pairs, 1 + 4 * len(all_pairs) * len(members) // BLOCK):
            near = _closeness(queries[pairs // cells.probes], held, cells.centroids[cell], metric)
            top = _largest(near, wanted)
            best[pairs, : top.shape[1]] = np.take_along_axis(near, top, axis=1)
            who[pairs, : top.shape[1]] = members[top]
    best, who = best.reshape(len(queries), -1), who.reshape(len(queries), -1)
    return np.take_along_axis(who, _largest(best, wanted), axis=1)


def _closeness(queries: Floats, rows: Floats, centroid: Floats, metric: Metric) -> Floats:
    """Return cosines, or squared distances with a minus, float32 (n_queries, n_rows)."""
    if metric == "cosine":
        return queries @ rows.T
    # From the centroid on, as products of vectors far from the origin have no digits left for their differences.
    queries, rows = queries - centroid, rows - centroid
    squares = np.einsum("nd,nd->n", queries, queries)[:, None] + np.einsum("nd,nd->n", rows, rows)
    closeness: Floats = 2 * (queries @ rows.T) - squares
    return closeness


def _largest(scores: Floats, wanted: int) -> Rows:
    """Return the positions of the largest scores of each row, in no order; (n, at most wanted)."""
    count = scores.shape[1]
    if count <= wanted:
        return np.broadcast_to(np.arange(count), scores.shape)
    return np.argpartition(scores, count - wanted, axis=1)[:, count - wanted :]


def _nearest_cells(queries: Floats, centroids: Floats, count: int, n_jobs: int | None) -> Rows:
    with faiss_alone(n_jobs) as faiss:
        _, cells = faiss.knn(np.ascontiguousarray(queries), centroids, count)
    nearest: Rows = cells
    return nearest


def _check_scale(X: Floats) -> None:
    if scale_of(X) != 1:
        raise ValueError("approximate search squares in float32: scale X to values below 1e12, or search exactly")
