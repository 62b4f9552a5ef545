"""A decoded picture on its way to a backbone: pixels as the decoder left them, and how to hold them upright."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedpipe.decoding.image import PIXEL_LIMIT, decode_image
from embedpipe.decoding.jpeg import decode_jpeg, read_header
from embedpipe.decoding.recipe import Preprocessing


class Picture(NamedTuple):
    """What `decode_pixels` gives and `to_pixels` takes.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width, 3)
        C-contiguous and writable RGB. Not yet turned upright: that is cheaper after the resize.
    size : (int, int)
        Width and height of the upright picture at its full size, though the pixels may be fewer.
    orientation : int
        By the EXIF standard, 1 to 8; 1 is upright.
    reduction : int
        By how much the pixels were decoded smaller.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    orientation: int = 1
    reduction: int = 1

    @property
    def extent(self) -> tuple[float, float]:
        """Height and width of the picture in these pixels, of which the last may be of it in part only."""
        width, height = self.size[::-1] if self.is_on_its_side else self.size
        return height / self.reduction, width / self.reduction

    @property
    def is_on_its_side(self) -> bool:
        """Whether rows of pixels are columns of the upright picture."""
        return self.orientation >= 5

    @property
    def is_mirrored(self) -> tuple[bool, bool]:
        """Whether the rows stand in reverse order, and the columns."""
        return self.orientation in (3, 4, 6, 7), self.orientation in (2, 3, 7, 8)

    def upright(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a view of these pixels, of which a part or a scaled copy is given, turned upright."""
        rows, columns = self.is_mirrored
        turned = pixels[:: -1 if rows else 1, :: -1 if columns else 1]
        return turned.swapaxes(0, 1) if self.is_on_its_side else turned


def decode_pixels(payload: Any, preprocessing: Preprocessing) -> Picture:
    """Decode one picture for `to_pixels`: what `decode_image` does, faster.

    Parameters
    ----------
    payload : bytes, PIL.Image.Image or ndarray
        As `decode_image` takes it. Of an array, the picture may share the memory.
    preprocessing : Preprocessing
        Says whether a JPEG may be decoded smaller.

    Returns
    -------
    Picture
        Turned upright, and of a JPEG decoded at full size, it has exactly `decode_image`'s pixels.

    Raises
    ------
    DecodeError
        As by `decode_image`.

    Notes
    -----
    Plain JPEGs are decoded by libjpeg-turbo alone. Pillow, which has the same library, judges whatever that
    gives an error or a warning on, so both decode and refuse the same files.
    """
    if isinstance(payload, bytes | bytearray | memoryview):
        payload = bytes(payload)
        picture = _from_jpeg(payload, preprocessing)
        if picture is not None:
            return picture
    elif isinstance(payload, np.ndarray) and _is_rgb(payload):
        height, width, _ = payload.shape
        return Picture(np.require(payload, requirements=["C", "W"]), (width, height))
    image = decode_image(payload)
    return Picture(np.array(image), image.size)


def _from_jpeg(data: bytes, preprocessing: Preprocessing) -> Picture | None:
    header = read_header(data)
    if header is None or header.width * header.height > PIXEL_LIMIT:
        return None
    orientation = header.orientation()
    size = (header.height, header.width) if orientation >= 5 else (header.width, header.height)
    reduction = preprocessing.reduction(size)
    pixels = decode_jpeg(data, header, reduction)
    return None if pixels is None else Picture(pixels, size, orientation, reduction)


def _is_rgb(array: NDArray[Any]) -> bool:
    return array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3 and 0 < array.size <= 3 * PIXEL_LIMIT
