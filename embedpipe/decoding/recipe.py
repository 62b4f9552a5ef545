"""The preprocessing recipe: which pixels of a picture a backbone sees. (body by the decoding part)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a picture becomes the pixels that a backbone was trained on.

    Parameters
    ----------
    resize : (int,) or (int, int)
        ``(s,)`` scales the shorter side to ``s`` pixels and keeps the shape, with the longer side rounded
        down as torchvision does; ``(h, w)`` scales to exactly that size.
    crop : (int, int)
        Height and width of the centre crop taken after the resize.
    interpolation : str
        Pillow's resampling filter; Pillow always antialiases.
    mean, std : 3 floats each
        Per channel, on values scaled to 0..1; applied on the device, not here.
    """

    resize: tuple[int, ...] = (256,)
    crop: tuple[int, int] = (224, 224)
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
