"""Conversion of all image modes of Pillow, and of samples of any depth, to 8-bit RGB."""

from __future__ import annotations

from collections import Counter

import numpy as np
from PIL import Image, ImageCms

from embedpipe.decoding.colours import read_profile
from embedpipe.decoding.samples import Range, Samples, image_of, pick, to_bytes
from embedpipe.errors import DecodeError

#: Formats that declare the range of their values, which Pillow has scaled to 16 bits.
_EXACT_FORMATS = ("PPM", "JPEG2000")


def to_rgb(image: Image.Image, range: Range | None, channels: tuple[int, ...], counts: Counter[str]) -> Image.Image:
    """Convert a loaded image to a new image of mode RGB.

    Transparency, from an alpha channel, a palette or a colour key, is composited on white. Values of more than 8 bits
    are scaled as `embedpipe.decoding.samples.to_bytes` does. A colour profile that is far from sRGB is applied; CMYK
    without a profile is converted by the usual formula, and counted.

    Raises
    ------
    DecodeError
        The range of the values is not clear, or there are not so many channels.
    """
    profile = image.info.get("icc_profile")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)[..., None]
        samples = Samples(values, 0 if image.mode == "F" else 16, colours=1, exact=image.format in _EXACT_FORMATS)
        return samples_to_rgb(samples, profile, range, channels, counts)
    converted = _in_srgb(_opaque(image, counts), profile, counts)
    if channels:
        return image_of(pick(np.asarray(converted), channels)).convert("RGB")
    return converted.copy() if converted is image else converted  # independent of the file, which the caller closes


def samples_to_rgb(
    samples: Samples, profile: bytes | None, range: Range | None, channels: tuple[int, ...], counts: Counter[str]
) -> Image.Image:
    """Convert samples to an image of mode RGB; see `to_rgb`."""
    image = image_of(to_bytes(samples, range, channels, counts))
    return image.convert("RGB") if channels else _in_srgb(image, profile, counts)


def _opaque(image: Image.Image, counts: Counter[str]) -> Image.Image:
    """Composite a transparent image on white, in mode L or RGB; return any other image as it is."""
    if not image.has_transparency_data:
        return image
    # Pillow cannot convert La (gray with premultiplied alpha) directly to RGBA.
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    lowest, _ = rgba.getchannel("A").getextrema()
    if isinstance(lowest, int | float) and lowest < 255:
        counts["images with transparency"] += 1
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    rgb = Image.alpha_composite(white, rgba).convert("RGB")
    return rgb.getchannel(0) if image.mode in ("L", "LA", "La") else rgb


def _in_srgb(image: Image.Image, profile: bytes | None, counts: Counter[str]) -> Image.Image:
    """Convert an image without transparency to RGB; the same image if it needs no conversion."""
    if image.mode == "LAB":
        return _from_lab(image)
    if profile is not None:
        mode = image.mode if image.mode in ("L", "CMYK") else "RGB"
        loaded = read_profile(profile, mode)
        if not loaded.is_readable and mode == "L":  # gray images with a profile of RGB
            mode, loaded = "RGB", read_profile(profile, "RGB")
        if loaded.transform is not None:
            return loaded.to_srgb(image if image.mode == mode else image.convert(mode))
        if loaded.is_readable:
            return image if image.mode == "RGB" else image.convert("RGB")
        counts["unreadable colour profiles"] += 1
    if image.mode == "CMYK":
        counts["CMYK images without a profile"] += 1
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_lab(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.applyTransform(image, ImageCms.buildTransform(lab, srgb, "LAB", "RGB"))
    if converted is None:
        raise DecodeError("the LAB image cannot be converted to RGB")
    return converted
