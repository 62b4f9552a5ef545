"""Perceptual hashes: what changes them little, what changes them much, and the hash of the mirror image."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from embedpipe.decoding import Preprocessing, decode_pixels
from embedpipe.decoding.hashing.perceptual import (
    BITS,
    PerceptualHashes,
    hash_distances,
    mirrored,
    perceptual_hash,
    telling_bits,
)
from embedpipe.decoding.picture import Picture

HASHES = st.lists(st.integers(0, 2**64 - 1), min_size=4, max_size=4).map(lambda values: np.array(values, np.uint64))
RECIPE = Preprocessing(resize=(32,), crop=(32, 32), interpolation="bilinear")


def scene(seed: int = 0, size: tuple[int, int] = (90, 120)) -> npt.NDArray[np.uint8]:
    """Return smooth random pixels (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    return np.array(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def hash_of(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    picture = Picture(np.ascontiguousarray(pixels), pixels.shape[1::-1])
    return PerceptualHashes.read([perceptual_hash(picture)]).bits[0]


@given(HASHES, HASHES)
def test_distance_is_symmetric_and_mirroring_both_keeps_it(first: np.ndarray, second: np.ndarray) -> None:  # type: ignore[type-arg]
    distance = hash_distances(first, second)
    assert 0 <= distance == hash_distances(second, first) <= BITS
    assert hash_distances(mirrored(first), mirrored(second)) == distance
    assert (distance == 0) == bool((first == second).all())


@given(HASHES)
def test_mirror_of_the_mirror_is_the_hash(bits: np.ndarray) -> None:  # type: ignore[type-arg]
    assert (mirrored(mirrored(bits)) == bits).all()
    assert hash_distances(bits, mirrored(bits)) == BITS // 2


@given(st.integers(0, 1000), st.integers(17, 200), st.integers(17, 200))
def test_hash_of_the_mirror_image_follows(seed: int, height: int, width: int) -> None:
    pixels = scene(seed, (height, width))
    assert hash_distances(mirrored(hash_of(pixels)), hash_of(pixels[:, ::-1])) <= 4  # signs of coefficients near 0


def test_signs_are_those_of_the_cosine_transform() -> None:
    from scipy.fft import dctn

    pixels = scene(size=(64, 64))
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    expected = np.packbits(dctn(grey)[1:17, 1:17] > 0).tobytes().hex()
    assert perceptual_hash(Picture(pixels, (64, 64))) == expected


def test_turned_jpegs_are_hashed_upright() -> None:
    image = Image.fromarray(scene())
    hashes = []
    for orientation, method in ((1, None), (6, Image.Transpose.ROTATE_90), (2, Image.Transpose.FLIP_LEFT_RIGHT)):
        exif, file = Image.Exif(), io.BytesIO()
        exif[0x0112] = orientation
        (image if method is None else image.transpose(method)).save(file, "JPEG", quality=95, exif=exif)
        hashes.append(perceptual_hash(decode_pixels(file.getvalue(), RECIPE)))
    upright, *others = PerceptualHashes.read(hashes).bits
    assert (hash_distances(upright, np.array(others)) <= 8).all()


@pytest.mark.parametrize("quality", [40, 90])
def test_encoding_and_size_change_few_bits(quality: int) -> None:
    image = Image.fromarray(scene())
    file = io.BytesIO()
    image.resize((70, 52)).save(file, "JPEG", quality=quality)
    hashes = [
        perceptual_hash(decode_pixels(each, RECIPE)) for each in (image, file.getvalue(), Image.fromarray(scene(1)))
    ]
    first, second, other = PerceptualHashes.read(hashes).bits
    assert hash_distances(first, second) <= 16 < 80 < hash_distances(first, other)


def test_missing_hashes_are_not_known() -> None:
    hashes = PerceptualHashes.read([None, "f" * 64])
    assert hashes.known.tolist() == [False, True]
    assert hashes.bits.tolist() == [[0] * 4, [2**64 - 1] * 4]
    assert len(PerceptualHashes.read([])) == 0


def test_pictures_of_one_colour_have_the_same_hash() -> None:
    hashes = {perceptual_hash(Picture(np.full((50, 40, 3), value, np.uint8), (40, 50))) for value in (0, 3, 128, 255)}
    assert hashes == {"0" * 64}


def test_one_colour_and_stripes_have_no_bit_and_are_not_usable() -> None:
    flag = np.repeat(np.uint8([[[0, 0, 160], [255, 255, 255], [200, 0, 0]]]), 40, axis=1).repeat(80, axis=0)
    pictures = [flag, flag.transpose(1, 0, 2), np.full((50, 70, 3), 255, np.uint8), scene()]
    hashes = [perceptual_hash(Picture(np.ascontiguousarray(each), each.shape[1::-1])) for each in pictures]
    assert PerceptualHashes.read([*hashes, None]).usable.tolist() == [False, False, False, True, False]


@given(st.integers(0, 1000), st.integers(0, 30))
def test_telling_bits_are_those_that_no_product_of_signs_gives(seed: int, errors: int) -> None:
    rng = np.random.default_rng(seed)
    signs = rng.integers(0, 2, (2, 16), dtype=np.uint8)
    product = signs[0][:, None] ^ signs[1]
    product.ravel()[rng.choice(BITS, errors, replace=False)] ^= 1
    bits = np.packbits(product).view(np.uint64)[None]
    assert telling_bits(bits)[0] <= errors
    assert telling_bits(mirrored(bits)) == telling_bits(bits)
    assert errors > 20 or telling_bits(bits)[0] == errors


def test_few_random_bits_are_those_of_a_product() -> None:
    bits = np.random.default_rng(0).integers(0, 2**64, (20_000, 4), dtype=np.uint64)
    telling = telling_bits(bits)
    assert 70 < np.median(telling) < 90
    assert telling.min() > 52
