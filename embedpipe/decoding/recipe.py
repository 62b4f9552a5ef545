"""The preprocessing recipe: which pixels of a picture a backbone sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from embedpipe.errors import UsageError, nearest

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
Fit = Literal["squash", "cover", "border"]
Decode = Literal["full", "scaled"]

#: By how much a JPEG may be decoded smaller. Not to 7/8, 6/8 or 5/8, which takes longer than decoding it whole, nor to
#: 3/8, which takes as long as 1/2: libjpeg-turbo has no vector code for these.
_REDUCTIONS = (8, 4, 2)

#: Both sides of what is decoded are at least so many times those that the resize makes.
_MARGIN = 2


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a picture becomes the pixels that a backbone was trained on.

    Parameters
    ----------
    resize : (int,) or (int, int)
        ``(s,)`` scales the shorter side to ``s`` pixels and keeps the shape, with the longer side rounded
        down as torchvision does; ``(h, w)`` scales to that size, in the way that ``fit`` says.
    crop : (int, int)
        Height and width of the centre crop taken after the resize; what is missing is padded.
    interpolation : str
        The resampling filter, by Pillow's names; always antialiased, as Pillow does.
    mean, std : 3 floats each
        Per channel, on values scaled to 0..1; applied on the device, not here.
    fit : str
        For a resize of ``(h, w)``: ``squash`` stretches to exactly that size, ``cover`` keeps the shape and
        covers it, ``border`` keeps the shape and fits inside it, padded with ``mean`` as a colour (all
        other padding is black). These are timm's crop modes squash, center (not square) and border.
    decode : str
        ``full`` decodes a picture at its size; ``scaled`` decodes a JPEG at 1/8, 1/4 or 1/2 of it, where that is
        no less than twice the size that the resize makes. What is not a plain JPEG (another format, damaged, CMYK)
        is decoded at full size all the same.

    Raises
    ------
    UsageError
        A size is not positive, or the interpolation, fit or decode is unknown.
    """

    resize: tuple[int, ...] = (256,)
    crop: tuple[int, int] = (224, 224)
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    fit: Fit = "squash"
    decode: Decode = "full"

    def __post_init__(self) -> None:
        for name, value, lengths in (("resize", self.resize, (1, 2)), ("crop", self.crop, (2,))):
            if len(value) not in lengths or min(value) < 1:
                raise UsageError(f"{name} is {value!r}; give positive sizes, {lengths[-1]} at most")
        for name, word, known in (
            ("interpolation", self.interpolation, get_args(Interpolation)),
            ("fit", self.fit, get_args(Fit)),
            ("decode", self.decode, get_args(Decode)),
        ):
            if word not in known:
                raise UsageError(f"{name} is {word!r}, not one of {', '.join(known)}{nearest(word, known)}")

    def scaled_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the width and height after the resize, by the rounding rules of torchvision and timm."""
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
        """Return by how much a JPEG of this upright width and height is decoded smaller: 1, 2, 4 or 8."""
        if self.decode == "full":
            return 1
        room = min(length // (_MARGIN * scaled) for length, scaled in zip(size, self.scaled_size(size), strict=True))
        return next((by for by in _REDUCTIONS if by <= room), 1)
