"""Copies of pictures by their hashes, and cosines that stand out: what all pairs and a definition say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpipe.decoding.hashing.perceptual import PerceptualHashes, hash_distances, mirrored
from embedpipe.neighbours.duplicates import duplicate_pairs, near_duplicate_groups
from embedpipe.neighbours.exact import normalised
from embedpipe.neighbours.graph import neighbour_graph
from embedpipe.neighbours.picture_copies import SAME_PICTURE, hash_pairs, standing_out


def with_errors(bits: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:  # type: ignore[type-arg]
    """Return hashes with so many bits changed."""
    changed = np.zeros((len(bits), 256), np.uint8)
    for row in changed:
        row[rng.choice(256, count, replace=False)] = 1
    return bits ^ np.packbits(changed, axis=1).view(np.uint64)


def planted(seed: int, errors: int) -> PerceptualHashes:
    """Return 300 hashes of different pictures, 40 copies, 40 mirrored copies, and 20 rows without a hash."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2**64, (300, 4), dtype=np.uint64)
    copies = with_errors(bits[:40], errors, rng), mirrored(with_errors(bits[40:80], errors, rng))
    known = np.arange(400) < 380
    return PerceptualHashes(np.concatenate([bits, *copies, bits[:20]]), known)


@given(st.integers(0, 50), st.integers(0, 24))
def test_pairs_are_those_of_all_pairs(seed: int, errors: int) -> None:
    hashes = planted(seed, errors)
    pairs = hash_pairs(hashes)
    assert list(zip(pairs.left, pairs.right, strict=True)) == [(row, row + 300) for row in range(80)]
    assert pairs.mirrored.tolist() == [False] * 40 + [True] * 40
    assert (pairs.distances == errors).all()


def test_distances_and_order_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(3)
    base = rng.integers(0, 2**64, (10, 4), dtype=np.uint64)
    bits = np.concatenate([with_errors(base, count, rng) for count in (0, 4, 12, 30, 40)])
    hashes = PerceptualHashes(bits, np.ones(50, bool))
    expected = {}
    for left in range(50):
        for right in range(left + 1, 50):
            plain, turned = (int(hash_distances(bits[left], each[right])) for each in (bits, mirrored(bits)))
            if min(plain, turned) <= SAME_PICTURE:
                expected[left, right] = (min(plain, turned), turned < plain)
    pairs = hash_pairs(hashes)
    found = dict(zip(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True), range(len(pairs.left)), strict=True))
    assert found.keys() <= expected.keys()
    assert len(found) >= 0.98 * len(expected)
    for pair, place in found.items():
        assert (pairs.distances[place], pairs.mirrored[place]) == expected[pair]


def test_equal_hashes_are_connected_without_all_their_pairs() -> None:
    hashes = PerceptualHashes(np.zeros((3000, 4), np.uint64), np.ones(3000, bool))
    X = np.random.default_rng(0).standard_normal((3000, 8)).astype(np.float32)
    assert len(hash_pairs(hashes).left) < 30 * 3000
    assert (near_duplicate_groups(X, hashes=hashes) == 0).all()


def test_few_rows_have_few_pairs() -> None:
    for count in (0, 1, 2):
        hashes = PerceptualHashes(np.zeros((count, 4), np.uint64), np.ones(count, bool))
        assert len(hash_pairs(hashes).left) == max(0, count - 1)


@pytest.fixture(scope="module")
def crowd() -> np.ndarray:  # type: ignore[type-arg]
    """50 unrelated rows, one of which has a crop (row 50), and 20 that look alike (51 to 70)."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((71, 64))
    X[50] = X[0] + 0.3 * rng.standard_normal(64)
    X[51:] = X[51] + 0.3 * rng.standard_normal((20, 64))
    return normalised((X - X.mean(axis=0)).astype(np.float32))


def test_a_crop_stands_out_and_look_alikes_do_not(crowd: np.ndarray) -> None:  # type: ignore[type-arg]
    graph = neighbour_graph(crowd, 8)
    outstanding = standing_out(graph)
    pairs = {(row, int(graph.positions[row, place])) for row, place in np.argwhere(outstanding)}
    assert pairs == {(0, 50), (50, 0)}
    assert graph.scores[60, 0] > 0.85  # as near as the crop


def test_hashes_decide_where_both_rows_have_one(crowd: np.ndarray) -> None:  # type: ignore[type-arg]
    bits = np.random.default_rng(1).integers(0, 2**64, (71, 4), dtype=np.uint64)
    bits[1] = mirrored(bits[2])
    hashes = PerceptualHashes(bits, np.arange(71) < 70)
    pairs = duplicate_pairs(neighbour_graph(crowd, 8), 0.85, hashes)
    found = {(int(left), int(right)): bool(turned) for left, right, _, turned in zip(*pairs, strict=True)}
    assert found.pop((1, 2)) is True
    assert found.pop((0, 50)) is False
    assert {right for _, right in found} == {70}  # the look-alike without a hash: its cosine decides
    cosines = duplicate_pairs(neighbour_graph(crowd, 8), 0.85)
    assert len(cosines.left) > 50
    assert not cosines.mirrored.any()


def test_groups_of_pictures_are_the_pairs(crowd: np.ndarray) -> None:  # type: ignore[type-arg]
    bits = np.random.default_rng(1).integers(0, 2**64, (71, 4), dtype=np.uint64)
    groups = near_duplicate_groups(crowd, 0.85, hashes=PerceptualHashes(bits, np.ones(71, bool)))
    assert np.flatnonzero(np.bincount(groups)[groups] > 1).tolist() == [0, 50]
    assert np.bincount(near_duplicate_groups(crowd, 0.85)).max() == 20
