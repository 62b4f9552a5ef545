"""Colour profiles (ICC): transforms to sRGB, for profiles whose colours are far from it."""

from __future__ import annotations

import functools
import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

#: Largest difference in gray levels, over colours that fill the cube, of a profile that counts as sRGB.
_NEAR = 8

#: Largest profile in bytes that is read. Profiles of printers have about 3 MB.
_LARGEST = 1 << 24

#: Transforms are used by several threads, so that none may keep the last colour.
_FLAGS = ImageCms.Flags.NOCACHE | ImageCms.Flags.BLACKPOINTCOMPENSATION


class Profile(NamedTuple):
    """How a colour profile becomes sRGB.

    Parameters
    ----------
    transform : ImageCms.ImageCmsTransform, optional
        None if the colours are near sRGB, or the profile cannot be read.
    is_readable : bool
        False for a damaged profile, and for one of another colour space than the image.
    """

    transform: ImageCms.ImageCmsTransform | None
    is_readable: bool = True

    def to_srgb(self, image: Image.Image) -> Image.Image:
        """Return an image in sRGB."""
        if self.transform is None:
            return image
        converted = ImageCms.applyTransform(image, self.transform)
        return image if converted is None else converted

    def pixels_to_srgb(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return RGB pixels in sRGB."""
        return pixels if self.transform is None else np.array(self.to_srgb(Image.fromarray(pixels)))


@functools.lru_cache(maxsize=64)
def read_profile(data: bytes, mode: str) -> Profile:
    """Return the profile of an image of mode L, RGB, CMYK or LAB.

    The transform is relative colorimetric with black point compensation.
    """
    if len(data) > _LARGEST:
        return Profile(None, False)
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(data))
        srgb = ImageCms.createProfile("sRGB")
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        flags = _FLAGS | ImageCms.Flags.NOOPTIMIZE if mode == "L" else _FLAGS  # its table has few entries
        transform = ImageCms.buildTransform(source, srgb, mode, "RGB", intent, flags)
        if mode in ("L", "RGB"):
            probes = _probes(mode)
            converted = ImageCms.applyTransform(probes, transform)
            difference = np.abs(np.asarray(converted, int) - np.asarray(probes.convert("RGB"), int))
            if difference.max() <= _NEAR:
                return Profile(None)
    except Exception:  # of a damaged profile
        return Profile(None, False)
    return Profile(transform)


def _probes(mode: str) -> Image.Image:
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(9, 81, 3))
