"""A decoded image: pixels in stored orientation, with the rotation that turns them upright."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedpipe.decoding.image import PIXEL_LIMIT, decode_image
from embedpipe.decoding.jpeg import decode_jpeg, read_header
from embedpipe.decoding.recipe import Preprocessing


class Picture(NamedTuple):
    """A decoded image, from `decode_pixels` and for `to_pixels`.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width, 3)
        C-contiguous and writable RGB, in stored orientation, as rotation is cheaper after the resize.
    size : (int, int)
        Width and height of the upright image at full size, before any reduction.
    orientation : int
        EXIF orientation, 1 to 8. 1 is upright.
    reduction : int
        Factor by which the image was decoded smaller.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    orientation: int = 1
    reduction: int = 1

    @property
    def extent(self) -> tuple[float, float]:
        """Height and width of the image in these pixels, with a fraction for a partly covered last pixel."""
        width, height = self.size[::-1] if self.is_on_its_side else self.size
        return height / self.reduction, width / self.reduction

    @property
    def is_on_its_side(self) -> bool:
        """Whether rows of pixels are columns of the upright image."""
        return self.orientation >= 5

    @property
    def is_mirrored(self) -> tuple[bool, bool]:
        """Whether the rows are in reverse order, and whether the columns are."""
        return self.orientation in (3, 4, 6, 7), self.orientation in (2, 3, 7, 8)

    def upright(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return an upright view of these pixels, or of a part or scaled copy of them."""
        rows, columns = self.is_mirrored
        turned = pixels[:: -1 if rows else 1, :: -1 if columns else 1]
        return turned.swapaxes(0, 1) if self.is_on_its_side else turned


def decode_pixels(payload: Any, preprocessing: Preprocessing) -> Picture:
    """Decode one image for `to_pixels`, as `decode_image` does, but faster.

    Parameters
    ----------
    payload : bytes, PIL.Image.Image or ndarray
        As in `decode_image`. The result may share the memory of an array.
    preprocessing : Preprocessing
        The recipe, which decides whether a JPEG is decoded at reduced size.

    Returns
    -------
    Picture
        Turned upright, its pixels equal those of `decode_image`, except for a JPEG decoded at reduced size.

    Raises
    ------
    DecodeError
        As in `decode_image`.

    Notes
    -----
    Plain JPEGs are decoded by libjpeg-turbo directly. Files on which it gives an error or a warning go to Pillow, which
    uses the same library, so both functions decode and refuse the same files.
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
