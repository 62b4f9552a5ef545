"""What an exported script has in place of definitions of embedpipe that need torch, simplejpeg or more code."""

from __future__ import annotations

import importlib
import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedpipe.decoding.resizing import _output_side

#: Output rows or columns that are computed by one product of matrices.
_BLOCK = 16
#: Width of the filters in pixels of the output.
_WIDTHS = {"bilinear": 2, "bicubic": 4}


class EmbedpipeError(Exception):
    """What embedpipe's own errors have in common."""


class DecodeError(EmbedpipeError):
    """The bytes of an item cannot be decoded."""


class SourceError(EmbedpipeError):
    """A table cannot be read."""


class UsageError(EmbedpipeError, ValueError):
    """A setting of the model is wrong."""


class MissingExtraError(EmbedpipeError, ImportError):
    """A library is not installed."""


class Crop:
    """A part of a picture, which is no item of a script."""

    picture: Any
    box: Any


def option(name: str, value: object = None) -> str:
    """Return the name of an option in a message."""
    return f"{name} of `embedpipe embed`"


def require_one_of(name: str, word: Any, known: Any) -> None:
    """Raise UsageError for an unknown word."""
    if word not in known:
        raise UsageError(f"{name} must be one of {', '.join(known)}, got {word!r}")


def import_extra(name: str, extra: str) -> Any:
    """Import a module that may be missing."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{error.name} is not installed: pip install {error.name}") from error


def _part_of(crop: Any, preprocessing: Any) -> Any:
    raise NotImplementedError


def count_pages(data: bytes, counts: Any) -> None:
    """Count nothing."""


def count_frames(image: Any, counts: Any) -> None:
    """Count nothing."""


def decode_jpeg(data: bytes, header: Any, reduction: int = 1) -> NDArray[np.uint8] | None:
    """Decode a plain JPEG in its stored orientation, at 1/reduction of its size, rounded up; None if it is damaged."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "MPO")) as image:
            if reduction > 1:
                image.draft("RGB", (header.width // reduction, header.height // reduction))
            return np.array(image.convert("RGB"))
    except Exception:  # the usual way of decoding gives the reason
        return None


def _by_torch(picture: Any, down: Any, across: Any, interpolation: str) -> NDArray[np.uint8]:
    """Return the pixels of torch's antialiased kernels for uint8, without torch."""
    (height, y), (width, x) = (
        _output_side(*lengths) for lengths in zip(picture.pixels.shape, picture.extent, (down, across), strict=False)
    )
    turned = _resampled(np.ascontiguousarray(picture.pixels.swapaxes(0, 1)), width, x, interpolation)
    scaled = _resampled(np.ascontiguousarray(turned.swapaxes(0, 1)), height, y, interpolation)
    return scaled[down.start : down.end, across.start : across.end]


def _resampled(pixels: NDArray[np.uint8], length: int, scale: float | None, filter: str) -> NDArray[np.uint8]:
    """Return pixels with another number of rows: sums of products of bytes and 16-bit weights, rounded as in torch."""
    if len(pixels) == length:
        return pixels
    first, weights, bits = _weights(len(pixels), length, len(pixels) / length if scale is None else 1 / scale, filter)
    flat, taps = pixels.reshape(len(pixels), -1), weights.shape[1]
    result = np.empty((length, flat.shape[1]), np.uint8)
    for start in range(0, length, _BLOCK):
        stop = min(length, start + _BLOCK)
        low, high = int(first[start]), min(len(pixels), int(first[stop - 1]) + taps)
        block = np.zeros((stop - start, high - low))
        for row in range(start, stop):
            place = int(first[row]) - low
            block[row - start, place : place + taps] = weights[row, : high - low - place]
        # Sums stay below 2**53, so that float64 holds them exactly.
        sums = block @ flat[low:high].astype(np.float64) + 2.0 ** (bits - 1)
        result[start:stop] = np.clip(np.floor(sums / 2.0**bits), 0, 255)
    return result.reshape(length, *pixels.shape[1:])


def _weights(length: int, output: int, scale: float, filter: str) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
    """Return the first input of each output, the weights (output, taps) as integers, and their number of bits.

    As ``_compute_index_ranges_int16_weights`` of torch's UpSampleKernel.cpp, which follows Pillow's resize.
    """
    support = _WIDTHS[filter] / 2 * max(scale, 1.0)
    taps = math.ceil(support) * 2 + 1
    centre = scale * (np.arange(output) + 0.5)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    sizes = np.clip(np.minimum((centre + support + 0.5).astype(np.int64), length) - first, 0, taps)
    place = np.arange(taps)
    distances = np.abs((place + first[:, None] - centre[:, None] + 0.5) * (1 / scale if scale >= 1 else 1.0))
    weights = np.where(place < sizes[:, None], _FILTERS[filter](distances), 0.0)
    total = np.cumsum(weights, axis=1)[:, -1:]  # in the order of torch's sum
    np.divide(weights, total, out=weights, where=total != 0)
    bits = 0
    while bits < 22 and int(0.5 + weights.max() * 2 ** (bits + 1)) < 2**15:
        bits += 1
    return first, np.trunc(weights * 2**bits + np.where(weights < 0, -0.5, 0.5)), bits


def _bilinear(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(0.0, 1.0 - x)


def _bicubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    a = -0.5
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


_FILTERS = {"bilinear": _bilinear, "bicubic": _bicubic}
