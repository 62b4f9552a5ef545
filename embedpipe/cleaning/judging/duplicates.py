"""Pairs of duplicates: equal content, and near-duplicates as evaluation keeps them together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe.decoding.hashing.perceptual import BITS, PerceptualHashes
from embedpipe.neighbours.duplicates import DuplicatePairs
from embedpipe.neighbours.graph import Graph
from embedpipe.neighbours.picture_copies import hash_pairs, stands_out

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """Rows, each with an earlier row that it duplicates.

    Attributes
    ----------
    rows, related : int64 array (n,)
    scores : float64 array (n,)
        1 for equal content, else those of `DuplicatePairs`.
    exact : bool array (n,)
        Whether the content is equal.
    mirrored : bool array (n,)
        Whether one picture is the mirror image of the other.
    """

    rows: Rows
    related: Rows
    scores: Floats
    exact: npt.NDArray[np.bool_]
    mirrored: npt.NDArray[np.bool_]


def equal_content(hashes: pa.ChunkedArray) -> Rows:
    """Return for each row the first row with the same content hash; its own number if there is none."""
    contents = hashes.dictionary_encode().combine_chunks().indices.to_numpy()
    _, first, inverse = np.unique(contents, return_index=True, return_inverse=True)
    return first[inverse].astype(np.int64)


def find_pairs(first_of: Rows, near: DuplicatePairs) -> Pairs:
    """Return one pair for each row that duplicates an earlier one: the most similar of them.

    Parameters
    ----------
    first_of : int64 array (n_rows,)
        As `equal_content` gives it.
    near : DuplicatePairs
    """
    rows = np.arange(len(first_of))
    order = np.lexsort((near.left, -near.scores, near.right))
    later = near.right[order]
    best = np.ones(len(later), bool)
    best[1:] = later[1:] != later[:-1]
    chosen = order[best]
    related, score, mirrored = np.full(len(rows), -1), np.zeros(len(rows)), np.zeros(len(rows), bool)
    at = near.right[chosen]
    related[at], score[at], mirrored[at] = near.left[chosen], near.scores[chosen], near.mirrored[chosen]
    exact = first_of != rows
    related, score = np.where(exact, first_of, related), np.where(exact, 1.0, np.minimum(score, 1.0))
    found = np.flatnonzero(related >= 0)
    return Pairs(found, related[found], score[found], exact[found], (mirrored & ~exact)[found])


def known_partners(pairs: Pairs, known: npt.NDArray[np.bool_]) -> Rows:
    """Return ``related``, and in place of a row that is not known the first known one with the same content, if any.

    Parameters
    ----------
    pairs : Pairs
    known : bool array (n_rows,)
    """
    first = np.arange(len(known))
    first[pairs.rows[pairs.exact]] = pairs.related[pairs.exact]
    first_known = np.full(len(known), len(known))
    np.minimum.at(first_known, first[known], np.flatnonzero(known))
    other = first_known[first[pairs.related]]
    return np.where(known[pairs.related] | (other == len(known)), pairs.related, other)


def pairs_between(
    graph: Graph,
    cosines: Floats,
    nearest: Rows,
    threshold: float,
    hashes: PerceptualHashes | None,
    others: PerceptualHashes | None,
) -> dict[int, tuple[int, float, bool]]:
    """Return the row of another store that each row nearly duplicates, the score, and whether it is mirrored.

    Parameters
    ----------
    graph : Graph
        Of the rows of this store.
    cosines, nearest : arrays (n_rows,)
        The nearest row of the other store.
    threshold : float
    hashes, others : PerceptualHashes, optional
        Of both stores.
    """
    near = cosines >= threshold
    found: dict[int, tuple[int, float, bool]] = {}
    if hashes is not None and others is not None:
        # As `standing_out`, among the neighbours in this store: those in the other one may be copies too.
        beside = others[nearest]
        by_hash = hashes.known & beside.known & (hashes.usable | beside.usable)
        near = np.where(by_hash, stands_out(cosines, graph, hashes.bits, beside.bits), near)
        pairs = hash_pairs(hashes.followed_by(others))
        between = (pairs.left < len(hashes)) & (pairs.right >= len(hashes))
        scores = 1 - pairs.distances / BITS
        for place in np.flatnonzero(between)[np.argsort(scores[between], kind="stable")]:
            row = int(pairs.left[place])
            found[row] = int(pairs.right[place]) - len(hashes), float(scores[place]), bool(pairs.mirrored[place])
    for row in np.flatnonzero(near).tolist():
        found.setdefault(row, (int(nearest[row]), float(cosines[row]), False))
    return found
