"""The preprocessing recipe: resize, crop, normalisation and decoding of an image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError, require_one_of

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
Fit = Literal["squash", "cover", "border"]
Decode = Literal["full", "scaled"]
CropRounding = Literal["even", "down"]

#: Factors of reduced decoding. libjpeg-turbo has no vector code for the others: 7/8, 6/8 and 5/8 take longer than full
#: size, and 3/8 takes as long as 1/2.
_REDUCTIONS = (8, 4, 2)

#: The sides of a reduced image are at least this many times those after the resize.
_MARGIN = 2


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The preprocessing of an image for a backbone.

    Parameters
    ----------
    resize : (int,) or (int, int)
        ``(s,)`` scales the shorter side to ``s`` pixels and keeps the aspect ratio, with the longer side rounded
        down as in torchvision. ``(h, w)`` scales to that size as ``fit`` says.
    crop : (int, int)
        Height and width of the centre crop after the resize. A smaller image is padded.
    interpolation : str
        The resampling filter by its name in Pillow, always antialiased.
    mean, std : 3 floats each
        Normalisation per channel, on values scaled to 0..1. It is applied on the device.
    fit : str
        For a resize of ``(h, w)``: ``squash`` stretches to that size, ``cover`` keeps the aspect ratio and covers it,
        ``border`` keeps the aspect ratio, fits inside it, and pads with ``mean`` as colour (other padding is black).
        These are the crop modes squash, center (not square) and border of timm.
    decode : str
        ``full`` decodes at full size. ``scaled`` decodes a plain JPEG at 1/8, 1/4 or 1/2 of its size, if that is at
        least twice the size after the resize. Other payloads (another format, damaged, CMYK) are decoded at full size.
    range : (float, float), optional
        The values that become black and white in images of more than 8 bits. None infers them for each image, as
        `embedpipe.decoding.decode_image` describes.
    channels : tuple of int
        Channels to take, counted from 1: one for gray, three for RGB. Empty takes those declared as colours.
    crop_rounding : str
        Where the crop begins if the centre is between two pixels: at the ``even`` one, as in torchvision and timm, or
        the lower one (``down``), as in transformers.

    Raises
    ------
    UsageError
        A size is not positive, interpolation, fit, decode or crop_rounding is unknown, the range is empty, or there
        are not one or three channels.
    """

    resize: tuple[int, ...] = (256,)
    crop: tuple[int, int] = (224, 224)
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    fit: Fit = "squash"
    decode: Decode = "full"
    range: tuple[float, float] | None = None
    channels: tuple[int, ...] = ()
    crop_rounding: CropRounding = "even"

    def __post_init__(self) -> None:
        for name, value, lengths in (("resize", self.resize, (1, 2)), ("crop", self.crop, (2,))):
            if len(value) not in lengths or min(value) < 1:
                raise UsageError(f"{option(name)} must be {' or '.join(map(str, lengths))} sizes >= 1, got {value!r}")
        for name, word, known in (
            ("interpolation", self.interpolation, get_args(Interpolation)),
            ("fit", self.fit, get_args(Fit)),
            ("decode", self.decode, get_args(Decode)),
            ("crop_rounding", self.crop_rounding, get_args(CropRounding)),
        ):
            require_one_of(name, word, known)
        if self.range is not None and not (
            len(self.range) == 2 and -math.inf < self.range[0] < self.range[1] < math.inf
        ):
            raise UsageError(f"{option('range')} must be two values LOW < HIGH, got {self.range!r}")
        if len(self.channels) not in (0, 1, 3) or min(self.channels, default=1) < 1:
            raise UsageError(f"{option('channels')} must be one or three numbers >= 1, got {self.channels!r}")

    def options(self) -> dict[str, Any]:
        """Return the options of a backbone that choose the decoding of this recipe."""
        return {
            "decode": self.decode,
            "range": "auto" if self.range is None else "{!r}:{!r}".format(*self.range),
            "channels": ",".join(map(str, self.channels)) or "auto",
        }

    def scaled_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return width and height after the resize, rounded as in torchvision and timm."""
        width, height = size
        if len(self.resize) == 1:
            short = self.resize[0]
            long = int(short * max(size) / min(size))
            return (short, long) if width <= height else (long, short)
        target_height, target_width = self.resize
        if self.fit == "squash":
            return target_width, target_height
        choose = max if self.fit == "border" else min
        ratio = choose(height / target_height, width / target_width)
        return max(1, round(width / ratio)), max(1, round(height / ratio))

    def reduction(self, size: tuple[int, int]) -> int:
        """Return the factor of reduced decoding for a JPEG of this upright width and height: 1, 2, 4 or 8."""
        if self.decode == "full":
            return 1
        room = min(length // (_MARGIN * scaled) for length, scaled in zip(size, self.scaled_size(size), strict=True))
        return next((by for by in _REDUCTIONS if by <= room), 1)


def parse_range(text: str) -> tuple[float, float] | None:
    """Parse ``LOW:HIGH``; None for ``auto``. Raises UsageError for anything else."""
    if text == "auto":
        return None
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise UsageError(f"{option('range')} must be auto or LOW:HIGH with LOW < HIGH, such as 0:4095, got {text!r}")
    return low, high


def parse_channels(text: str) -> tuple[int, ...]:
    """Parse one or three numbers >= 1, with commas; empty for ``auto``. Raises UsageError for anything else."""
    if text == "auto":
        return ()
    numbers = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if len(numbers) not in (1, 3) or min(numbers) < 1:
        raise UsageError(
            f"{option('channels')} must be auto, one number >= 1, or three with commas such as 1,3,5, got {text!r}"
        )
    return tuple(numbers)
