"""The map of a collection: a point for each row, computed in the background once and kept in the cache."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from embedpipe._utils.progress import Progress
from embedpipe.report.pictures.map_points import map_points

Points = npt.NDArray[np.float32]
State = Literal["computing", "ready", "failed"]

#: Empty share of the map at each edge.
EDGE = 0.02


class Layout:
    """The points of a collection.

    Parameters
    ----------
    vectors : callable
        Returns the vectors of the rows, float32 (n, dim).

    Attributes
    ----------
    points : float32 array (n, 2), or None
        Between 0 and 1, y downwards. None while they are computed.
    state : str
        ``computing``, ``ready`` or ``failed``.
    note : str
        How the points were computed, or why they could not be.
    """

    def __init__(self, vectors: Callable[[], npt.NDArray[np.float32]]) -> None:
        self._vectors = vectors
        self.points: Points | None = None
        self.state: State = "computing"
        self.note = ""
        self._started = threading.Lock()

    def start(self) -> None:
        """Begin to compute, unless that has begun."""
        if self._started.acquire(blocking=False):
            threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            points, method = map_points(np.asarray(self._vectors()), 0, Progress(False))
            self.points, self.note = _to_unit(points), method.partition("\n")[0]
            self.state = "ready"
        except Exception as error:  # whatever it is, a page must not wait for ever
            self.note, self.state = str(error), "failed"


def _to_unit(placed: Points) -> Points:
    """Scale points into the unit square, with one scale for both axes and y downwards."""
    low, high = placed.min(axis=0), placed.max(axis=0)
    size = float((high - low).max()) or 1.0
    unit: Points = 0.5 + (placed - (low + high) / 2) / size * [1, -1] * (1 - 2 * EDGE)
    return unit


def as_bytes(points: Points) -> bytes:
    """Return points as pairs of little-endian uint16, 0 to 65534."""
    return np.round(np.clip(points, 0, 1) * 65534).astype("<u2").tobytes()
