"""Samples of any depth and number of channels, and the rules by which they become 8-bit gray or RGB."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedpipe._utils.option_names import option
from embedpipe.errors import DecodeError

#: Depths, in bits, that are tried for integers in a type of more bits than they use.
_DEPTHS = (8, 10, 12, 14, 16, 24, 32, 48, 64)

#: Values that are converted at a time, so that conversion takes little memory beside the samples.
_SLAB = 1 << 20

_NOT_FINITE = "a float image must be finite, got NaN or infinite values: replace them"

Range = tuple[float, float]
Opacity = Literal["", "straight", "premultiplied"]


class Samples(NamedTuple):
    """The samples of an image, before they become 8-bit.

    Parameters
    ----------
    values : ndarray, shape (height, width, channels)
        Integers or floats.
    bits : int
        Depth in bits that the file declares; 0 for floats.
    opacity : str
        Whether the last channel is opacity, and whether the others are multiplied by it.
    colours : int
        Number of channels of the declared colour: 1 for gray, 3 for RGB, 4 for CMYK; 0 if the file declares none.
    inverted : bool
        Whether 0 is white.
    exact : bool
        Whether the file declares the range of its values, so that none is inferred.
    """

    values: NDArray[Any]
    bits: int
    opacity: Opacity = ""
    colours: int = 0
    inverted: bool = False
    exact: bool = False


def to_bytes(
    samples: Samples, range: Range | None, channels: tuple[int, ...], counts: Counter[str]
) -> NDArray[np.uint8]:
    """Convert samples to 8-bit gray (1 channel), RGB (3) or CMYK (4), with opacity composited on white.

    Parameters
    ----------
    samples : Samples
    range : (float, float), optional
        The values that become 0 and 255, if the samples have more than 8 bits. None infers them; see `infer_range`.
    channels : tuple of int
        Channels to take, counted from 1: one for gray, three for RGB. Empty takes the declared colours.
    counts : Counter
        What is left out or inferred is added here.

    Returns
    -------
    ndarray of uint8, shape (height, width, 1, 3 or 4)

    Raises
    ------
    DecodeError
        The colours, or the range of the values, are neither declared nor clear.
    """
    values, opacity = samples.values, samples.opacity
    if channels:
        values, opacity = pick(values, channels), ""
    else:
        colours = _colours(samples)
        if left_out := values.shape[2] - colours - bool(opacity):
            counts["images with channels left out"] += 1
            counts["channels left out"] += left_out
        values = values[..., :colours]
    pixels = _scaled(values, samples, range, counts)
    if samples.inverted:
        np.subtract(255, pixels, out=pixels)
    if opacity:
        alpha = _scaled(samples.values[..., -1:], samples, None, Counter())
        if alpha.min() < 255:
            counts["images with transparency"] += 1
            _put_on_white(pixels, alpha, opacity == "premultiplied")
    return pixels


def pick(values: NDArray[Any], channels: tuple[int, ...]) -> NDArray[Any]:
    """Return these channels, counted from 1. Raises DecodeError if there are not so many."""
    if max(channels) > values.shape[2]:
        raise DecodeError(
            f"channels {list(channels)} need at least {max(channels)}, and the image has {values.shape[2]}"
        )
    return np.ascontiguousarray(values[..., [number - 1 for number in channels]])


def _colours(samples: Samples) -> int:
    """Return the number of channels of colour, which come first. Raises DecodeError if they are not declared."""
    count: int = samples.values.shape[2]
    colours = samples.colours or count - bool(samples.opacity)
    if not samples.colours and colours not in (1, 3):
        raise DecodeError(
            f"the image has {count} channels and does not declare which are red, green and blue: name one or three of "
            f"them ({option('channels', [1, 2, 3])})"
        )
    return colours


def infer_range(values: NDArray[Any], bits: int, exact: bool, counts: Counter[str]) -> Range:
    """Return the values that become 0 and 255, and count the image if its file does not declare them.

    Integers that need fewer bits than they have, as 12-bit data in 16-bit files, have the smallest depth that holds
    the largest of them: 8, 10, 12, 14, 16, 24 or 32 bits. Floats in 0..1 have that range. Other floats have that of
    integers if they are whole numbers.

    Raises
    ------
    DecodeError
        Values are negative, or floats beyond 0..1 with fractions, or not finite.
    """
    low, high = values.min().item(), values.max().item()
    if not np.isfinite(low) or not np.isfinite(high):
        raise DecodeError(_NOT_FINITE)
    if not bits and low >= 0 and high <= 1:
        return 0.0, 1.0
    if (
        low < 0
        or high >= 2.0**64
        or not (bits or all((values[r] == np.floor(values[r])).all() for r in _slabs(values)))
    ):
        raise DecodeError(
            f"values from {low:g} to {high:g} do not say which are black and white: give their range "
            f"({option('range', 'LOW:HIGH')})"
        )
    if exact or high == 0:
        return 0.0, 2.0**bits - 1
    depth = next(depth for depth in _DEPTHS if high < 2**depth)
    if depth != bits:
        counts[f"range 0:{2**depth - 1}"] += 1
    return 0.0, 2.0**depth - 1


def _scaled(values: NDArray[Any], samples: Samples, range: Range | None, counts: Counter[str]) -> NDArray[np.uint8]:
    """Return a new array of values scaled to 0..255 with rounding, in slabs of rows."""
    if samples.bits == 8 and values.dtype == np.uint8:
        return values.copy()
    if 0 < samples.bits <= 8 and values.dtype.kind == "u":
        low, high = 0.0, 2.0**samples.bits - 1
    elif range is None:
        low, high = infer_range(values, samples.bits, samples.exact, counts)
    else:
        low, high = range
        ends = values.min().item(), values.max().item()
        if not np.isfinite(ends).all():
            raise DecodeError(_NOT_FINITE)
        if ends[0] < low or ends[1] > high:
            counts["images with values beyond the range"] += 1

    def scale(part: NDArray[Any]) -> NDArray[np.uint8]:
        bounded = np.clip((part.astype(np.float64) - low) * (255 / (high - low)), 0, 255)
        return np.floor(bounded + 0.5).astype(np.uint8)

    if values.dtype == np.uint16:
        table: NDArray[np.uint8] = scale(np.arange(65536))
        return np.take(table, values)
    pixels = np.empty(values.shape, np.uint8)
    for rows in _slabs(values):
        pixels[rows] = scale(values[rows])
    return pixels


def _put_on_white(pixels: NDArray[np.uint8], alpha: NDArray[np.uint8], premultiplied: bool) -> None:
    """Composite on white in place, in slabs of rows."""
    for rows in _slabs(pixels):
        part, share = pixels[rows].astype(np.uint16), alpha[rows].astype(np.uint16)
        part = part if premultiplied else (part * share + 127) // 255
        pixels[rows] = np.minimum(255, part + (255 - share))


def _slabs(values: NDArray[Any]) -> Iterator[slice]:
    """Yield slices of consecutive rows."""
    rows = max(1, _SLAB // max(1, values.shape[1] * values.shape[2]))
    return (slice(start, start + rows) for start in range(0, len(values), rows))


def image_of(pixels: NDArray[np.uint8]) -> Image.Image:
    """Return pixels of 1, 3 or 4 channels as an image of mode L, RGB or CMYK."""
    if pixels.shape[2] == 1:
        return Image.fromarray(pixels[..., 0])
    if pixels.shape[2] == 3:
        return Image.fromarray(pixels)
    return Image.frombytes("CMYK", pixels.shape[1::-1], pixels.tobytes())
