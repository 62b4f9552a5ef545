"""Decoding of plain JPEGs with libjpeg-turbo: twice as fast as Pillow, and without the GIL."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from embedpipe.decoding.image import orientation_of, silence_pillow

_START_OF_SCAN, _APP1, _APP2 = 0xDA, 0xE1, 0xE2
#: Baseline, extended and progressive frames with Huffman coding.
_FRAMES = (0xC0, 0xC1, 0xC2)
#: Segments of tables, restart interval, application data and comments.
_OTHERS = {0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}

_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_PROFILE, _PARTS = b"ICC_PROFILE\0", b"MPF\0"


class JpegHeader(NamedTuple):
    """Header of a plain JPEG: size, metadata, the colour profile, and whether other images follow in the file."""

    width: int
    height: int
    is_gray: bool = False
    exif: bytes = b""
    xmp: bytes = b""
    profile: bytes = b""
    has_parts: bool = False

    def orientation(self) -> int:
        """Return the EXIF orientation, 1 to 8, as Pillow reads it."""
        if not self.exif and b"tiff:Orientation" not in self.xmp:
            return 1
        silence_pillow()
        holder = Image.new("1", (1, 1))
        holder.info = {name: data for name, data in (("exif", self.exif), ("xmp", self.xmp)) if data}
        orientation = orientation_of(holder)
        return orientation if 1 <= orientation <= 8 else 1


def read_header(data: bytes) -> JpegHeader | None:
    """Return the header of a plain JPEG; None for any other payload.

    A plain JPEG has 8 bits, one or three components, and no bytes between the segments. libjpeg then reads the same
    size.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    size, exif, xmp, profile, has_parts = None, b"", b"", b"", False
    place = 2
    while place + 10 < len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        length = data[place + 2] << 8 | data[place + 3]
        if marker == _START_OF_SCAN:
            return JpegHeader(*size, exif, xmp, profile, has_parts) if size else None
        if marker in _FRAMES:
            bits, height, width, components = struct.unpack_from(">BHHB", data, place + 4)
            if size or bits != 8 or components not in (1, 3) or not width * height:
                return None
            size = width, height, components == 1
        elif marker not in _OTHERS or length < 2:
            return None
        elif marker == _APP1:
            segment = data[place + 4 : place + 2 + length]
            if segment.startswith(_EXIF):
                exif += segment[len(_EXIF) :] if exif else segment
            elif segment.startswith(_XMP):
                xmp = segment[len(_XMP) :]
        elif marker == _APP2:
            if data.startswith(_PROFILE, place + 4):  # in parts, after their number and count
                profile += data[place + 18 : place + 2 + length]
            elif data.startswith(_PARTS, place + 4):
                has_parts = True
        place += 2 + length
    return None


def decode_jpeg(data: bytes, header: JpegHeader, reduction: int = 1) -> NDArray[np.uint8] | None:
    """Decode a plain JPEG in its stored orientation, at 1/reduction of its size, rounded up.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3), or None
        None if libjpeg-turbo gives an error or a warning.
    """
    height, width = (-(-length // reduction) if reduction > 1 else 0 for length in (header.height, header.width))
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width)
    except Exception:  # Pillow decodes it or gives a better error
        return None
    return pixels
