"""Which items of a map are shown as pictures, and the pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from embedpipe.decoding import decode_image
from embedpipe.errors import ItemError
from embedpipe.sources import read_uri


def spread_out(points: npt.NDArray[np.float64], distance: float) -> Iterator[int]:
    """Yield row numbers of points, each as far as can be from those before it and at least ``distance``.

    Farthest-point order (Gonzalez, Theoretical Computer Science 38, 1985), begun in the middle.
    """
    row = int(np.argmin(((points - points.mean(axis=0)) ** 2).sum(axis=1)))
    nearest = np.full(len(points), np.inf)
    while True:
        yield row
        nearest = np.minimum(nearest, np.linalg.norm(points - points[row], axis=1))
        row = int(np.argmax(nearest))
        if nearest[row] < max(distance, 1e-9):
            return


def read_thumbnails(
    uris: Sequence[str | None], rows: Iterator[int], count: int, side: int
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Yield up to ``count`` of the rows, each with its picture as uint8 (h, w, 3) of at most ``side`` pixels.

    Rows whose picture cannot be read any more, or is none, are passed over; after as many of those as
    pictures were asked for, the source is taken to be away.
    """
    unreadable = 0
    for row in rows:
        if count <= 0 or unreadable > 60:
            return
        uri = uris[row]
        if uri is None:
            continue
        try:
            picture = Image.fromarray(np.asarray(decode_image(read_uri(uri))))
        except ItemError:
            unreadable += 1
            continue
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        count -= 1
        yield row, np.asarray(picture)
