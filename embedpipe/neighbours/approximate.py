"""Approximate k nearest neighbours: an inverted file whose number of probes is set by measured recall.

k-means divides the rows into cells, and a query searches only the cells nearest to it (Jegou et al., IEEE TPAMI 33,
2011, section IV). As there are many queries, each cell is searched for all its queries by one matrix product; FAISS's
inverted file searches query by query, waits for memory, and took four times as long on 100,000 x 512. Candidates are
ranked in float64, as in `nearest_rows`. An index is two arrays and a number, which any format stores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpipe.neighbours.exact import (
    BLOCK,
    Floats,
    Metric,
    Rows,
    Scores,
    costs_to_scores,
    float32_scale,
    nearest_rows,
    rank_candidates,
)
from embedpipe.neighbours.threads import faiss_alone

#: Number of candidates beyond k, so that float32 rounding does not decide near ties at rank k.
SPARE = 4
#: Maximum number of rows per cell in k-means, and its number of iterations.
ROWS_A_CELL, ITERATIONS = 64, 8
#: Number of rows whose exact neighbours are searched to measure recall.
SAMPLE = 512
#: Maximum number of queries that are searched together.
QUERIES = 4096
#: With more than this share of the cells to search, exact search is used, which is then faster.
MOST = 0.5


@dataclass(frozen=True)
class Cells:
    """The cells of an inverted file.

    Attributes
    ----------
    centroids : float32 array (n_cells, dim)
    cell_of : int32 array (n_rows,)
        The cell of each row.
    probes : int
        Number of cells that a query searches.
    """

    centroids: Floats
    cell_of: npt.NDArray[np.int32]
    probes: int


def make_cells(rows: Floats, k: int, metric: Metric, recall_target: float, n_jobs: int | None = None) -> Cells:
    """Divide rows into cells, and measure how many cells a query must search.

    The number of cells is the square root of the number of rows. For `SAMPLE` rows the exact neighbours are found, and
    the rank of each neighbour's cell by distance; the quantile ``recall_target`` of these ranks is the number of cells
    to search. The same rows give the same cells.

    Parameters
    ----------
    rows : float32 array (n_rows, dim)
        Finite and, for ``cosine``, `normalised`.
    k : int
        Number of neighbours for which recall is measured.
    metric : str
        As for `nearest_rows`.
    recall_target : float
        In (0, 1].
    n_jobs : int, optional
        Number of threads; see `faiss_alone`.

    Raises
    ------
    ValueError
        If squares of the values overflow float32.
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
    _, neighbours = nearest_rows(rows[sample], rows, min(k + 1, count), metric, n_jobs)
    others = neighbours != sample[:, None]
    if not others.any():
        return Cells(centroids, cell_of, 1)
    places = np.argsort(_nearest_cells(rows[sample], centroids, n_cells, n_jobs), axis=1)
    needed = np.take_along_axis(places, cell_of[neighbours], axis=1)[others]
    return Cells(centroids, cell_of, 1 + int(np.quantile(needed, recall_target, method="higher")))


def near_rows(
    queries: Floats, rows: Floats, cells: Cells, k: int, metric: Metric, n_jobs: int | None = None
) -> tuple[Scores, Rows]:
    """Return the k nearest rows of each query in the cells nearest to it; see `nearest_rows` for the results.

    Queries whose cells hold fewer than k rows are searched exactly.
    """
    if cells.probes > MOST * len(cells.centroids) or not len(queries):
        return nearest_rows(queries, rows, k, metric, n_jobs)
    _check_scale(queries)
    scores, positions = np.empty((len(queries), k)), np.empty((len(queries), k), np.int64)
    members = np.argsort(cells.cell_of, kind="stable")
    ends = np.cumsum(np.bincount(cells.cell_of, minlength=len(cells.centroids)))
    by_cell = np.split(members, ends[:-1])
    wanted = min(k + SPARE, len(rows))
    step = min(QUERIES, max(1, 8 * BLOCK // (12 * cells.probes * wanted)))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        candidates = _candidates(queries[part], rows, cells, by_cell, wanted, metric, n_jobs)
        costs, ordered = rank_candidates(queries[part], rows, candidates, metric)
        scores[part], positions[part] = costs_to_scores(costs[:, :k], metric), ordered[:, :k]
    too_few = np.flatnonzero(positions[:, -1] < 0)
    scores[too_few], positions[too_few] = nearest_rows(queries[too_few], rows, k, metric, n_jobs)
    return scores, positions


def _candidates(
    queries: Floats, rows: Floats, cells: Cells, by_cell: list[Rows], wanted: int, metric: Metric, n_jobs: int | None
) -> Rows:
    """Return the best rows by float32 score, unsorted, (n_queries, wanted); padded with -1."""
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
    """Return cosines or negative squared distances, float32 (n_queries, n_rows)."""
    if metric == "cosine":
        return queries @ rows.T
    # Relative to the centroid: products of vectors far from the origin lose the digits of their differences.
    queries, rows = queries - centroid, rows - centroid
    squares = np.einsum("nd,nd->n", queries, queries)[:, None] + np.einsum("nd,nd->n", rows, rows)
    closeness: Floats = 2 * (queries @ rows.T) - squares
    return closeness


def _largest(scores: Floats, wanted: int) -> Rows:
    """Return the positions of the largest scores of each row, unsorted, (n, at most wanted)."""
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
    if float32_scale(X) != 1:
        raise ValueError("approximate search needs values below 1e12: scale X, or search exactly (recall_target=1)")
