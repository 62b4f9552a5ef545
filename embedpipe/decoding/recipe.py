"""The preprocessing recipe: which pixels of a picture a backbone sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedpipe.errors import UsageError, nearest

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
Fit = Literal["squash", "cover", "border"]

#: A picture whose scaled size would be more than this many times its crop is scaled only where the crop needs it.
#: Not done for every picture: Pillow orders its two passes by size, so the pixels would differ a little.
_LARGEST_SCALED = 32


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
        Pillow's resampling filter; Pillow always antialiases.
    mean, std : 3 floats each
        Per channel, on values scaled to 0..1; applied on the device, not here.
    fit : str
        For a resize of ``(h, w)``: ``squash`` stretches to exactly that size, ``cover`` keeps the shape and
        covers it, ``border`` keeps the shape and fits inside it, padded with ``mean`` as a colour (all
        other padding is black). These are timm's crop modes squash, center (not square) and border.

    Raises
    ------
    UsageError
        A size is not positive, or the interpolation or fit is unknown.
    """

    resize: tuple[int, ...] = (256,)
    crop: tuple[int, int] = (224, 224)
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    fit: Fit = "squash"

    def __post_init__(self) -> None:
        for name, value, lengths in (("resize", self.resize, (1, 2)), ("crop", self.crop, (2,))):
            if len(value) not in lengths or min(value) < 1:
                raise UsageError(f"{name} is {value!r}; give positive sizes, {lengths[-1]} at most")
        for name, word, known in (
            ("interpolation", self.interpolation, get_args(Interpolation)),
            ("fit", self.fit, get_args(Fit)),
        ):
            if word not in known:
                raise UsageError(f"{name} is {word!r}, not one of {', '.join(known)}{nearest(word, known)}")


def to_pixels(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Resize, crop and pad a picture as the backbone's own library does with Pillow images.

    Parameters
    ----------
    image : PIL.Image.Image
        Of mode RGB, as `decode_image` gives it.
    preprocessing : Preprocessing
        The backbone's recipe.

    Returns
    -------
    ndarray of uint8, shape (crop height, crop width, 3)
        C-contiguous and writable.

    Notes
    -----
    The same pixels as torchvision's ``Resize`` and ``CenterCrop`` and as timm's evaluation transforms, but
    for very long and thin pictures, of which only the part in the crop is scaled: theirs would be huge.
    """
    width, height = _scaled_size(image.size, preprocessing)
    crop_height, crop_width = preprocessing.crop
    filter = Image.Resampling[preprocessing.interpolation.upper()]
    left, right = _window(width, crop_width)
    top, bottom = _window(height, crop_height)
    if width * height <= _LARGEST_SCALED * crop_width * crop_height:
        scaled = image.resize((width, height), filter).crop((left, top, right, bottom))
    else:
        x, y = image.width / width, image.height / height
        scaled = image.resize((right - left, bottom - top), filter, box=(left * x, top * y, right * x, bottom * y))
    if scaled.size == (crop_width, crop_height):
        return np.array(scaled)
    colour = tuple(round(255 * v) for v in preprocessing.mean) if _has_border(preprocessing) else (0, 0, 0)
    canvas = Image.new("RGB", (crop_width, crop_height), colour)
    canvas.paste(scaled, ((crop_width - scaled.width) // 2, (crop_height - scaled.height) // 2))
    return np.array(canvas)


def _has_border(recipe: Preprocessing) -> bool:
    return len(recipe.resize) == 2 and recipe.fit == "border"


def _scaled_size(size: tuple[int, int], recipe: Preprocessing) -> tuple[int, int]:
    """Return the width and height after the resize, by the rounding rules of torchvision and timm."""
    width, height = size
    if len(recipe.resize) == 1:
        short = recipe.resize[0]
        long = int(short * max(size) / min(size))
        return (short, long) if width <= height else (long, short)
    target_height, target_width = recipe.resize
    if recipe.fit == "squash":
        return target_width, target_height
    choose = max if recipe.fit == "border" else min
    ratio = choose(height / target_height, width / target_width)
    return max(1, round(width / ratio)), max(1, round(height / ratio))


def _window(length: int, crop: int) -> tuple[int, int]:
    """Return where the centre crop of a side begins and ends: the whole side where it is shorter."""
    start = round((length - crop) / 2) if length > crop else 0
    return start, min(length, start + crop)
