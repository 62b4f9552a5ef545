"""Small pictures of items: read side by side, and placed on a map."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from PIL import Image

from embedpipe.decoding import decode_image
from embedpipe.errors import EmbedpipeError
from embedpipe.sources.opening import read_uri

Points = npt.NDArray[np.float64]

#: After so many unreadable pictures, the source is taken to be gone, and no more are tried.
MAX_UNREADABLE = 50
#: Pixels between two pictures' places.
GAP = 10
#: Threads that read and decode pictures.
READERS = 8


def read_small(uris: Iterable[str], side: int) -> dict[str, Image.Image]:
    """Read pictures and reduce them to at most ``side`` pixels; those that cannot be read are left out.

    Parameters
    ----------
    uris : iterable of str
        As the ``uri`` column of a store holds them.
    side : int
        Longest width or height in pixels.

    Returns
    -------
    dict of str to PIL.Image.Image
        URI -> picture of mode RGB.
    """
    known = sorted(set(uris))
    with ThreadPoolExecutor(READERS) as pool:
        pictures = pool.map(lambda uri: read_one(uri, side), known)
        return {uri: picture for uri, picture in zip(known, pictures, strict=True) if picture is not None}


def read_one(uri: str, side: int) -> Image.Image | None:
    """Read one picture and reduce it to at most ``side`` pixels; return None if it cannot be read."""
    try:
        picture = decode_image(read_uri(uri))
    except EmbedpipeError:
        return None
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture


def jpeg_data_url(picture: Image.Image, quality: int) -> str:
    """Return a picture as a JPEG in a ``data:`` URL, for HTML that loads nothing."""
    return f"data:image/jpeg;base64,{base64.b64encode(as_jpeg(picture, quality)).decode()}"


def as_jpeg(picture: Image.Image, quality: int) -> bytes:
    """Return a picture as a JPEG."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, optimize=True)
    return file.getvalue()


def spread_out(points: Points) -> Iterator[int]:
    """Yield rows of points in farthest-point order, until all others are within one pixel of those yielded.

    Each is the farthest from all before it (Gonzalez, Theoretical Computer Science 38, 1985); the first is nearest to
    the mean.
    """
    row = int(np.argmin(((points - points.mean(axis=0)) ** 2).sum(axis=1)))
    nearest = np.full(len(points), np.inf)
    while True:
        yield row
        nearest = np.minimum(nearest, np.linalg.norm(points - points[row], axis=1))
        row = int(np.argmax(nearest))
        if nearest[row] < 1:
            return


class Layout:
    """Finds places for boxes of one size beside their points, where they cover few other points.

    Parameters
    ----------
    points : float64 array (n, 2)
        All points of the map, in pixels from the panel's lower left corner.
    size : float64 array (2,)
        Width and height of the panel in pixels.
    box : (int, int)
        Width and height of a box in pixels.
    """

    CELL = 8

    def __init__(self, points: Points, size: Points, box: tuple[int, int]) -> None:
        self.box = np.array(box, float)
        self._size = size
        self._taken = np.empty((0, 2, 2))
        across, up = (np.arange(0, length + self.CELL, self.CELL) for length in size.tolist())
        counts, _, _ = np.histogram2d(points[:, 0], points[:, 1], bins=[across, up])
        self._below = np.pad(counts.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        self._usual = len(points) * self.box.prod() / size.prod()
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        apart = self.box.min() * np.arange(0.3, 2.1, 0.2)
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        self._offsets = ((self.box / 2 + apart[:, None])[:, None] * circle).reshape(-1, 2)

    def reserve(self, centre: Points, size: Points) -> None:
        """Keep a rectangle free of boxes."""
        self._taken = np.concatenate([self._taken, np.stack([centre, size / 2])[None]])

    def place(self, point: Points) -> Points | None:
        """Return the centre for a point's box, and reserve that place; None if no place is free."""
        centres = point + self._offsets
        edge = self.box / 2 + GAP
        free = ((centres > edge) & (centres < self._size - edge)).all(axis=1)
        apart = np.abs(centres[:, None] - self._taken[None, :, 0]) > self.box / 2 + self._taken[None, :, 1] + GAP
        free &= apart.any(axis=2).all(axis=1)
        if not free.any():
            return None
        centres = centres[free]
        far = np.linalg.norm((centres - point) / self.box, axis=1)
        best: Points = centres[np.argmin(far + 2 * self._covered(centres) / self._usual)]
        self.reserve(best, self.box)
        return best

    def _covered(self, centres: Points) -> Points:
        """Count the points under each place, from cumulative sums of the cells."""
        (x0, y0), (x1, y1) = (((centres + d * self.box / 2) / self.CELL).round().astype(int).T for d in (-1, 1))
        covered: Points = self._below[x1, y1] - self._below[x0, y1] - self._below[x1, y0] + self._below[x0, y0]
        return covered


def read_thumbnails(
    uris: Sequence[str | None], points: Points, layout: Layout, count: int, first: Sequence[int] = ()
) -> Iterator[tuple[int, Points, npt.NDArray[np.uint8]]]:
    """Yield up to ``count`` items, the rows of ``first`` before others: row, centre of the picture, uint8 (h, w, 3).

    Items without a picture, or whose picture cannot be read, are skipped.
    """
    unreadable = 0
    for row in (*first, *(row for row in spread_out(points) if row not in first)):
        if count <= 0 or unreadable >= MAX_UNREADABLE:
            return
        uri = uris[row]
        if uri is None:
            continue
        picture = read_one(uri, int(layout.box.min()))
        if picture is None:
            unreadable += 1
            continue
        if (centre := layout.place(points[row])) is None:
            continue
        count -= 1
        yield row, centre, np.asarray(picture)
