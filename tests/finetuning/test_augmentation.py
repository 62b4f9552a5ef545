"""Augmented images: reproducible, and always of the network's size."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from embedpipe.decoding import Preprocessing, decode_pixels, to_pixels
from embedpipe.finetuning.training.items.augmentation import augment

RECIPE = Preprocessing(resize=(36,), crop=(32, 48), interpolation="bilinear")


@pytest.fixture(scope="module")
def picture():
    return decode_pixels(data.coffee(), RECIPE)


def test_none_returns_the_preprocessed_pixels(picture):
    pixels = augment(picture, RECIPE, "none", np.random.default_rng(0))
    np.testing.assert_array_equal(pixels, to_pixels(picture, RECIPE))


@pytest.mark.parametrize("strength", ["light", "strong"])
def test_augmentation_depends_only_on_the_generator(picture, strength):
    first, again, other = (augment(picture, RECIPE, strength, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (32, 48, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5
    assert picture.pixels.shape == data.coffee().shape


def test_strong_changes_more_than_light(picture):
    plain = to_pixels(picture, RECIPE).mean((0, 1))
    spread = {}
    for strength in ("light", "strong"):
        means = [augment(picture, RECIPE, strength, np.random.default_rng(seed)).mean((0, 1)) for seed in range(60)]
        spread[strength] = np.std(means, axis=0).mean()
        assert np.abs(np.mean(means, axis=0) - plain).max() < 25
    assert spread["strong"] > 1.2 * spread["light"]


@pytest.mark.parametrize("size", [(1, 1), (2, 400), (400, 2)])
def test_images_of_any_shape_are_augmented(size):
    picture = decode_pixels(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8), RECIPE)
    for seed in range(10):
        assert augment(picture, RECIPE, "strong", np.random.default_rng(seed)).shape == (32, 48, 3)


def test_half_of_the_images_are_flipped(picture):
    """An image that is dark on the left is dark on the right in about half of the copies."""
    ramp = np.broadcast_to(np.linspace(0, 255, 200, dtype=np.uint8)[None, :, None], (150, 200, 3))
    gradient = decode_pixels(np.ascontiguousarray(ramp), RECIPE)
    flipped = 0
    for seed in range(200):
        pixels = augment(gradient, RECIPE, "light", np.random.default_rng(seed)).astype(float)
        flipped += pixels[:, 0].mean() > pixels[:, -1].mean()
    assert 70 < flipped < 130
