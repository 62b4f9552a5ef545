"""What the cases of odd pictures share: the pixels that are written, and what is expected."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import picture_files as files
import tifffile
from oddities import encode
from picture_files import GRAY, RGB
from PIL import Image

Array = np.ndarray[Any, np.dtype[Any]]
WIDE = RGB.astype(np.uint16) * 257
TWELVE = (RGB.astype(np.uint16) << 4) | (RGB >> 4)
ALPHA = np.broadcast_to(np.arange(64, dtype=np.uint8) * 4, (48, 64))
BANDS = np.stack([RGB[..., i % 3] // (1 + i // 3) for i in range(5)])
FLOATS = RGB.astype(np.float32) / 255


class Case(NamedTuple):
    """A file, its pixels or the reason of its refusal, and the counts."""

    data: bytes
    expected: Array | str
    counts: Mapping[str, int] = {}
    tolerance: int = 0
    options: Mapping[str, Any] = {}


def made(values: Array, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, metadata=None, **options)
    return file.getvalue()


def on_white(colours: Array, alpha: Array) -> Array:
    share = alpha[..., None] / 255
    return np.floor(colours * share + 255 * (1 - share) + 0.5).astype(np.uint8)


def naive_cmyk(inks: Array) -> Array:
    light = 255 - inks.astype(float)
    return light[..., :3] * light[..., 3:] / 255


def with_profile(matrix: Array | None, gamma: float, pixels: Array = RGB, format: str = "PNG") -> bytes:
    return encode(Image.fromarray(pixels), format, icc_profile=files.profile(matrix, gamma), **LOSSLESS.get(format, {}))


def photo(image: Image.Image, format: str, **options: Any) -> bytes:
    return encode(image, format, **options, **LOSSLESS.get(format, {}))


LOSSLESS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
PICTURE = Image.fromarray(RGB)
ROTATED = np.rot90(RGB, -1)
_exif = Image.Exif()
_exif[0x0112] = 6
EXIF = _exif.tobytes()
FRAMES: dict[str, Any] = {"save_all": True, "append_images": [Image.new("RGB", (64, 48), c) for c in ("red", "blue")]}
INKS = np.stack([GRAY, RGB[..., 1], RGB[..., 2], GRAY // 3], axis=-1)
RANGE_12 = {"range 0:4095": 1}
TWO_PAGES = {"files of several pages": 1, "pages left out": 2}
TWO_FRAMES = {"files of several frames": 1, "frames left out": 2}
THREE = Image.fromarray(np.stack([GRAY] * 3, axis=-1)).quantize(16)
