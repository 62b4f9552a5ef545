"""Parts of pictures as items. The fragment of a uri holds the box, as in W3C Media Fragments: ``#xywh=10,20,30,40``."""

from __future__ import annotations

import math
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from embedpipe.errors import DecodeError
from embedpipe.sources.reading import Reader, RowNumbers, take_near

#: Begin of the fragment of a uri that names a part of a picture.
FRAGMENT = "#xywh="

#: Pictures whose payloads stay in memory, as their boxes are read one after another.
_KEPT = 4

#: Share of a pixel by which a side may miss the next pixel, as numbers are printed with eight digits.
_ROUNDING = 1e-3

_NUMBER = r"-?[0-9.]+(?:e[-+]?[0-9]+)?"
_URI = re.compile(
    rf"(.+){FRAGMENT}(percent:)?({_NUMBER}),({_NUMBER}),({_NUMBER}),({_NUMBER})"
    rf"(?:&margin=({_NUMBER}))?(?:&of=([0-9]+)x([0-9]+))?",
    re.DOTALL,
)


class Box(NamedTuple):
    """A box in an upright picture.

    Parameters
    ----------
    left, top, width, height : float
        In pixels or percent.
    unit : str
    margin : float
        Share of width and height that is added on each side, as far as the picture reaches.
    of : (int, int), optional
        Width and height of the picture in pixels that the box was drawn in.
    """

    left: float
    top: float
    width: float
    height: float
    unit: Literal["pixel", "percent"] = "pixel"
    margin: float = 0.0
    of: tuple[int, int] | None = None

    @property
    def fragment(self) -> str:
        """The fragment of a uri without margin and size."""
        numbers = ",".join(f"{value:.8g}" for value in self[:4])
        return f"{FRAGMENT}{'percent:' * (self.unit == 'percent')}{numbers}"

    @property
    def whole_fragment(self) -> str:
        """The fragment of a uri, from which `split_box` makes this box again."""
        margin = f"&margin={self.margin:.8g}" if self.margin else ""
        return self.fragment + margin + (f"&of={self.of[0]}x{self.of[1]}" if self.of else "")

    def check(self) -> None:
        """Raise DecodeError if the box has no area, or numbers that are none."""
        if not all(map(math.isfinite, self[:4])) or self.width <= 0 or self.height <= 0:
            numbers = ", ".join(f"{value:g}" for value in self[:4])
            raise DecodeError(f"a box must have finite numbers, and a width and height above 0, got {numbers}")

    def place(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom in the pixels of a picture: all pixels that the box touches.

        Raises
        ------
        DecodeError
            The box lies outside of the picture, or the picture has another size than the one that it was drawn in.
        """
        self.check()
        if self.of is not None and self.of != (width, height):
            raise DecodeError(
                f"the picture must have the {self.of[0]} x {self.of[1]} pixels that its boxes were drawn in, and is "
                f"{width} x {height}: it was scaled or turned, so draw them again"
            )
        across, down = (width / 100, height / 100) if self.unit == "percent" else (1.0, 1.0)
        left, right = self.left * across, (self.left + self.width) * across
        top, bottom = self.top * down, (self.top + self.height) * down
        if left >= width or top >= height or right <= 0 or bottom <= 0:
            raise DecodeError(
                f"the box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) lies outside of its picture of {width} x "
                f"{height} pixels"
            )
        more_x, more_y = self.margin * (right - left), self.margin * (bottom - top)
        first_x = max(0, math.floor(left - more_x + _ROUNDING))
        first_y = max(0, math.floor(top - more_y + _ROUNDING))
        return (
            min(first_x, width - 1),
            min(first_y, height - 1),
            max(first_x + 1, min(width, math.ceil(right + more_x - _ROUNDING))),
            max(first_y + 1, min(height, math.ceil(bottom + more_y - _ROUNDING))),
        )


@dataclass(frozen=True)
class Crop:
    """The payload of a part of a picture: that of the whole picture, and the box."""

    picture: Any
    box: Box


def split_box(uri: str) -> tuple[str, Box | None]:
    """Return the uri of a picture and the box in it, None for a uri without one."""
    match = _URI.fullmatch(uri) if FRAGMENT in uri else None
    if match is None:
        return uri, None
    file, percent, *numbers, margin, width, height = match.groups()
    try:
        left, top, wide, high = map(float, numbers)
        of = (int(width), int(height)) if width else None
        return file, Box(left, top, wide, high, "percent" if percent else "pixel", float(margin or 0), of)
    except ValueError:
        return uri, None


class Crops:
    """Reads parts of pictures, and keeps the last pictures. Safe to use from several threads.

    Parameters
    ----------
    reader : Reader
        Reads the pictures.
    files : int64 array (n,)
        Row of the picture of each part.
    fragments : pyarrow.ChunkedArray of str
        The box of each part (`Box.whole_fragment`).
    """

    def __init__(self, reader: Reader, files: RowNumbers, fragments: pa.ChunkedArray) -> None:
        self._reader, self._files, self._fragments = reader, files, fragments
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> Any:
        return Crops, (self._reader, self._files, self._fragments)

    def take(self, rows: RowNumbers) -> Reader:
        """Return the reader of some rows, which reads each picture once for its parts."""
        used, files = np.unique(self._files[rows], return_inverse=True)
        return Crops(self._reader.take(used), files, take_near(self._fragments, rows))

    def __call__(self, row: int) -> Crop:
        """Return the payload of a row. Raises ReadError."""
        file = self._files.item(row)
        with self._lock:
            picture = self._kept.get(file)
        if picture is None:
            picture = self._reader(file)
            with self._lock:
                self._kept[file] = picture
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        box = split_box(f"x{self._fragments[row].as_py()}")[1]
        assert box is not None
        return Crop(picture, box)
