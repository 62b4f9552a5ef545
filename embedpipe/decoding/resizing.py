"""Resize, crop and padding of a decoded image for a backbone."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedpipe.decoding.picture import Picture
from embedpipe.decoding.recipe import CropRounding, Interpolation, Preprocessing

#: If the scaled size is more than this many times the crop, Pillow scales only the part in the crop. The pixels differ
#: slightly, so other images are scaled whole.
_LARGEST_SCALED = 32

#: Interpolations with a uint8 kernel in torch.
_BY_TORCH = ("bilinear", "bicubic")


class _Side(NamedTuple):
    """Length of a side of the scaled image, with start and end of its centre crop."""

    length: int
    start: int
    end: int

    @classmethod
    def cropped(cls, length: int, crop: int, rounding: CropRounding) -> _Side:
        half = (length - crop) / 2
        start = max(0, round(half) if rounding == "even" else math.floor(half))
        return cls(length, start, min(length, start + crop))

    def mirrored(self) -> _Side:
        return _Side(self.length, self.length - self.end, self.length - self.start)


def to_pixels(image: Image.Image | Picture, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Resize, crop and pad an image as the library of the backbone does.

    Parameters
    ----------
    image : Picture or PIL.Image.Image
        From `decode_pixels`, or an image of mode RGB from `decode_image`.
    preprocessing : Preprocessing
        The recipe of the backbone.

    Returns
    -------
    ndarray of uint8, shape (crop height, crop width, 3)
        C-contiguous and writable.

    Notes
    -----
    Bilinear and bicubic use the uint8 kernels of torch, so the pixels are those of the v2 transforms of torchvision on
    tensors. They differ from those of Pillow by at most two gray levels (0.006 in the mean), except where Pillow 13
    shortens the columns of a tall image before the rows: 0.2 in the mean, as both round in between. Other filters use
    Pillow. For very long and thin images Pillow scales only the part in the crop, as the whole would be huge.
    """
    picture = image if isinstance(image, Picture) else Picture(np.array(image), image.size)
    width, height = preprocessing.scaled_size(picture.size)
    crop_height, crop_width = preprocessing.crop
    rounding = preprocessing.crop_rounding
    sides = _Side.cropped(height, crop_height, rounding), _Side.cropped(width, crop_width, rounding)
    # Scaled in stored orientation; rotating only the crop is much faster than rotating the whole image.
    down, across = sides[::-1] if picture.is_on_its_side else sides
    upside_down, mirrored = picture.is_mirrored
    down, across = down.mirrored() if upside_down else down, across.mirrored() if mirrored else across
    is_huge = width * height > _LARGEST_SCALED * crop_width * crop_height
    if preprocessing.interpolation in _BY_TORCH and not is_huge:
        scaled = _by_torch(picture, down, across, preprocessing.interpolation)
    else:
        scaled = _by_pillow(picture, down, across, preprocessing.interpolation, is_huge)
    if picture.profile is not None:
        scaled = picture.profile.pixels_to_srgb(np.ascontiguousarray(scaled))
    scaled = picture.upright(scaled)
    if scaled.shape[:2] == preprocessing.crop:
        return np.ascontiguousarray(scaled)
    border = len(preprocessing.resize) == 2 and preprocessing.fit == "border"
    colour = [round(255 * v) for v in preprocessing.mean] if border else [0, 0, 0]
    canvas = np.full((crop_height, crop_width, 3), colour, np.uint8)
    top, left = (crop_height - scaled.shape[0]) // 2, (crop_width - scaled.shape[1]) // 2
    canvas[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
    return canvas


def _by_torch(picture: Picture, down: _Side, across: _Side, interpolation: Interpolation) -> NDArray[np.uint8]:
    import torch

    kernels = torch.ops.aten
    kernel = kernels._upsample_bicubic2d_aa if interpolation == "bicubic" else kernels._upsample_bilinear2d_aa
    # With this layout torch uses the channels-last kernel and does not copy the pixels.
    pixels = torch.from_numpy(picture.pixels)[None].permute(0, 3, 1, 2)
    (height, y), (width, x) = (
        _output_side(*lengths) for lengths in zip(picture.pixels.shape, picture.extent, (down, across), strict=False)
    )
    scaled: NDArray[np.uint8] = kernel.default(pixels, (height, width), False, y, x)[0].permute(1, 2, 0).numpy()
    return scaled[down.start : down.end, across.start : across.end]


def _output_side(length: int, extent: float, side: _Side) -> tuple[int, float | None]:
    """Return the length of a side to compute, from its beginning, and the scale for torch (None: inferred).

    The part after the crop is left out if 1 / scale in torch is exactly the ratio of the whole side, so that the pixels
    are the same. A side of unchanged length is not scaled by torch.
    """
    scale = side.length / extent
    if length != extent:
        return side.end, scale
    if length != side.end != side.length:
        for near in (scale, math.nextafter(scale, 0), math.nextafter(scale, math.inf)):
            if 1 / near == length / side.length:
                return side.end, near
    return side.length, None


def _by_pillow(
    picture: Picture, down: _Side, across: _Side, interpolation: Interpolation, is_huge: bool
) -> NDArray[np.uint8]:
    image, filter = Image.fromarray(picture.pixels), Image.Resampling[interpolation.upper()]
    height, width = picture.extent
    if not is_huge:
        whole = image.resize((across.length, down.length), filter, box=(0, 0, width, height))
        return np.array(whole.crop((across.start, down.start, across.end, down.end)))
    x, y = width / across.length, height / down.length
    box = (across.start * x, down.start * y, across.end * x, down.end * y)
    return np.array(image.resize((across.end - across.start, down.end - down.start), filter, box=box))
