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


def random_hashes(count: int) -> PerceptualHashes:
    """Return hashes of pictures that have nothing in common."""
    bits = np.random.default_rng(1).integers(0, 2**64, (count, 4), dtype=np.uint64)
    return PerceptualHashes(bits, np.ones(count, bool))


def equal_hashes(count: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.repeat(np.random.default_rng(0).integers(0, 2**64, (1, 4), dtype=np.uint64), count, axis=0)


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
    hashes = PerceptualHashes(equal_hashes(3000), np.ones(3000, bool))
    X = np.random.default_rng(0).standard_normal((3000, 8)).astype(np.float32)
    assert len(hash_pairs(hashes).left) < 30 * 3000
    assert (near_duplicate_groups(X, hashes=hashes) == 0).all()


def test_few_rows_have_few_pairs() -> None:
    for count in (0, 1, 2):
        hashes = PerceptualHashes(equal_hashes(count), np.ones(count, bool))
        assert len(hash_pairs(hashes).left) == max(0, count - 1)


def test_hashes_without_a_bit_make_no_pairs_and_cosines_decide() -> None:
    hashes = PerceptualHashes(np.zeros((4, 4), np.uint64), np.ones(4, bool))
    assert not len(hash_pairs(hashes).left)
    X = np.float32([[1, 0, 0], [1, 0.01, 0], [0, 1, 0], [0, 0, 1]])
    assert near_duplicate_groups(X, hashes=hashes).tolist() == [0, 0, 1, 2]
    hashes.bits[1] = random_hashes(1).bits  # a picture with something in it is no copy of one without
    assert near_duplicate_groups(X, hashes=hashes).tolist() == [0, 1, 2, 3]


def test_hashes_of_plain_grounds_must_be_nearer() -> None:
    rng = np.random.default_rng(0)
    signs = rng.integers(0, 2, (2, 16), dtype=np.uint8)
    plain = np.packbits(signs[0][:, None] ^ signs[1]).view(np.uint64)[None]
    first, second = (with_errors(plain, 13, rng) for _ in range(2))  # 13 bits tell such pictures apart
    copy = with_errors(first, 5, rng)
    assert 16 < hash_distances(first, second)[0] <= SAME_PICTURE
    pairs = hash_pairs(PerceptualHashes(np.concatenate([first, second, copy]), np.ones(3, bool)))
    assert list(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)) == [(0, 2)]


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
    outstanding = standing_out(graph, random_hashes(71))
    pairs = {(row, int(graph.positions[row, place])) for row, place in np.argwhere(outstanding)}
    assert pairs == {(0, 50), (50, 0)}
    assert graph.scores[60, 0] > 0.85  # as near as the crop


@pytest.mark.parametrize("turned", [False, True])
def test_among_plain_pictures_nothing_stands_out_whose_hash_is_of_another(turned: bool) -> None:
    rng = np.random.default_rng(0)
    X = np.ones((40, 64)) + 0.2 * rng.standard_normal((40, 64))  # cosines of about 0.96
    X[[1, 3]] = X[[0, 2]] + 0.02 * rng.standard_normal((2, 64))
    hashes = random_hashes(40)
    hashes.bits[1] = with_errors(hashes.bits[:1], 80, rng)[0]
    if turned:
        hashes.bits[1] = mirrored(hashes.bits[1])
    graph = neighbour_graph(normalised(X.astype(np.float32)), 8)
    assert graph.scores[[2, 3], 0].min() > 0.99
    pairs = np.argwhere(standing_out(graph, hashes))
    assert {(row, int(graph.positions[row, place])) for row, place in pairs.tolist()} == {(0, 1), (1, 0)}


def test_hashes_decide_where_both_rows_have_one(crowd: np.ndarray) -> None:  # type: ignore[type-arg]
    bits = random_hashes(71).bits
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
    groups = near_duplicate_groups(crowd, 0.85, hashes=random_hashes(71))
    assert np.flatnonzero(np.bincount(groups)[groups] > 1).tolist() == [0, 50]
    assert np.bincount(near_duplicate_groups(crowd, 0.85)).max() == 20
