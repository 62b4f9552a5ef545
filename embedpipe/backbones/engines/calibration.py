"""Images that are the same in every installation: a network is quantised on some and checked on others.

They are not the user's data: a spec declares the vectors, so quantisation must give the same network on any data set.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_sample_images

Images = npt.NDArray[np.uint8]

#: The part of each photograph that crops are taken from, as fractions of its width.
_PARTS = {"fit": (0.0, 0.6), "check": (0.6, 1.0)}


def crop_photographs(image: tuple[int, ...], count: int, part: Literal["fit", "check"]) -> Images:
    """Return crops of scikit-learn's two sample photographs, the same in every call.

    Some are grey, darker or brighter, flipped, negative, or have their colours exchanged, since two photographs do not
    show everything that a network may see.

    Parameters
    ----------
    image : tuple of int
        Height, width, 3.
    count : int
    part : {"fit", "check"}
        The left or the right part of each photograph; the two parts share no pixels.

    Returns
    -------
    ndarray
        uint8 (count, height, width, 3).
    """
    height, width, _ = image
    photographs = [_cut(Image.fromarray(pixels), *_PARTS[part]) for pixels in _photographs()]
    random = np.random.default_rng(0)
    crops = np.empty((count, height, width, 3), np.uint8)
    for i in range(count):
        photograph = photographs[i % len(photographs)]
        side = random.uniform(0.3, 1.0) * min(photograph.size)
        left, top = (random.uniform(0, length - side) for length in photograph.size)
        crop = photograph.resize((width, height), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
        crops[i] = _vary(np.asarray(crop), i // len(photographs) % 6, random)
    return crops


def _photographs() -> list[Images]:
    bunch: Any = load_sample_images()
    return list(bunch.images)


def _cut(photograph: Image.Image, start: float, stop: float) -> Image.Image:
    return photograph.crop((int(start * photograph.width), 0, int(stop * photograph.width), photograph.height))


def _vary(pixels: Images, kind: int, random: np.random.Generator) -> Images:
    values = pixels.astype(np.float64)
    if kind in (2, 4):
        values = np.repeat(values.mean(axis=2, keepdims=True), 3, axis=2)
    if kind in (3, 4):
        values = 255 * (values / 255) ** random.uniform(0.4, 2.5)
    if kind == 5:
        values = random.permutation(values, axis=2)
        values = 255 - values if random.random() < 0.5 else values
    if random.random() < 0.5:
        values = values[:, ::-1]
    return np.rint(values).astype(np.uint8)
