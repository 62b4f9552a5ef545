"""Pairs of duplicates: equal content, and near-duplicates by the cosine of centred vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """Rows, each with an earlier row that it duplicates.

    Attributes
    ----------
    rows, related : int64 array (n,)
    cosines : float64 array (n,)
        1 for equal content.
    exact : bool array (n,)
        Whether the content is equal.
    """

    rows: Rows
    related: Rows
    cosines: Floats
    exact: npt.NDArray[np.bool_]


def equal_content(hashes: npt.NDArray[np.object_]) -> Rows:
    """Return for each row the first row with the same content hash; its own number if there is none."""
    _, first, inverse = np.unique(hashes.astype(str), return_index=True, return_inverse=True)
    return first[inverse].astype(np.int64)


def find_pairs(first_of: Rows, neighbours: Rows, cosines: Floats, threshold: float) -> Pairs:
    """Return one pair for each row that duplicates an earlier one: the most similar of them.

    Parameters
    ----------
    first_of : int64 array (n_rows,)
        As `equal_content` gives it.
    neighbours : int64 array (n_rows, k)
        Other rows, the nearest first.
    cosines : float64 array (n_rows, k)
    threshold : float
    """
    rows = np.arange(len(first_of))
    # A pair is found from either side: the graph of a row with many duplicates names only the nearest of them.
    left = np.repeat(rows, neighbours.shape[1])
    right, score = neighbours.ravel(), cosines.ravel()
    near = (score >= threshold) & (right >= 0)
    left, right, score = left[near], right[near], score[near]
    later, earlier = np.maximum(left, right), np.minimum(left, right)
    order = np.lexsort((earlier, -score, later))
    later, earlier, score = later[order], earlier[order], score[order]
    best = np.ones(len(later), bool)
    best[1:] = later[1:] != later[:-1]
    related, cosine = np.full(len(rows), -1), np.zeros(len(rows))
    related[later[best]], cosine[later[best]] = earlier[best], score[best]
    exact = first_of != rows
    related, cosine = np.where(exact, first_of, related), np.where(exact, 1.0, np.minimum(cosine, 1.0))
    found = np.flatnonzero(related >= 0)
    return Pairs(found, related[found], cosine[found], exact[found])
