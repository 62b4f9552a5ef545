"""Near-duplicates: groups of rows whose vectors are so similar that they probably show the same thing.

Cosines are those of centred vectors (the mean of all rows is subtracted), because one threshold then suits all
backbones. Without centring, random pairs of Fashion-MNIST have a median cosine of 0.48 in one layer of the default
backbone and 0.73 in another, and a threshold of 0.95 joins 39 % of the rows into one group; with centring, the largest
group has 6 rows. Averaged GloVe vectors of SMS: 76 % of the rows in one group at 0.97, with centring 0.5 %. (Mu and
Viswanath, All-but-the-Top, ICLR 2018, on how a common mean dominates cosines.) If nearly all rows show the same thing,
the mean is that thing, and no cosine is large.

Of pictures with perceptual hashes, these and cosines that stand out decide; see `embedpipe.neighbours.picture_copies`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from embedpipe.decoding.hashing.perceptual import BITS as HASH_BITS
from embedpipe.decoding.hashing.perceptual import PerceptualHashes
from embedpipe.errors import UsageError
from embedpipe.neighbours.cells import BITS, bytes_a_row
from embedpipe.neighbours.exact import BLOCK, Floats, Rows, Vectors, normalised, row_blocks
from embedpipe.neighbours.graph import QUERIES, Graph, RowSearch, neighbour_graph
from embedpipe.neighbours.options import NEAR_DUPLICATE_COSINE
from embedpipe.neighbours.picture_copies import hash_pairs, standing_out
from embedpipe.neighbours.threads import faiss_alone

#: Of more rows, not all pairs are compared, but so many nearest rows of each, and at most so many.
ALL_PAIRS, FEW_NEIGHBOURS, MOST_NEIGHBOURS = 100_000, 8, 512
#: Rows of a tile. If all pairs of two tiles are near-duplicates, joining them takes about 100 MB.
TILE = 1024

Pairs = tuple[Rows, Rows]


class DuplicatePairs(NamedTuple):
    """Near-duplicates: pairs of rows, the lower one first; a pair may come twice.

    Attributes
    ----------
    left, right : int64 array (n_pairs,)
    scores : float64 array (n_pairs,)
        Cosines, or the share of equal bits of perceptual hashes.
    mirrored : bool array (n_pairs,)
        Whether one is the mirror image of the other, by their hashes.
    """

    left: Rows
    right: Rows
    scores: npt.NDArray[np.float64]
    mirrored: npt.NDArray[np.bool_]


def duplicate_pairs(graph: Graph, threshold: float, hashes: PerceptualHashes | None = None) -> DuplicatePairs:
    """Return the near-duplicates among the rows of a graph of cosines.

    Parameters
    ----------
    graph : Graph
        Of centred vectors.
    threshold : float
        Cosine from which two rows are near-duplicates if one has no perceptual hash.
    hashes : PerceptualHashes, optional
        Two rows that have one are near-duplicates if their hashes are nearly equal (`hash_pairs`), or if their cosine
        stands out (`standing_out`). If no bit of either is set, the threshold decides.
    """
    k = graph.positions.shape[1]
    left, right = np.repeat(np.arange(len(graph.positions)), k), graph.positions.ravel()
    near = graph.scores >= threshold
    if hashes is not None:
        known, usable, others = hashes.known, hashes.usable, graph.positions
        by_hash = known[:, None] & known[others] & (usable[:, None] | usable[others])
        near = np.where(by_hash, standing_out(graph, hashes), near)
    near &= graph.positions >= 0
    left, right, scores = left[near.ravel()], right[near.ravel()], graph.scores[near]
    found = DuplicatePairs(np.minimum(left, right), np.maximum(left, right), scores, np.zeros(len(left), bool))
    if hashes is None:
        return found
    same = hash_pairs(hashes)
    alike = DuplicatePairs(same.left, same.right, 1 - same.distances / HASH_BITS, same.mirrored)
    return DuplicatePairs(*(np.concatenate(each) for each in zip(alike, found, strict=True)))


def near_duplicate_groups(
    X: Vectors,
    threshold: float = NEAR_DUPLICATE_COSINE,
    n_jobs: int | None = None,
    *,
    hashes: PerceptualHashes | None = None,
    tile: int = TILE,
) -> Rows:
    """Return the groups of rows that pairs of near-duplicates connect.

    Two rows are near-duplicates if their centred cosine is at least ``threshold``; of pictures with perceptual hashes,
    these decide: see `duplicate_pairs`. Groups are the connected components of all such pairs (single linkage), so two
    rows of a group may have a lower cosine. Exact copies are always in one group. Without hashes, all pairs of up to
    `ALL_PAIRS` rows are compared; of more rows, the nearest ones of each, which misses few pairs (see
    `neighbour_graph`), and of a row with more than `MOST_NEIGHBOURS` near-duplicates the nearest of them. The result
    does not depend on ``tile``.

    Parameters
    ----------
    X : float32 array (n_samples, dim), or rows of a memory map
        Finite vectors, as stored. Rows of a map stay on disk.
    threshold : float
        In (0, 1].
    n_jobs : int, optional
        Number of threads; see `faiss_alone`.
    hashes : PerceptualHashes, optional
        Of all rows, where they are pictures.
    tile : int
        Number of rows that are compared with as many others at a time. Memory: one copy of ``X`` and the pairs of two
        tiles.

    Returns
    -------
    groups : int64 array (n_samples,)
        Numbers from 0, in the order of each group's first row. A single row is a group too.

    Raises
    ------
    UsageError
        If the threshold is not in (0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> from embedpipe.neighbours.duplicates import near_duplicate_groups
    >>> near_duplicate_groups(np.float32([[1, 0], [0, 1], [1, 0.01], [-1, -1]]), 0.95).tolist()
    [0, 1, 0, 2]
    """
    if not 0 < threshold <= 1:
        raise UsageError(f"threshold must be a cosine in (0, 1], got {threshold!r}")
    copy_of = first_copies(X)
    if not len(X):
        return copy_of
    distinct = np.flatnonzero(copy_of == np.arange(len(X)))
    Z: Vectors = _directions(X, distinct) if isinstance(X, np.ndarray) else _MappedDirections(X, distinct)
    groups = np.arange(len(Z))
    if hashes is not None and hashes.usable.any() and len(Z) > 1:
        graph = neighbour_graph(Z, min(FEW_NEIGHBOURS, len(Z) - 1), n_jobs=n_jobs)
        pairs = duplicate_pairs(graph, threshold, hashes[distinct])
        groups = join_groups(groups, pairs.left, pairs.right)
        return _by_first_row(groups[np.searchsorted(distinct, copy_of)])
    if len(Z) > ALL_PAIRS:
        for left, right in _near_pairs(Z, threshold, n_jobs):
            groups = join_groups(groups, left, right)
        return _by_first_row(groups[np.searchsorted(distinct, copy_of)])
    # Error bound of a sum of dim products in any order (Higham 2002, section 3.1).
    error = 1.01 * np.finfo(np.float32).eps / 2 * (Z.shape[1] + 4)
    for (left, right), scores in _scored_pairs(Z, threshold - error, tile, n_jobs):
        certain = scores >= threshold + error
        groups = join_groups(groups, left[certain], right[certain])
        left, right = left[~certain], right[~certain]
        separate = groups[left] != groups[right]
        groups = join_groups(groups, *_pairs_in_float64(Z, left[separate], right[separate], threshold))
    return _by_first_row(groups[np.searchsorted(distinct, copy_of)])


def search_bytes(rows: int, dim: int) -> int:
    """Return the memory that searching for near-duplicates of mapped rows takes, in bytes: cells that grow."""
    return 0 if rows <= ALL_PAIRS else 2 * rows * bytes_a_row(dim, BITS[0])


def first_copies(X: Vectors) -> Rows:
    """Return for each row the first row with the same bytes, so that only one of several copies is compared."""
    digests = np.empty((len(X), 2), np.uint64)
    step = max(1, BLOCK // (8 * X.shape[1]))
    for start in range(0, len(X), step):
        rows = b"".join(xxhash.xxh3_128_digest(row.tobytes()) for row in X[start : start + step])
        digests[start : start + step] = np.frombuffer(rows, np.uint64).reshape(-1, 2)
    order = np.lexsort(digests.T)  # copies stay in the order of their rows
    new = np.ones(len(X), bool)
    new[1:] = (digests[order[1:]] != digests[order[:-1]]).any(axis=1)
    first = np.empty(len(X), np.int64)
    first[order] = order[np.maximum.accumulate(np.where(new, np.arange(len(X)), 0))]
    return first


def _directions(X: npt.NDArray[np.float32], rows: Rows) -> Floats:
    """Return the rows minus the mean of all, scaled to unit length, with the memory of one copy."""
    Z = X[rows].astype(np.float32, copy=False)
    Z -= X.mean(axis=0, dtype=np.float64).astype(np.float32)
    return normalised(Z, out=Z)


class _MappedDirections:
    """What `_directions` returns, of rows of a memory map, which are read and scaled when they are used."""

    def __init__(self, X: Vectors, rows: Rows) -> None:
        self._X, self._rows = X, rows
        total = sum(block.sum(axis=0, dtype=np.float64) for _, block in row_blocks(X))
        self._mean = (total / len(X)).astype(np.float32)
        self.shape = (len(rows), X.shape[1])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> Floats:
        Z: Floats = self._X[self._rows[key]] - self._mean
        return normalised(Z, out=Z)


def _near_pairs(Z: Vectors, threshold: float, n_jobs: int | None) -> Iterator[Pairs]:
    """Yield pairs of near rows whose cosine reaches the threshold; a pair may come twice."""
    search = RowSearch(Z, FEW_NEIGHBOURS, "cosine", n_jobs)
    rows, k = np.arange(len(Z)), FEW_NEIGHBOURS
    while len(rows):
        more = []
        for part in np.array_split(rows, 1 + len(rows) // QUERIES):
            scores, positions = search.neighbours(part, k)
            near = scores >= threshold
            yield np.repeat(part, near.sum(axis=1)), positions[near]
            more.append(part[near.all(axis=1)])
        rows, k = np.concatenate(more) if k < MOST_NEIGHBOURS else rows[:0], min(4 * k, MOST_NEIGHBOURS)


def _scored_pairs(Z: Vectors, low: float, tile: int, n_jobs: int | None) -> Iterator[tuple[Pairs, Floats]]:
    """Yield pairs of rows, each pair once, whose float32 cosine is at least ``low``, and these cosines."""
    for start in range(0, len(Z), tile):
        with faiss_alone(n_jobs) as faiss:
            index = faiss.IndexFlatIP(Z.shape[1])
            index.add(Z[start : start + tile])
        for other in range(start, len(Z), tile):
            with faiss_alone(n_jobs):
                limits, scores, neighbours = index.range_search(Z[other : other + tile], low)
            if not len(neighbours):
                continue
            left = start + neighbours
            right = other + np.repeat(np.arange(len(limits) - 1), np.diff(limits.astype(np.int64)))
            once = left < right
            yield (left[once], right[once]), scores[once]


def _pairs_in_float64(Z: Vectors, left: Rows, right: Rows, threshold: float) -> Pairs:
    """Return the pairs whose float64 cosine reaches the threshold; float32 cannot tell for these."""
    step = max(1, BLOCK // (8 * Z.shape[1]))
    reaches = np.zeros(len(left), bool)
    for start in range(0, len(left), step):
        part = slice(start, start + step)
        a, b = Z[left[part]].astype(np.float64), Z[right[part]].astype(np.float64)
        reaches[part] = np.einsum("nd,nd->n", a, b) >= threshold
    return left[reaches], right[reaches]


def join_groups(groups: Rows, left: Rows, right: Rows) -> Rows:
    """Return the groups after merging those of each pair of rows."""
    if not len(left):
        return groups
    pairs = coo_array((np.ones(len(left), bool), (groups[left], groups[right])), shape=(len(groups),) * 2)
    joined: Rows = connected_components(pairs, directed=False)[1].astype(np.int64)
    return joined[groups]


def _by_first_row(groups: Rows) -> Rows:
    """Return the same groups, numbered from 0 in the order of their first rows."""
    _, first, number = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number].astype(np.int64)
