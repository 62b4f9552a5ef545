"""Augmentation of training images: crops, flips, colours and erased patches, all drawn from one generator."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance

from embedpipe.decoding import Picture, to_pixels
from embedpipe.decoding.recipe import Preprocessing

Pixels = npt.NDArray[np.uint8]
Strength = Literal["none", "light", "strong"]

#: Smallest share of the image that a crop covers.
CROP_SHARES = {"light": 0.5, "strong": 0.25}
#: Range of the aspect ratio of a crop, before it is scaled to the network's size.
ASPECT_RATIOS = (3 / 4, 4 / 3)
#: Brightness, contrast and saturation are changed by up to this share.
JITTER = 0.3
CHANGES = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
#: Probability that a strong augmentation erases a patch, and the range of the patch's share of the image.
ERASE_PROBABILITY, PATCH_SHARES = 0.25, (0.02, 0.2)


def augment(picture: Picture, recipe: Preprocessing, strength: Strength, rng: np.random.Generator) -> Pixels:
    """Augment and preprocess an image for training.

    Parameters
    ----------
    picture : Picture
        Decoded, of any size.
    recipe : Preprocessing
        The preprocessing of the network; ``none`` returns exactly its pixels.
    strength : str
        ``none``; ``light``: a random crop of at least half the image, scaled to the network's size (Szegedy et al.,
        CVPR 2015), and flipped with probability 0.5; ``strong``: a crop of at least a quarter, a flip, brightness,
        contrast and saturation changed by up to 30 %, and a patch erased with probability 0.25 (Zhong et al., AAAI
        2020).
    rng : numpy.random.Generator

    Returns
    -------
    pixels : uint8 array (h, w, 3)
    """
    if strength == "none":
        return to_pixels(picture, recipe)
    whole = picture.upright(picture.pixels)
    left, top, right, bottom = _crop_box((whole.shape[1], whole.shape[0]), CROP_SHARES[strength], rng)
    part = np.ascontiguousarray(whole[top:bottom, left:right])
    scaled = dataclasses.replace(recipe, resize=recipe.crop, fit="squash")
    pixels = to_pixels(Picture(part, (right - left, bottom - top), profile=picture.profile), scaled)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    if strength == "strong":
        image = Image.fromarray(np.ascontiguousarray(pixels))
        for change in rng.permutation(len(CHANGES)).tolist():
            image = CHANGES[change](image).enhance(float(rng.uniform(1 - JITTER, 1 + JITTER)))
        pixels = np.asarray(image)
        if rng.random() < ERASE_PROBABILITY:
            pixels = _erase_patch(pixels, rng)
    return np.ascontiguousarray(pixels)


def _crop_box(size: tuple[int, int], smallest: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a random crop; the whole image if ten draws do not fit into it."""
    width, height = size
    for _ in range(10):
        area = width * height * rng.uniform(smallest, 1)
        ratio = math.exp(rng.uniform(*np.log(ASPECT_RATIOS)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    return 0, 0, width, height


def _erase_patch(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    height, width, _ = pixels.shape
    side = math.sqrt(rng.uniform(*PATCH_SHARES))
    h, w = max(1, round(height * side)), max(1, round(width * side))
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    pixels = pixels.copy()
    pixels[top : top + h, left : left + w] = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
    return pixels
