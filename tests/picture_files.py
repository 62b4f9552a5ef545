"""Files of pictures byte by byte: TIFF, PNG and colour profiles of kinds that no library here writes."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from oddities import png_chunk
from PIL import Image

Array = NDArray[Any]

#: Smooth pixels of 48 x 64, as computed, and their first channel.
_y, _x = np.mgrid[0:48, 0:64]
RGB = np.stack([_x * 255 // 63, _y * 255 // 47, (_x + _y) * 255 // 110], axis=-1).astype(np.uint8)
GRAY = RGB[..., 0]


def gray_to_rgb(values: Array) -> Array:
    """Return a gray picture with three equal channels."""
    return np.dstack([values] * 3)


def tiff(strips: list[bytes], shape: tuple[int, int], order: str = "<", **tags: Any) -> bytes:
    """Return a TIFF of one page with strips or tiles; tags by name t258=(16, 16, 16)."""
    numbers = {256: (shape[1],), 257: (shape[0],), 258: (8,), 259: (1,), 262: (1,), 277: (1,), 278: (shape[0],)}
    numbers |= {int(name[1:]): value if isinstance(value, tuple) else (value,) for name, value in tags.items()}
    place, offsets = 8, []
    for strip in strips:
        offsets.append(place)
        place += len(strip) + len(strip) % 2
    tiled = 322 in numbers
    numbers |= {324 if tiled else 273: tuple(offsets), 325 if tiled else 279: tuple(map(len, strips))}
    after = place + 2 + 12 * len(numbers) + 4
    entries, more = b"", b""
    for tag, values in sorted(numbers.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(packed) > 4:
            more, packed = more + packed, struct.pack(order + "I", after + len(more))
        entries += struct.pack(order + "HHI", tag, 4, len(values)) + packed
    data = b"".join(strip + bytes(len(strip) % 2) for strip in strips)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", place)
    return head + data + struct.pack(order + "H", len(numbers)) + entries + bytes(4) + more


def compressed(data: bytes, compression: str) -> bytes:
    """Return bytes as libtiff compresses them: one strip of one row."""
    file = io.BytesIO()
    Image.frombytes("L", (len(data), 1), data).save(file, "TIFF", compression=compression)
    with Image.open(io.BytesIO(file.getvalue())) as image:
        start, size = image.tag_v2[273][0], image.tag_v2[279][0]  # type: ignore[attr-defined]
    return file.getvalue()[start : start + size]


def packed(values: Array, bits: int) -> bytes:
    """Return integers with so many bits each, the rows on whole bytes."""
    ones = (values.reshape(len(values), -1, 1) >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(ones.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


#: First row, first column, and steps of the passes of an interlaced PNG.
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def png_file(values: Array, colour_type: int, bits: int = 8, extra: bytes = b"", interlaced: bool = False) -> bytes:
    """Return a PNG with samples of 1 to 16 bits; ``extra`` are chunks before the pixels."""
    values = values[..., None] if values.ndim == 2 else values
    parts = [values[y::down, x::across] for y, x, down, across in _PASSES] if interlaced else [values]
    rows = [
        packed(row[None], bits) if bits < 8 else row.astype(f">u{bits // 8}").tobytes()
        for part in parts
        if part.size
        for row in part
    ]
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, colour_type, 0, 0, interlaced)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


#: From linear RGB to XYZ at D50: of Display P3, of ProPhoto, and of sRGB (from their primaries, adapted by Bradford).
P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
PROPHOTO = np.array([[0.79767, 0.13519, 0.03135], [0.28804, 0.71188, 0.00009], [0.0, 0.0, 0.82521]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06062], [0.01392, 0.09708, 0.71410]])


def profile(matrix: Array | None, gamma: float) -> bytes:
    """Return a colour profile of RGB with a matrix, or of gray without, and a power as its curve."""

    def xyz(values: Array) -> bytes:
        return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    tags = {
        b"wtpt": xyz(np.array([0.9642, 1, 0.8249])),
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"t\0" + bytes(78),
    }
    if matrix is None:
        tags[b"kTRC"] = curve
    else:
        tags |= {name + b"XYZ": xyz(matrix[:, i]) for i, name in enumerate((b"r", b"g", b"b"))}
        tags |= {name + b"TRC": curve for name in (b"r", b"g", b"b")}
    return _profile(b"RGB " if matrix is not None else b"GRAY", b"XYZ ", tags)


def cmyk_profile(lab: Array) -> bytes:
    """Return a profile of CMYK with the colours (L, a, b) of the sixteen mixtures of full inks, K the fastest."""
    codes = np.stack([lab[:, 0] * 255 / 100, lab[:, 1] + 128, lab[:, 2] + 128], axis=1).round().astype(np.uint8)
    ramp = bytes(range(256))
    table = (
        b"mft1"
        + bytes(4)
        + bytes((4, 3, 2, 0))
        + b"".join(struct.pack(">i", v << 16) for v in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    )
    table += ramp * 4 + codes.tobytes() + ramp * 3
    white = b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(v * 65536)) for v in (0.9642, 1, 0.8249))
    return _profile(b"CMYK", b"Lab ", {b"wtpt": white, b"A2B0": table, b"A2B1": table})


def _profile(space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    place, table, data = 132 + 12 * len(tags), b"", b""
    for name, value in tags.items():
        table += name + struct.pack(">II", place + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    size = place + len(data)
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    head = (
        struct.pack(">I", size) + bytes(4) + b"\2\x20\0\0" + kind + space + connection + bytes(12) + b"acsp" + bytes(28)
    )
    head += b"".join(struct.pack(">i", round(v * 65536)) for v in (0.9642, 1, 0.8249)) + bytes(48)
    return head + struct.pack(">I", len(tags)) + table + data


def from_profile(pixels: Array, matrix: Array, gamma: float) -> Array:
    """Return RGB pixels of such a profile in sRGB, by the formulas of IEC 61966-2-1."""
    linear = (pixels / 255) ** gamma @ matrix.T @ np.linalg.inv(SRGB).T
    return srgb_encoded(linear)


def srgb_encoded(linear: Array) -> Array:
    """Return linear values in 0..1 as 8-bit sRGB."""
    linear = np.clip(linear, 0, 1)
    values = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(255 * values).astype(np.uint8)
