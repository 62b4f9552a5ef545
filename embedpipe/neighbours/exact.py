"""Exact k nearest neighbours: FAISS proposes candidates in float32, float64 ranks them, ties go to the lower row.

FAISS sums in a different order for few queries than for many, so that its scores differ in the last digits and near
ties are broken at random. Here, the score of a pair does not depend on the other queries of a call. Rows are read in
blocks, so they may lie in a memory map that is larger than the memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Protocol, get_args

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
#: Bytes of a block of float64 values that are computed at a time.
BLOCK = 1 << 23
#: Bytes of the float64 values of candidates that are ranked at a time: what the processor's cache holds.
RANK_BLOCK = 1 << 20
#: Bytes of a block of rows that FAISS compares with the queries at a time.
ROW_BLOCK = 1 << 25
#: Lengths of vectors whose squares and inverses float32 holds.
SAFE_LENGTHS = (1e-15, 1e15)


class Vectors(Protocol):
    """Rows to search in: a float32 array (n_rows, dim), or a memory map that gives such arrays when it is indexed."""

    @property
    def shape(self) -> tuple[Any, ...]:
        """Number of rows, and their length."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Any: ...


def normalised(X: npt.NDArray[Any] | Vectors, out: Floats | None = None) -> Floats:
    """Return rows scaled to unit length as float32; rows of zeros are not changed.

    Parameters
    ----------
    X : array (n_samples, dim), or a memory map
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


def unit_rows(X: Floats) -> Floats:
    """Return rows scaled to unit length in float32: faster than `normalised`, and less exact. Zeros stay zeros."""
    with np.errstate(over="ignore", under="ignore"):
        lengths = np.sqrt(np.einsum("nd,nd->n", X, X))
    if not ((lengths > SAFE_LENGTHS[0]) & (lengths < SAFE_LENGTHS[1])).all():
        return normalised(X)
    if np.abs(lengths - 1).max(initial=0) < 1e-6:
        return X
    scaled: Floats = X / lengths[:, None]
    return scaled


def row_blocks(rows: Vectors, within: Rows | None = None) -> Iterator[tuple[Rows | slice, Floats]]:
    """Yield rows, or those at the positions ``within``, in blocks: which rows they are, and their values."""
    count = len(rows) if within is None else len(within)
    step = max(1, ROW_BLOCK // (4 * rows.shape[1]))
    for start in range(0, count, step):
        part = slice(start, min(start + step, count))
        which = part if within is None else within[part]
        yield which, np.ascontiguousarray(rows[which], np.float32)


def nearest_rows(
    queries: Floats,
    rows: Vectors,
    k: int,
    metric: Metric,
    n_jobs: int | None = None,
    *,
    within: Rows | None = None,
) -> tuple[Scores, Rows]:
    """Return the k nearest rows of each query, best first; ties go to the lower row.

    Parameters
    ----------
    queries : float32 array (n_queries, dim)
        For ``cosine``, `normalised`.
    rows : float32 array (n_rows, dim), or a memory map
        Finite. A row of zeros has cosine 0 with every query.
    k : int
        At most the number of rows to search in.
    metric : str
        ``cosine``: scores are similarities. ``euclidean``: scores are distances.
    n_jobs : int, optional
        Number of threads; see `faiss_alone`.
    within : int64 array, optional
        Positions of the rows to search in, ascending. All rows by default.

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
    queries = np.ascontiguousarray(queries, np.float32)
    count = len(rows) if within is None else len(within)
    spare = min(k + SPARE_CANDIDATES, count)
    scale = 1.0 if metric == "cosine" else float32_scale(queries, rows, within)
    candidates, longest = _propose(queries, rows, spare, metric, scale, n_jobs, within)
    costs, ordered = rank_candidates(queries, rows, candidates, metric)
    scores[:], positions[:] = costs[:, :k], ordered[:, :k]
    if spare < count:
        # The rows that FAISS left out are no better than its worst candidate, up to float32 rounding.
        error = _rounding(queries, longest, metric, scale)
        unsure = np.flatnonzero(costs[:, -1] - costs[:, k - 1] <= 2 * error)
        _resolve_near_ties(unsure, queries, rows, metric, error, scores, positions, within)
    return costs_to_scores(scores, metric), positions


def _propose(
    queries: Floats, rows: Vectors, count: int, metric: Metric, scale: float, n_jobs: int | None, within: Rows | None
) -> tuple[Rows, float]:
    """Return the best rows by float32 score, (n_queries, count), and the length of the longest row."""
    best = np.empty((len(queries), 0), np.float32)
    who = np.empty((len(queries), 0), np.int64)
    longest = 0.0
    scaled = queries if scale == 1 else queries * np.float32(scale)
    for which, values in row_blocks(rows, within):
        if metric == "cosine":
            block = unit_rows(values)
        else:
            block = values if scale == 1 else values * np.float32(scale)
            longest = max(longest, float(np.sqrt(_squares(values).max())))
        with faiss_alone(n_jobs) as faiss:
            kind = faiss.METRIC_INNER_PRODUCT if metric == "cosine" else faiss.METRIC_L2
            costs, places = faiss.knn(scaled, block, min(count, len(block)), metric=kind)
        costs = -costs if metric == "cosine" else costs
        found = places + which.start if isinstance(which, slice) else which[places]
        best, who = np.concatenate([best, costs], axis=1), np.concatenate([who, found], axis=1)
        if best.shape[1] > count:
            chosen = np.argpartition(best, count - 1, axis=1)[:, :count]
            best, who = np.take_along_axis(best, chosen, 1), np.take_along_axis(who, chosen, 1)
    return who, longest


def rank_candidates(queries: Floats, rows: Vectors, candidates: Rows, metric: Metric) -> tuple[Scores, Rows]:
    """Sort the candidates of each query by float64 cost, then by row.

    Parameters
    ----------
    queries : float32 array (n_queries, dim)
    rows : float32 array (n_rows, dim), or a memory map
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
    step = max(1, RANK_BLOCK // (8 * max(1, candidates.shape[1]) * queries.shape[1]))
    room = np.empty((min(step, len(queries)) * candidates.shape[1], queries.shape[1]))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        costs[part] = _costs(queries[part], rows, candidates[part], metric, room)
    costs[candidates < 0] = np.inf
    order = np.lexsort((candidates, costs), axis=1)
    return np.take_along_axis(costs, order, 1), np.take_along_axis(candidates, order, 1)


def costs_to_scores(costs: Scores, metric: Metric) -> Scores:
    """Convert costs of `rank_candidates` to distances or similarities."""
    return np.sqrt(costs) if metric == "euclidean" else -costs


def without_itself(scores: Scores, positions: Rows, own: Rows) -> tuple[Scores, Rows]:
    """Drop each query's own row from its k + 1 nearest rows. If k + 1 copies come first, the last one is dropped."""
    itself = positions == own[:, None]
    itself[~itself.any(axis=1), -1] = True
    return scores[~itself].reshape(len(own), -1), positions[~itself].reshape(len(own), -1)


def _costs(queries: Floats, rows: Vectors, candidates: Rows, metric: Metric, room: Scores | None = None) -> Scores:
    """Return squared distances or negative similarities, (n_queries, n_candidates).

    ``room`` is memory for the candidates, which is used again: fresh memory takes as long as the products.
    """
    room = np.empty((candidates.size, queries.shape[1])) if room is None else room[: candidates.size]
    np.copyto(room, rows[candidates.reshape(-1)])
    selected, wide = room.reshape(*candidates.shape, -1), queries.astype(np.float64)
    if metric == "cosine":
        products = np.einsum("qcd,qd->qc", selected, wide)
        squares = np.einsum("qcd,qcd->qc", selected, selected) * np.einsum("qd,qd->q", wide, wide)[:, None]
        costs: Scores = -np.divide(products, np.sqrt(squares), out=np.zeros_like(products), where=squares > 0)
        return np.clip(costs, -1, 1, out=costs)
    selected -= wide[:, None]
    distances: Scores = np.einsum("qcd,qcd->qc", selected, selected)
    return distances


def float32_scale(queries: Floats, rows: Vectors, within: Rows | None = None) -> float:
    """Return a power of two that keeps squares within float32; 1 for values between 1e-12 and 1e12."""
    largest = float(np.abs(queries).max(initial=0))
    for _, block in row_blocks(rows, within):
        largest = max(largest, float(block.max()), -float(block.min()))
    return 1.0 if 1e-12 < largest < 1e12 or not largest else 2.0 ** -np.floor(np.log2(largest))


def _rounding(queries: Floats, longest: float, metric: Metric, scale: float) -> Scores:
    """Return an error bound of FAISS's float32 scores for each query, in the unit of the costs.

    The error of an inner product of ``dim`` terms is at most ``dim * u * |q| * |x|`` in any order of summation
    (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1). The length by which `unit_rows` divides
    has half of that as its relative error.
    """
    u = np.finfo(np.float32).eps / 2
    if metric == "cosine":
        return np.full(len(queries), 1.01 * u * (1.5 * queries.shape[1] + 8))
    underflow = queries.shape[1] * float(np.finfo(np.float32).tiny) / scale**2
    error: Scores = u * (queries.shape[1] + 4) * (np.sqrt(_squares(queries)) + longest) ** 2 + underflow
    return error


def _squares(X: Floats) -> Scores:
    squares: Scores = np.einsum("nd,nd->n", X, X, dtype=np.float64)
    return squares


def _resolve_near_ties(
    unsure: Rows,
    queries: Floats,
    rows: Vectors,
    metric: Metric,
    error: Scores,
    scores: Scores,
    positions: Rows,
    within: Rows | None,
) -> None:
    """Search all rows again for queries with many near ties at rank k, such as copies; update the results in place."""
    k = scores.shape[1]
    step = max(1, BLOCK // (8 * max(1, ROW_BLOCK // (4 * rows.shape[1]))))
    for start in range(0, len(unsure), step):
        part = unsure[start : start + step]
        tied: list[list[Rows]] = [[] for _ in part]
        for which, block in row_blocks(rows, within):
            near = _all_costs(queries[part], block, metric) <= (scores[part, -1] + 2 * error[part])[:, None]
            numbers = np.arange(which.start, which.stop) if isinstance(which, slice) else which
            for at in np.flatnonzero(near.any(axis=1)):
                tied[at].append(numbers[near[at]])
        for query, parts in zip(part, tied, strict=True):
            candidates = np.concatenate(parts)
            pieces = np.array_split(candidates, 1 + len(candidates) * rows.shape[1] * 8 // BLOCK)
            costs = np.concatenate([_costs(queries[query : query + 1], rows, each[None], metric)[0] for each in pieces])
            best = np.lexsort((candidates, costs))[:k]
            scores[query], positions[query] = costs[best], candidates[best]


def _all_costs(queries: Floats, block: Floats, metric: Metric) -> Scores:
    """Return the costs of all pairs, (n_queries, n_rows), by one float64 product: less exact than `_costs`."""
    rows = (unit_rows(block) if metric == "cosine" else block).astype(np.float64)
    products: Scores = queries.astype(np.float64) @ rows.T
    if metric == "cosine":
        return -products
    costs: Scores = _squares(queries)[:, None] + np.einsum("nd,nd->n", rows, rows) - 2 * products
    return costs
