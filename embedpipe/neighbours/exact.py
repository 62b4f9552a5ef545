"""Exact k nearest neighbours: FAISS proposes candidates in float32, float64 ranks them, ties go to the lower row.

FAISS sums in a different order for few queries than for many, so that its scores differ in the last digits and near
ties are broken at random. Here, the score of a pair does not depend on the other queries of a call.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from embedpipe.neighbours.threads import faiss_alone

Metric = Literal["cosine", "euclidean"]
METRICS = get_args(Metric)

Floats = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

#: Number of candidates beyond k, to find near ties at rank k.
SPARE_CANDIDATES = 24
#: Bytes of a block of rows or scores.
BLOCK = 1 << 23


def normalised(X: npt.NDArray[Any], out: Floats | None = None) -> Floats:
    """Return rows scaled to unit length as float32; rows of zeros are not changed.

    Parameters
    ----------
    X : array (n_samples, dim)
    out : float32 array (n_samples, dim), optional
        Output array; may be ``X`` itself.
    """
    out = np.empty(X.shape, np.float32) if out is None else out
    step = max(1, BLOCK // (8 * X.shape[1]))
    for start in range(0, len(X), step):
        block = np.asarray(X[start : start + step], np.float64)
        # Divide by the largest value first, so that squares neither overflow nor underflow.
        block = block / np.maximum(np.abs(block).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        norms = np.sqrt(np.einsum("nd,nd->n", block, block))
        out[start : start + step] = block / np.where(norms > 0, norms, 1)[:, None]
    return out


def nearest_rows(
    queries: Floats, rows: Floats, k: int, metric: Metric, n_jobs: int | None = None
) -> tuple[Scores, Rows]:
    """Return the k nearest rows of each query, best first; ties go to the lower row.

    Parameters
    ----------
    queries : float32 array (n_queries, dim)
    rows : float32 array (n_rows, dim)
        Both arrays are finite and, for ``cosine``, `normalised`.
    k : int
        At most ``n_rows``.
    metric : str
        ``cosine``: scores are similarities. ``euclidean``: scores are distances.
    n_jobs : int, optional
        Number of threads; see `faiss_alone`.

    Returns
    -------
    scores : float64 array (n_queries, k)
    positions : int64 array (n_queries, k)
        Row numbers.
    """
    scores = np.empty((len(queries), k))
    positions = np.empty((len(queries), k), np.int64)
    if not scores.size:
        return scores, positions
    queries, rows = np.ascontiguousarray(queries, np.float32), np.ascontiguousarray(rows, np.float32)
    spare = min(k + SPARE_CANDIDATES, len(rows))
    scale = 1.0 if metric == "cosine" else float32_scale(queries, rows)
    with faiss_alone(n_jobs) as faiss:
        kind = faiss.METRIC_INNER_PRODUCT if metric == "cosine" else faiss.METRIC_L2
        scaled = [X if scale == 1 else X * np.float32(scale) for X in (queries, rows)]
        _, candidates = faiss.knn(*scaled, spare, metric=kind)
    del scaled
    costs, ordered = rank_candidates(queries, rows, candidates, metric)
    scores[:], positions[:] = costs[:, :k], ordered[:, :k]
    if spare < len(rows):
        # The rows that FAISS left out are no better than its worst candidate, up to float32 rounding.
        error = _rounding(queries, rows, metric, scale)
        unsure = np.flatnonzero(costs[:, -1] - costs[:, k - 1] <= 2 * error).tolist()
        _resolve_near_ties(unsure, queries, rows, metric, error, scores, positions)
    return costs_to_scores(scores, metric), positions


def rank_candidates(queries: Floats, rows: Floats, candidates: Rows, metric: Metric) -> tuple[Scores, Rows]:
    """Sort the candidates of each query by float64 cost, then by row.

    Parameters
    ----------
    queries, rows : float32 array (n, dim)
    candidates : int64 array (n_queries, n_candidates)
        Row numbers; negative numbers are padding and come last.
    metric : str

    Returns
    -------
    costs : float64 array (n_queries, n_candidates)
        Squared distances, or negative similarities; infinite for padding.
    ordered : int64 array (n_queries, n_candidates)
    """
    costs = np.empty(candidates.shape)
    step = max(1, BLOCK // (8 * candidates.shape[1] * queries.shape[1]))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        costs[part] = _costs(queries[part], rows, candidates[part], metric)
    costs[candidates < 0] = np.inf
    order = np.lexsort((candidates, costs), axis=1)
    return np.take_along_axis(costs, order, 1), np.take_along_axis(candidates, order, 1)


def costs_to_scores(costs: Scores, metric: Metric) -> Scores:
    """Convert costs of `rank_candidates` to distances or similarities."""
    return np.sqrt(costs) if metric == "euclidean" else -costs


def _costs(queries: Floats, rows: Floats, candidates: Rows, metric: Metric) -> Scores:
    """Return squared distances or negative similarities, (n_queries, n_candidates)."""
    selected = rows[candidates].astype(np.float64)
    if metric == "cosine":
        costs: Scores = -np.einsum("qcd,qd->qc", selected, queries.astype(np.float64))
    else:
        selected -= queries.astype(np.float64)[:, None]
        costs = np.einsum("qcd,qcd->qc", selected, selected)
    return costs


def float32_scale(*arrays: Floats) -> float:
    """Return a power of two that keeps squares within float32; 1 for values between 1e-12 and 1e12."""
    largest = max(float(np.abs(part).max()) for X in arrays for part in np.array_split(X, 1 + X.nbytes // BLOCK))
    return 1.0 if 1e-12 < largest < 1e12 or not largest else 2.0 ** -np.floor(np.log2(largest))


def _rounding(queries: Floats, rows: Floats, metric: Metric, scale: float) -> Scores:
    """Return an error bound of FAISS's float32 scores for each query, in the unit of the costs.

    The error of an inner product of ``dim`` terms is at most ``dim * u * |q| * |x|`` in any order of summation
    (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1).
    """
    u = np.finfo(np.float32).eps / 2 * (queries.shape[1] + 4)
    if metric == "cosine":
        return np.full(len(queries), 1.01 * u)
    longest = np.sqrt(_squares(rows).max())
    underflow = queries.shape[1] * float(np.finfo(np.float32).tiny) / scale**2
    error: Scores = u * (np.sqrt(_squares(queries)) + longest) ** 2 + underflow
    return error


def _squares(X: Floats) -> Scores:
    squares: Scores = np.einsum("nd,nd->n", X, X, dtype=np.float64)
    return squares


def _resolve_near_ties(
    unsure: list[int], queries: Floats, rows: Floats, metric: Metric, error: Scores, scores: Scores, positions: Rows
) -> None:
    """Search all rows again for queries with many near ties at rank k, such as copies; update the results in place."""
    k = scores.shape[1]
    step = max(1, BLOCK // (8 * len(rows)))
    for start in range(0, len(unsure), step):
        part = unsure[start : start + step]
        approximate = np.concatenate(
            [_all_costs(queries[part], block, metric) for block in np.array_split(rows, 1 + 2 * rows.nbytes // BLOCK)],
            axis=1,
        )
        for at, query in enumerate(part):
            tied = np.flatnonzero(approximate[at] <= scores[query, -1] + 2 * error[query])
            costs = np.concatenate(
                [
                    _costs(queries[query : query + 1], rows, block[None], metric)[0]
                    for block in np.array_split(tied, 1 + len(tied) * queries.shape[1] * 8 // BLOCK)
                ]
            )
            best = np.lexsort((tied, costs))[:k]
            scores[query], positions[query] = costs[best], tied[best]


def _all_costs(queries: Floats, rows: Floats, metric: Metric) -> Scores:
    """Return the costs of all pairs, (n_queries, n_rows), by one float64 product: less exact than `_costs`."""
    products: Scores = queries.astype(np.float64) @ rows.T.astype(np.float64)
    return -products if metric == "cosine" else _squares(queries)[:, None] + _squares(rows) - 2 * products
