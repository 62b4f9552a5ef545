"""Changed copies of training pictures: crops, flips, colours, erased patches; the same for the same generator."""

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

#: Least share of the picture that a crop shows.
CROPS = {"light": 0.5, "strong": 0.25}
#: Width to height of a crop, before it is scaled to the network's size.
RATIOS = (3 / 4, 4 / 3)
#: Brightness, contrast and saturation are changed by up to this share.
JITTER = 0.3
CHANGES = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
#: How often a patch of a strongly augmented picture is erased, and which share of it.
ERASED, PATCH = 0.25, (0.02, 0.2)


def augment(picture: Picture, recipe: Preprocessing, strength: Strength, rng: np.random.Generator) -> Pixels:
    """Return a picture as a network is trained on it.

    Parameters
    ----------
    picture : Picture
        Decoded, at any size.
    recipe : Preprocessing
        The network's; ``none`` gives exactly its pixels.
    strength : str
        ``light``: a crop of half the picture or more, of a random shape, scaled to the network's size (Szegedy et al.,
        CVPR 2015), mirrored half the time. ``strong``: crops of a quarter or more, brightness, contrast and saturation
        changed by up to 30 %, and every fourth has a patch erased (Zhong et al., AAAI 2020).
    rng : numpy.random.Generator

    Returns
    -------
    pixels : uint8 array (h, w, 3)
    """
    if strength == "none":
        return to_pixels(picture, recipe)
    whole = picture.upright(picture.pixels)
    left, top, right, bottom = _box((whole.shape[1], whole.shape[0]), CROPS[strength], rng)
    part = np.ascontiguousarray(whole[top:bottom, left:right])
    scaled = dataclasses.replace(recipe, resize=recipe.crop, fit="squash")
    pixels = to_pixels(Picture(part, (right - left, bottom - top)), scaled)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    if strength == "strong":
        image = Image.fromarray(np.ascontiguousarray(pixels))
        for which in rng.permutation(len(CHANGES)).tolist():
            image = CHANGES[which](image).enhance(float(rng.uniform(1 - JITTER, 1 + JITTER)))
        pixels = np.asarray(image)
        if rng.random() < ERASED:
            pixels = _erased(pixels, rng)
    return np.ascontiguousarray(pixels)


def _box(size: tuple[int, int], least: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a random crop; the whole picture where ten draws do not fit into it."""
    width, height = size
    for _ in range(10):
        area = width * height * rng.uniform(least, 1)
        ratio = math.exp(rng.uniform(*np.log(RATIOS)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    return 0, 0, width, height


def _erased(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    height, width, _ = pixels.shape
    side = math.sqrt(rng.uniform(*PATCH))
    h, w = max(1, round(height * side)), max(1, round(width * side))
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    pixels = pixels.copy()
    pixels[top : top + h, left : left + w] = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
    return pixels
