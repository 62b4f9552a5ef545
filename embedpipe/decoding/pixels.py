"""Conversion of all image modes of Pillow to 8-bit RGB."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageCms

from embedpipe.errors import DecodeError


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image to mode RGB.

    Transparency, from an alpha channel, a palette or a colour key, is composited on white. Integers of 16 bits
    (which Pillow opens with 32 bits in some formats) are scaled from 0..65535 to 0..255 with rounding. Floats are
    scaled by 255 if all lie in 0..1, and otherwise taken as 0..255 and clipped.

    Raises
    ------
    DecodeError
        A float image has NaN or infinite values.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()  # independent of the file, which the caller closes
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _gray(np.asarray(image).astype(np.float64) * (255 / 65535))
    if image.mode == "F":
        return _from_floats(np.asarray(image, dtype=np.float64))
    if image.mode == "LAB":
        return _from_lab(image)
    if image.has_transparency_data:
        # Pillow cannot convert La (gray with premultiplied alpha) directly to RGBA.
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _from_floats(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Image.Image:
    if not np.isfinite(values).all():
        raise DecodeError("a float image must be finite, got NaN or infinite values: replace them")
    return _gray(values * 255 if values.min() >= 0 and values.max() <= 1 else values)


def _gray(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Image.Image:
    rounded = np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)
    return Image.fromarray(rounded).convert("RGB")


def _from_lab(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.applyTransform(image, ImageCms.buildTransform(lab, srgb, "LAB", "RGB"))
    if converted is None:
        raise DecodeError("the LAB image cannot be converted to RGB")
    return converted
