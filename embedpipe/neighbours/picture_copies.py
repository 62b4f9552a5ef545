"""Copies of pictures: by perceptual hashes, and by cosines that stand out among those of the neighbours.

A cosine alone misses copies and invents others. Of 250 clothing photographs scaled to half their size, 26 % have a
centred cosine of 0.95 to the original, and of re-encoded photographs of solar cells 1 %, but so have pairs of different
cells that look alike. Perceptual hashes (`embedpipe.decoding.hashing.perceptual`) tell them apart. A crop has another
hash, but is much nearer to its original than to all other pictures, and look-alikes are not: they have many neighbours
as near (the ratio test of Lowe, IJCV 60, 2004, section 7.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from embedpipe.decoding.hashing.perceptual import Bits, PerceptualHashes, hash_distances, mirrored, telling_bits
from embedpipe.neighbours.graph import Graph

Rows = npt.NDArray[np.int64]

#: Largest number of differing bits, of 256, of copies: the threshold of PDQ. Of 3,781 photographs of clothing one pair
#: is within it, a photograph that is there twice, and of 6,000 of Fashion-MNIST two.
SAME_PICTURE = 31
#: Copies differ in less than this share of the bits that tell the pictures apart (`telling_bits`). That is no limit for
#: most hashes, which have 52 such bits or more. Of 30,000 parts of photographs, 24 pairs of plain grounds with a thing
#: at the edge have 14 to 32 such bits, and differ in 19 to 31.
SHARE = 0.6
#: A picture stands out if the distance 1 - cosine is at most this share of that to the sixth nearest row, from both.
RATIO, SIXTH = 0.35, 6
#: A lower cosine does not stand out.
LEAST_COSINE = 0.8
#: Rows whose sixth nearest row has this cosine have little in them (skies, walls, floors): what stands out there is no
#: copy if hashes differ in so many bits as those of any two pictures do; of neighbours 1 % differ in less.
LOOK_ALIKES, UNLIKE = 0.9, 96
#: Hashes are sorted by each word, rotated by so many bits, and compared with so many that follow.
ROTATIONS, FOLLOWING = tuple(range(0, 64, 8)), 8


class HashPairs(NamedTuple):
    """Pairs of rows, the lower one first, each pair once.

    Attributes
    ----------
    left, right : int64 array (n_pairs,)
    distances : int64 array (n_pairs,)
        Differing bits.
    mirrored : bool array (n_pairs,)
        Whether the mirror image of one is the other.
    """

    left: Rows
    right: Rows
    distances: Rows
    mirrored: npt.NDArray[np.bool_]


def hash_pairs(hashes: PerceptualHashes) -> HashPairs:
    """Return the pairs of rows whose hashes, or those of mirror images, differ in at most `SAME_PICTURE` bits.

    Those that hold little must differ in fewer (`SHARE`), and hashes without a bit set make no pairs. Hashes are sorted
    by 32 rotated words of theirs: two that have one beginning in common are then next to each other (sorted tables of
    Manku, Jain and Das Sarma, WWW 2007). The time grows as sorting does, and pairs near the limit may be missed. Of
    many equal hashes only pairs that connect them are returned.

    Examples
    --------
    >>> import hashlib
    >>> from embedpipe.decoding.hashing.perceptual import PerceptualHashes
    >>> from embedpipe.neighbours.picture_copies import hash_pairs
    >>> photo, other = (hashlib.sha256(name).hexdigest() for name in (b"photo", b"other"))
    >>> copy = f"{int(photo, 16) ^ 1:064x}"
    >>> pairs = hash_pairs(PerceptualHashes.read([photo, None, copy, other]))
    >>> pairs.left.tolist(), pairs.right.tolist(), pairs.distances.tolist(), pairs.mirrored.tolist()
    ([0], [2], [1], [False])
    """
    rows = np.flatnonzero(hashes.usable)
    count = len(rows)
    bits = np.concatenate([hashes.bits[rows], mirrored(hashes.bits[rows])])
    found = [np.empty(0, np.int64)]
    for word in bits.T:
        for turn in ROTATIONS:
            order = np.argsort(word << np.uint64(turn) | word >> np.uint64((64 - turn) % 64))
            words = np.ascontiguousarray(bits[order].T)
            for step in range(1, FOLLOWING + 1):
                distances = np.bitwise_count(words[:, :-step] ^ words[:, step:]).sum(axis=0, dtype=np.uint16)
                near = np.flatnonzero(distances <= SAME_PICTURE)
                a, b = order[near], order[near + step]
                # Both mirrored is as neither, so only whether one of them is counts.
                low, high = np.minimum(a % count, b % count), np.maximum(a % count, b % count)
                found.append(((low * count + high) * 2 + ((a < count) != (b < count)))[low < high])
    left, right = np.divmod(np.unique(np.concatenate(found)), 2 * count) if count else (found[0], found[0])
    right, turned = np.divmod(right, 2)
    distances = hash_distances(np.where(turned[:, None], mirrored(bits[left]), bits[left]), bits[right])
    # A picture that is nearly its own mirror image is paired twice: the nearer one counts.
    order = np.lexsort((turned, distances, right, left))
    left, right, distances, turned = left[order], right[order], distances[order], turned[order]
    once = np.ones(len(left), bool)
    once[1:] = (left[1:] != left[:-1]) | (right[1:] != right[:-1])
    some, place = np.unique(np.stack([left, right]), return_inverse=True)
    telling = telling_bits(bits[some])[place.reshape(2, -1)].max(axis=0)
    once &= distances < SHARE * telling
    return HashPairs(rows[left[once]], rows[right[once]], distances[once], turned[once].astype(bool))


def standing_out(graph: Graph, hashes: PerceptualHashes) -> npt.NDArray[np.bool_]:
    """Return which neighbours of a graph are much nearer than others, for both rows, bool (n_rows, k)."""
    sixth = _sixth(graph)
    bits = hashes.bits
    return _stands_out(
        graph.scores,
        np.maximum(sixth[:, None], sixth[graph.positions]),
        lambda rows, places: _alike(bits[rows], bits[graph.positions[rows, places]]),
    )


def stands_out(cosines: npt.NDArray[np.float64], graph: Graph, bits: Bits, other_bits: Bits) -> npt.NDArray[np.bool_]:
    """Return which cosines of rows to others, (n_rows,), are much larger than those to most neighbours in a graph."""
    return _stands_out(cosines, _sixth(graph), lambda rows: _alike(bits[rows], other_bits[rows]))


def _sixth(graph: Graph) -> npt.NDArray[np.float64]:
    few = graph.scores.shape[1] < SIXTH
    return np.ones(len(graph.scores)) if few else graph.scores[:, SIXTH - 1]


def _stands_out(
    cosines: npt.NDArray[np.float64], sixth: npt.NDArray[np.float64], alike: Callable[..., npt.NDArray[np.bool_]]
) -> npt.NDArray[np.bool_]:
    """Return what stands out; ``alike`` is asked of what does among rows that look alike."""
    outstanding = (cosines >= LEAST_COSINE) & (1 - cosines <= RATIO * (1 - sixth))
    plain = np.nonzero(outstanding & (sixth >= LOOK_ALIKES))
    outstanding[plain] = alike(*plain)
    return outstanding


def _alike(first: Bits, second: Bits) -> npt.NDArray[np.bool_]:
    distances = np.minimum(hash_distances(first, second), hash_distances(mirrored(first), second))
    return distances < UNLIKE
