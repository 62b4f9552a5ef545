"""PNG files of 16 bits, which Pillow cuts to 8 bits if they have colours or opacity."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedpipe.decoding.samples import Samples

_GRAY, _RGB, _GRAY_ALPHA, _RGB_ALPHA = 0, 2, 4, 6


def has_16_bits(data: bytes) -> bool:
    """Return whether a file is a PNG with 16 bits per sample."""
    return data[:8] == b"\x89PNG\r\n\x1a\n" and data[24:25] == b"\x10"


def read_samples(data: bytes, image: Image.Image) -> Samples:
    """Return the samples of a PNG of 16 bits, which Pillow has opened. Raises what Pillow raises for damaged files."""
    colour_type = data[25]
    if colour_type == _GRAY:
        values = np.asarray(image)[..., None]
    elif colour_type == _GRAY_ALPHA:
        # The same bytes are the pixels of an RGBA image of 8 bits.
        header = data[12:24] + bytes((8, _RGB_ALPHA)) + data[26:29]
        as_rgba = data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
        with Image.open(io.BytesIO(as_rgba), formats=("PNG",)) as pairs:
            values = np.asarray(pairs).view(">u2").astype(np.uint16)
    else:
        mode = "RGB" if colour_type == _RGB else "RGBA"
        # Pillow keeps the first byte of each sample, or the second if it is told that the bytes are swapped.
        values = _half(data, f"{mode};16B").astype(np.uint16) << 8 | _half(data, f"{mode};16L")
    has_alpha = colour_type in (_GRAY_ALPHA, _RGB_ALPHA)
    key = image.info.get("transparency")
    if key is not None and not has_alpha:
        visible = (values != np.array(key, np.uint16)).any(axis=2, keepdims=True)
        values, has_alpha = np.concatenate([values, visible * np.uint16(65535)], axis=2), True
    return Samples(values, 16, "straight" if has_alpha else "", values.shape[2] - has_alpha)


def _half(data: bytes, raw_mode: str) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        image.tile = [tile._replace(args=raw_mode) for tile in image.tile]
        return np.asarray(image)
