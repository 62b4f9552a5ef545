"""Near-identical answers: of several, the best stands for all."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embedpipe.neighbours import normalised
from embedpipe.neighbours.options import NEAR_DUPLICATE_COSINE

Rows = npt.NDArray[np.int64]

#: Rows whose sum is added at a time, so that a memory map is read in parts.
SLAB = 1 << 14


class Distinct(NamedTuple):
    """Which of ranked vectors differ from all better ones.

    ``kept`` are their positions, int64 (m,), and ``near`` how many vectors each of them stands for besides itself.
    ``complete`` is whether more vectors would change neither.
    """

    kept: Rows
    near: Rows
    complete: bool


def first_distinct(vectors: npt.NDArray[np.float32], centre: npt.NDArray[np.float64], k: int) -> Distinct:
    """Return the k best vectors of which none is a near-duplicate of a better one.

    Near-duplicates have a cosine of at least `NEAR_DUPLICATE_COSINE`, from the mean of all rows, as
    `embedpipe.neighbours.duplicates` has it. Those that rank before the next distinct vector are counted.

    Parameters
    ----------
    vectors : float32 array (n, dim)
        The best first.
    centre : float64 array (dim,)
        `mean_row` of all rows of the store.
    k : int
    """
    Z = normalised(vectors - centre)
    stands_for = np.full(len(Z), -1)
    kept: list[int] = []
    while (left := np.flatnonzero(stands_for < 0)).size and len(kept) <= k:
        near = left[Z[left] @ Z[left[0]] >= NEAR_DUPLICATE_COSINE]
        stands_for[left[0]] = stands_for[near] = len(kept)
        kept.append(int(left[0]))
    complete = len(kept) > k
    ranked_before = stands_for[: kept[k]] if complete else stands_for
    near_counts = np.bincount(ranked_before, minlength=k)[:k] - 1
    return Distinct(np.array(kept[:k], np.int64), near_counts[: len(kept)].astype(np.int64), complete)


def mean_row(vectors: Any) -> npt.NDArray[np.float64]:
    """Return the mean of vectors, float32 (n, dim), in memory or in a mapped file."""
    sums = [vectors[start : start + SLAB].sum(axis=0, dtype=np.float64) for start in range(0, len(vectors), SLAB)]
    mean: npt.NDArray[np.float64] = np.sum(sums, axis=0) / len(vectors)
    return mean
