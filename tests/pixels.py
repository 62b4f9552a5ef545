"""The pixels of pictures that were drawn, and how many have a colour."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgb
from PIL import Image


def pixels(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Return the pixels of a file, (height, width, 3)."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def area(picture: str | os.PathLike[str] | npt.NDArray[np.uint8], colour: Any, tolerance: float = 1.0) -> int:
    """Return the number of pixels whose values differ from those of a colour by at most the tolerance, of 255."""
    picture = picture if isinstance(picture, np.ndarray) else pixels(picture)
    wanted = np.array(to_rgb(colour)) * 255
    # Single bytes are compared, as pictures of millions of floats take seconds.
    low = np.clip(np.ceil(wanted - tolerance), 0, 255).astype(np.uint8)
    high = np.clip(np.floor(wanted + tolerance), 0, 255).astype(np.uint8)
    inside = np.ones(picture.shape[:2], bool)
    for channel in range(3):
        inside &= (picture[..., channel] >= low[channel]) & (picture[..., channel] <= high[channel])
    return int(inside.sum())
