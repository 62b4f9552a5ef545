"""A decoded image: pixels in stored orientation, with the rotation that turns them upright."""

from __future__ import annotations

import dataclasses
import io
import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedpipe.decoding.colours import Profile, read_profile
from embedpipe.decoding.image import PIXEL_LIMIT, count_frames, decode_counted, refuse_many_scans
from embedpipe.decoding.jpeg import decode_jpeg, read_header
from embedpipe.decoding.recipe import Preprocessing
from embedpipe.decoding.samples import pick
from embedpipe.sources.boxes import Crop

#: Bytes of the pixels of pictures that are kept for their next parts.
_KEPT_BYTES = 1 << 28

_NO_COUNTS: Mapping[str, int] = MappingProxyType({})


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
    profile : Profile, optional
        Colour profile of the pixels, as conversion to sRGB is cheaper after the resize. None is sRGB.
    counts : mapping of str to int
        What was left out or inferred: see `embedpipe.embedding.summary.remarks`.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    orientation: int = 1
    reduction: int = 1
    profile: Profile | None = None
    counts: Mapping[str, int] = _NO_COUNTS

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
    payload : bytes, Crop, PIL.Image.Image or ndarray
        As in `decode_image`. The result may share the memory of an array.
    preprocessing : Preprocessing
        The recipe, which decides whether a JPEG is decoded at reduced size.

    Returns
    -------
    Picture
        Turned upright, its pixels equal those of `decode_image`, except for a JPEG decoded at reduced size, or with a
        colour profile, which is applied after the resize.

    Raises
    ------
    DecodeError
        As in `decode_image`.

    Notes
    -----
    Plain JPEGs are decoded by libjpeg-turbo directly. Files on which it gives an error or a warning go to Pillow, which
    uses the same library, so both functions decode and refuse the same files.
    """
    if isinstance(payload, Crop):
        return _part_of(payload, preprocessing)
    if isinstance(payload, bytes | bytearray | memoryview):
        payload = bytes(payload)
        picture = _from_jpeg(payload, preprocessing)
        if picture is not None:
            return picture
    elif isinstance(payload, np.ndarray) and _is_rgb(payload) and not preprocessing.channels:
        height, width, _ = payload.shape
        return Picture(np.require(payload, requirements=["C", "W"]), (width, height))
    image, counts = decode_counted(payload, preprocessing.range, preprocessing.channels)
    return Picture(np.array(image), image.size, counts=counts)


def _part_of(crop: Crop, preprocessing: Preprocessing) -> Picture:
    """Decode a part of a picture, at full size."""
    whole = _last_pictures(crop.picture, dataclasses.replace(preprocessing, decode="full"))
    pixels = whole.upright(whole.pixels)
    left, top, right, bottom = crop.box.place(*whole.size)
    part = pixels[top:bottom, left:right].copy(order="C")
    return Picture(part, (right - left, bottom - top), profile=whole.profile, counts=whole.counts)


class _LastPictures:
    """Decodes pictures, and keeps the last ones, as the parts of a picture are decoded one after another."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[Any, Preprocessing, Picture]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, payload: Any, preprocessing: Preprocessing) -> Picture:
        with self._lock:
            known = self._kept.get(id(payload))
        if known is not None and known[0] is payload and known[1] == preprocessing:
            return known[2]
        picture = decode_pixels(payload, preprocessing)
        with self._lock:
            self._kept[id(payload)] = payload, preprocessing, picture
            while sum(each.pixels.nbytes for _, _, each in self._kept.values()) > _KEPT_BYTES:
                self._kept.popitem(last=False)
        return picture


_last_pictures = _LastPictures()


def _from_jpeg(data: bytes, preprocessing: Preprocessing) -> Picture | None:
    header = read_header(data)
    if header is None or header.width * header.height > PIXEL_LIMIT or (header.is_gray and header.profile):
        return None
    refuse_many_scans(data)
    profile = read_profile(header.profile, "RGB") if header.profile else None
    if profile is not None and not profile.is_readable:
        return None
    orientation = header.orientation()
    size = (header.height, header.width) if orientation >= 5 else (header.width, header.height)
    reduction = preprocessing.reduction(size)
    pixels = decode_jpeg(data, header, reduction)
    if pixels is None:
        return None
    if preprocessing.channels:
        pixels = np.broadcast_to(pick(pixels, preprocessing.channels), pixels.shape).copy()
        profile = None
    counts: Counter[str] = Counter()
    if header.has_parts:
        with Image.open(io.BytesIO(data)) as image:
            count_frames(image, counts)
    far = profile if profile is not None and profile.transform is not None else None
    return Picture(pixels, size, orientation, reduction, far, counts or _NO_COUNTS)


def _is_rgb(array: NDArray[Any]) -> bool:
    return array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3 and 0 < array.size <= 3 * PIXEL_LIMIT
