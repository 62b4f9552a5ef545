"""The samples of TIFF files that Pillow reads with other values or not at all."""

from __future__ import annotations

import io
import struct
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from embedpipe.decoding.samples import Opacity, Samples
from embedpipe.errors import DecodeError

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_FILL_ORDER, _OFFSETS, _ORIENTATION, _SAMPLES, _ROWS, _SIZES, _PLANAR, _PREDICTOR = (
    266,
    273,
    274,
    277,
    278,
    279,
    284,
    317,
)
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_SIZES, _EXTRA, _FORMAT, _COLOUR_PROFILE = (
    322,
    323,
    324,
    325,
    338,
    339,
    34675,
)

#: Number of channels of each photometric interpretation: white is zero, black is zero, RGB, CMYK.
_COLOURS = {0: 1, 1: 1, 2: 3, 5: 4}
#: Those, and palette, YCbCr and CIELAB, with the samples of a pixel that Pillow reads right if they have up to 8 bits.
_BY_PILLOW = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}

#: Compressions that keep bytes as they are, apart from a predictor: none, LZW, Deflate, PackBits, Zstandard, LZMA.
_LOSSLESS = (1, 5, 8, 32946, 32773, 50000, 34925)

#: Sample format -> kind of number in numpy, and depths in bits: unsigned and signed integers, and floats.
_KINDS = {1: "u", 2: "i", 3: "f"}
_DEPTHS_OF = {1: (*range(1, 33), 64), 2: (8, 16, 32, 64), 3: (16, 32, 64)}

_OPACITY: dict[int, Opacity] = {1: "premultiplied", 2: "straight"}

#: Most bytes of samples of an image.
BYTES_LIMIT = 1 << 30


class TiffPage:
    """The tags of the first page of a file. Raises DecodeError if they cannot be read."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        try:
            header = data[:16] if 43 in data[2:4] else data[:8]
            self._tags = TiffImagePlugin.ImageFileDirectory_v2(header)
            file = io.BytesIO(data)
            file.seek(self._tags.next)
            self._tags.load(file)
        except Exception as error:
            raise DecodeError(f"truncated or damaged TIFF: {error or type(error).__name__}") from error
        self.width, self.height = self._int(_WIDTH, 0), self._int(_HEIGHT, 0)
        self.samples = self._int(_SAMPLES, 1)
        self.photometric = self._int(_PHOTOMETRIC, 1)
        self.compression = self._int(_COMPRESSION, 1)
        self.extra = self._ints(_EXTRA)
        self.planar = self._int(_PLANAR, 1) == 2 and self.samples > 1
        self._bits = set(self._ints(_BITS)) or {1}
        self._formats = set(self._ints(_FORMAT)) or {1}

    @property
    def is_for_pillow(self) -> bool:
        """Whether Pillow reads the right pixels: 8 bits or fewer, in a known colour, with no channels beside alpha."""
        colours = _BY_PILLOW.get(self.photometric)
        whole = max(self._bits) <= 8 and self._formats <= {1, 4}
        if self.compression not in _LOSSLESS and whole:
            return True  # JPEG and fax
        alpha = bool(self.extra) and self.extra[0] in (1, 2) and self.photometric in (1, 2) and self._bits == {8}
        return whole and colours is not None and not self.planar and self.samples == colours + alpha

    @property
    def is_readable(self) -> bool:
        """Whether `read` supports this kind: channels without palette or subsampling, and a lossless compression."""
        bits, format = next(iter(self._bits)), next(iter(self._formats))
        return (
            (len(self._bits), len(self._formats)) == (1, 1)
            and bits in _DEPTHS_OF.get(format, ())
            and self.compression in _LOSSLESS
            and self.photometric in _COLOURS
            and self.samples >= _COLOURS[self.photometric] + bool(self._opacity)
            and self._int(_FILL_ORDER, 1) == 1
        )

    @property
    def orientation(self) -> int:
        """The orientation, 1 to 8; 1 is upright."""
        return self._int(_ORIENTATION, 1)

    @property
    def profile(self) -> bytes | None:
        """The colour profile."""
        value = self._tags.get(_COLOUR_PROFILE)
        return value if isinstance(value, bytes) else None

    @property
    def _opacity(self) -> Opacity:
        return _OPACITY.get(self.extra[-1], "") if self.extra else ""

    def read(self) -> Samples:
        """Return the samples. Raises DecodeError if they are truncated, or of a kind that is not supported."""
        if not self.is_readable:
            raise self.unsupported()
        (bits,), (format,) = self._bits, self._formats
        values = self._assemble(
            bits, np.dtype(f"{_KINDS[format]}{next(size for size in (1, 2, 4, 8) if bits <= 8 * size)}")
        )
        colours = _COLOURS[self.photometric]
        declared = colours if colours > 1 or self.samples - bool(self._opacity) == 1 else 0
        exact = bits % 8 > 0 or colours == 4
        return Samples(values, 0 if format == 3 else bits, self._opacity, declared, self.photometric == 0, exact)

    def _assemble(self, bits: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the samples of all strips or tiles as (height, width, samples)."""
        depth = 1 if self.planar else self.samples
        if _TILE_WIDTH in self._tags:
            wide, high = self._int(_TILE_WIDTH, 0), self._int(_TILE_HEIGHT, 0)
            offsets, sizes = self._ints(_TILE_OFFSETS), self._ints(_TILE_SIZES)
        else:
            wide, high = self.width, min(self._int(_ROWS, self.height), self.height)
            offsets, sizes = self._ints(_OFFSETS), self._ints(_SIZES)
        total = self.width * self.height * self.samples * dtype.itemsize
        if (
            min(self.width, self.height, wide, high) < 1
            or max(total, wide * high * depth * dtype.itemsize) > BYTES_LIMIT
        ):
            raise DecodeError(
                f"too large to decode safely: a TIFF must have at most {BYTES_LIMIT} bytes of samples, got {total} in "
                f"tiles of {wide} x {high}: scale the file down"
            )
        across, down = -(-self.width // wide), -(-self.height // high)
        planes = self.samples if self.planar else 1
        if not sizes and self.compression == 1 and len(offsets) == 1:
            sizes = (len(self._data) - offsets[0],)
        if min(len(offsets), len(sizes)) < across * down * planes:
            raise DecodeError("truncated or damaged TIFF: strips or tiles are missing")
        result = np.empty((self.height, self.width, self.samples), dtype)
        for number in range(across * down * planes):
            plane, place = divmod(number, across * down)
            top, left = place // across * high, place % across * wide
            rows = min(high, self.height - top)
            stored = high if _TILE_WIDTH in self._tags else rows
            part = self._segment(offsets[number], sizes[number], (stored, wide, depth), bits, dtype)
            part = part[:rows, : self.width - left]
            channels = slice(plane, plane + 1) if self.planar else slice(None)
            result[top : top + rows, left : left + wide, channels] = part
        return result

    def _segment(
        self, offset: int, size: int, shape: tuple[int, int, int], bits: int, dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        """Return one strip or tile as an array of ``shape``."""
        rows, columns, depth = shape
        row = -(-columns * depth * bits // 8)
        data = self._data[offset : offset + size]
        if self.compression != 1:
            data = _decompress(data, rows * row, self.compression)
        if len(data) < rows * row:
            raise DecodeError("truncated or damaged TIFF: a strip or tile is too short")
        order: Literal["<", ">"] = "<" if self._data[:2] == b"II" else ">"
        predictor = self._int(_PREDICTOR, 1)
        if predictor == 3 and dtype.kind == "f":
            return _undo_float_predictor(data, shape, dtype)
        if bits == dtype.itemsize * 8:
            values = np.frombuffer(data, dtype.newbyteorder(order), rows * columns * depth)
            values = values.reshape(shape).astype(dtype, copy=False)
        else:
            ones = np.unpackbits(np.frombuffer(data, np.uint8, rows * row).reshape(rows, row), axis=1)
            ones = ones[:, : columns * depth * bits].reshape(rows, columns * depth, bits)
            values = np.zeros((rows, columns * depth), dtype)
            for bit in range(bits):
                values = values << dtype.type(1) | ones[..., bit]
            values = values.reshape(shape)
        if predictor == 2:
            values = np.add.accumulate(values, axis=1, dtype=dtype)
        elif predictor != 1:
            raise self.unsupported()
        return values

    def _ints(self, tag: int) -> tuple[int, ...]:
        value = self._tags.get(tag, ())
        values = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(each, int) for each in values):
            raise DecodeError(f"truncated or damaged TIFF: tag {tag} is not an integer")
        return values

    def _int(self, tag: int, default: int) -> int:
        values = self._ints(tag)
        return values[0] if values else default

    def unsupported(self) -> DecodeError:
        """Return the error for a kind of TIFF that cannot be read."""
        bits, formats = "/".join(map(str, sorted(self._bits))), "/".join(map(str, sorted(self._formats)))
        return DecodeError(
            f"a TIFF with {self.samples} samples of {bits} bits, format {formats}, photometric {self.photometric} and "
            f"compression {self.compression} is not supported: save it as 8 or 16 bits, gray or RGB"
        )


def _decompress(data: bytes, size: int, compression: int) -> bytes:
    """Decompress one strip or tile: libtiff reads it as one row of bytes."""
    tags = {_WIDTH: size, _HEIGHT: 1, _BITS: 8, _COMPRESSION: compression, _PHOTOMETRIC: 1, _SAMPLES: 1, _ROWS: 1}
    tags |= {_OFFSETS: 0, _SIZES: len(data)}
    start = 8 + 2 + 12 * len(tags) + 4
    tags[_OFFSETS] = start
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    file = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data
    with Image.open(io.BytesIO(file), formats=("TIFF",)) as image:
        return image.tobytes()


def _undo_float_predictor(data: bytes, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Undo the floating-point predictor of Adobe (Photoshop TIFF technical note 3): differences of planes of bytes."""
    rows, columns, depth = shape
    size = dtype.itemsize
    planes = np.frombuffer(data, np.uint8, rows * columns * depth * size).reshape(rows, -1, depth)
    planes = np.add.accumulate(planes, axis=1, dtype=np.uint8).reshape(rows, size, columns * depth)
    whole = np.ascontiguousarray(planes.transpose(0, 2, 1))
    return whole.view(dtype.newbyteorder(">")).reshape(shape).astype(dtype)
