"""Cells: an inverted file of FAISS whose rows are one byte per value, from which candidates are drawn.

k-means divides the rows into cells, and a query searches only the cells nearest to it (Jegou et al., IEEE TPAMI 33,
2011, section IV). By cosine a value is stored as a signed byte, whose products FAISS adds up as integers, in two thirds
of the time of floats. Otherwise each value of a row's difference from its centroid is stored in 8, 6 or 4 bits. Either
way FAISS's scores are rough: they propose candidates, which the vectors themselves rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe.neighbours.exact import Floats, Metric, Rows, Vectors, row_blocks, unit_rows
from embedpipe.neighbours.threads import faiss_alone

#: FAISS compares vectors of a multiple of this length several times as fast as others.
PAD = 16
#: Maximum number of rows per cell in k-means, and its number of iterations.
ROWS_A_CELL, ITERATIONS = 32, 8
#: Minimum number of rows per cell on average.
FEWEST_ROWS = 8
#: Bits of a stored value.
BITS = (8, 6, 4)
#: Largest signed byte. It stands for so many times the largest value of a centroid, and for at least so many standard
#: deviations of the values of unit vectors; larger values are cut.
BYTE, HEADROOM, DEVIATIONS = 127, 1.5, 4


def cell_count(rows: int) -> int:
    """Return the number of cells for so many rows: four times the square root, fewer where cells would be empty."""
    return max(1, min(int(4 * rows**0.5), rows // FEWEST_ROWS))


def bytes_a_row(dim: int, bits: int) -> int:
    """Return the bytes of a row in the cells: its values and its key."""
    return padded_dim(dim) * bits // 8 + 8


def padded_dim(dim: int) -> int:
    """Return the length of rows that are filled up with zeros."""
    return -(-dim // PAD) * PAD


def padded(X: Floats, metric: Metric) -> Floats:
    """Return rows as the cells hold them: of unit length for ``cosine``, filled up with zeros."""
    X = unit_rows(X) if metric == "cosine" else X
    wide = padded_dim(X.shape[1])
    if wide == X.shape[1]:
        return np.ascontiguousarray(X)
    out = np.zeros((len(X), wide), np.float32)
    out[:, : X.shape[1]] = X
    return out


def make_cells(
    rows: Vectors,
    metric: Metric,
    bits: int = 8,
    n_jobs: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Any:
    """Divide rows into cells. The same rows give the same cells.

    Parameters
    ----------
    rows : float32 array (n_rows, dim), or a memory map
    metric : str
    bits : int
        Of each value: 8, 6 or 4.
    n_jobs : int, optional
        Number of threads; see `faiss_alone`.
    advance : callable
        Called with the number of rows that were added to the cells.

    Returns
    -------
    faiss.IndexIVFScalarQuantizer
        Its keys are the numbers of the rows.
    """
    count = cell_count(len(rows))
    most = min(len(rows), ROWS_A_CELL * count)
    chosen = np.sort(np.random.default_rng(0).choice(len(rows), most, replace=False))
    sample = np.concatenate([padded(block, metric) for _, block in row_blocks(rows, chosen)])
    with faiss_alone(n_jobs) as faiss:
        limits = {"min_points_per_centroid": 1, "max_points_per_centroid": ROWS_A_CELL}
        spherical = metric == "cosine"
        clustering = faiss.Kmeans(sample.shape[1], count, niter=ITERATIONS, seed=0, spherical=spherical, **limits)
        clustering.train(sample)
        centroids = np.array(clustering.centroids, np.float32)
    index = empty_cells(centroids, metric, cell_kind(metric, bits), sample, n_jobs)
    add_rows(index, rows, None, np.arange(len(rows)), metric, n_jobs, advance)
    return index


def restore_cells(centroids: Floats, cell_of: npt.NDArray[np.integer[Any]], rows: Floats, metric: Metric) -> Any:
    """Make the cells of `make_cells` again, with 8 bits, from their centroids and the cell of each row."""
    wide = padded(rows, metric)
    centres = np.zeros((len(centroids), wide.shape[1]), np.float32)
    centres[:, : rows.shape[1]] = centroids
    most = min(len(rows), ROWS_A_CELL * len(centroids))
    chosen = np.sort(np.random.default_rng(0).choice(len(rows), most, replace=False))
    index = empty_cells(centres, metric, cell_kind(metric, BITS[0]), wide[chosen])
    wide = _as_stored(index, wide)
    with faiss_alone() as faiss:
        keys, cells = np.arange(len(rows)), np.ascontiguousarray(cell_of, np.int64)
        index.add_core(len(rows), faiss.swig_ptr(wide), faiss.swig_ptr(keys), faiss.swig_ptr(cells))
    return index


def add_rows(
    index: Any,
    rows: Vectors,
    which: Rows | None,
    keys: Rows,
    metric: Metric,
    n_jobs: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Add rows, all or those at some positions, to the cells, under these keys."""
    start = 0
    for _, block in row_blocks(rows, which):
        wide = padded(block, metric)
        part = np.ascontiguousarray(keys[start : start + len(block)], np.int64)
        _, cells = nearest_cells(index, wide, 1, n_jobs)
        wide = _as_stored(index, wide)
        with faiss_alone(n_jobs) as faiss:
            arrays = [faiss.swig_ptr(each) for each in (wide, part, cells)]
            index.add_core(len(wide), *arrays)
        start += len(block)
        advance(len(block))


def centroids_of(index: Any) -> Floats:
    """Return the centroids, float32 (n_cells, padded dim)."""
    centroids: Floats = index.quantizer.reconstruct_n(0, index.nlist)
    return centroids


def members(index: Any) -> Iterator[Rows]:
    """Yield the keys of the rows in each cell."""
    with faiss_alone() as faiss:
        lists = index.invlists
        for cell in range(index.nlist):
            size = lists.list_size(cell)
            held = lists.get_ids(cell)
            try:
                keys = faiss.rev_swig_ptr(held, size).copy() if size else np.empty(0, np.int64)
            finally:
                lists.release_ids(cell, held)
            yield keys


def cell_of_rows(index: Any) -> npt.NDArray[np.int32]:
    """Return the cell of each row, where keys are row numbers."""
    cell_of = np.empty(index.ntotal, np.int32)
    for cell, keys in enumerate(members(index)):
        cell_of[keys] = cell
    return cell_of


def unevenness(index: Any) -> float:
    """Return how uneven the cells are: 1 if all hold as many rows, 2 if a row's cell is twice as full on average."""
    sizes = np.array([index.invlists.list_size(cell) for cell in range(index.nlist)], np.float64)
    return float(len(sizes) * (sizes**2).sum() / max(1.0, sizes.sum()) ** 2)


def nearest_cells(index: Any, queries: Floats, probes: int, n_jobs: int | None = None) -> tuple[Floats, Rows]:
    """Return FAISS's scores of the centroids nearest to each query, and their cells, (n_queries, probes)."""
    with faiss_alone(n_jobs):
        scores, cells = index.quantizer.search(queries, probes)
    return scores, cells


def centroid_costs(near: tuple[Floats, Rows], metric: Metric) -> Floats:
    """Return the cost of each query's nearest centroid, float32 (n_queries,), from `nearest_cells`."""
    nearest = near[0][:, 0]
    return -nearest if metric == "cosine" else nearest


def find_candidates(
    index: Any,
    queries: Floats,
    count: int,
    near: tuple[Floats, Rows],
    allowed: npt.NDArray[np.bool_] | None = None,
    n_jobs: int | None = None,
) -> tuple[Floats, Rows]:
    """Search the cells of each query.

    Parameters
    ----------
    index : faiss.IndexIVFScalarQuantizer
    queries : float32 array (n_queries, padded dim)
    count : int
        Number of candidates per query.
    near : tuple of arrays
        The cells to search, as `nearest_cells` returns them.
    allowed : bool array, optional
        By key: which rows may be found.
    n_jobs : int, optional

    Returns
    -------
    costs : float32 array (n_queries, count)
        Rough costs, ascending.
    keys : int64 array (n_queries, count)
        -1 where there are no more.
    """
    costs, keys = np.empty((len(queries), count), np.float32), np.empty((len(queries), count), np.int64)
    if _has_bytes(index):
        longest = np.abs(queries).max(axis=1, keepdims=True)
        queries = np.rint(queries * (BYTE / np.where(longest > 0, longest, 1)))
    queries, scores, cells = np.ascontiguousarray(queries), *map(np.ascontiguousarray, near)
    bitmap = None if allowed is None else np.packbits(allowed, bitorder="little")
    with faiss_alone(n_jobs) as faiss:
        selector = None if bitmap is None else faiss.IDSelectorBitmap(bitmap)
        parameters = faiss.SearchParametersIVF(nprobe=cells.shape[1], sel=selector)
        arrays = [faiss.swig_ptr(each) for each in (cells, scores, costs, keys)]
        # The method of FAISS's Python class takes no selector, that of the C++ class does.
        index.search_preassigned_c(len(queries), faiss.swig_ptr(queries), count, *arrays, False, parameters)
        if index.metric_type == faiss.METRIC_INNER_PRODUCT:
            np.negative(costs, out=costs)
    return costs, keys


def cell_kind(metric: Metric, bits: int) -> str:
    """Return how values are stored, a name of FAISS."""
    return "QT_8bit_direct_signed" if metric == "cosine" and bits == BITS[0] else f"QT_{bits}bit"


def empty_cells(centroids: Floats, metric: Metric, kind: str, sample: Floats, n_jobs: int | None = None) -> Any:
    """Return cells without rows, for values of a `cell_kind`; a sample sets the range of those of differences."""
    dim = centroids.shape[1]
    with faiss_alone(n_jobs) as faiss:
        cosine = metric == "cosine"
        quantizer = (faiss.IndexFlatIP if cosine else faiss.IndexFlatL2)(dim)
        quantizer.add(centroids)
        stored = getattr(faiss.ScalarQuantizer, kind)
        measure = faiss.METRIC_INNER_PRODUCT if cosine else faiss.METRIC_L2
        differences = stored != faiss.ScalarQuantizer.QT_8bit_direct_signed
        index = faiss.IndexIVFScalarQuantizer(quantizer, dim, len(centroids), stored, measure, differences)
        index.own_fields = True  # FAISS deletes the quantizer with the index
        quantizer.this.disown()
        index.train(sample)  # of the quantizer, only the range of values: the centroids are there
    return index


def _has_bytes(index: Any) -> bool:
    with faiss_alone() as faiss:
        return bool(index.sq.qtype == faiss.ScalarQuantizer.QT_8bit_direct_signed)


def _as_stored(index: Any, wide: Floats) -> Floats:
    """Return padded rows as FAISS takes them: as they are, or as whole numbers that signed bytes hold."""
    if not _has_bytes(index):
        return wide
    centroids = centroids_of(index)
    # To subtract one vector from all rows changes all products with a query by the same number, and no order.
    middle = centroids.mean(axis=0)
    largest = max(HEADROOM * float(np.abs(centroids - middle).max()), DEVIATIONS / len(middle) ** 0.5)
    scaled: Floats = np.rint(np.clip((wide - middle) * np.float32(BYTE / largest), -BYTE, BYTE))
    return scaled
