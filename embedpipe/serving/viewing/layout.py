"""The map of a collection: a point for each row, computed in the background once and kept in the cache."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

import numpy as np
import numpy.typing as npt

from embedpipe._utils.atomic import whole_file
from embedpipe._utils.progress import Progress
from embedpipe.errors import EmbedpipeError
from embedpipe.report.pictures.projection import project
from embedpipe.serving.viewing.collection import Collection
from embedpipe.serving.viewing.pictures import store_cache

Points = npt.NDArray[np.float32]
State = Literal["computing", "ready", "failed"]

#: Of more rows, a random sample has points.
MOST_POINTS = 5_000
#: Empty share of the map at each edge.
EDGE = 0.02


class Layout:
    """The points of a collection.

    Parameters
    ----------
    collection : Collection
    vectors : callable
        Returns the vectors of the rows, float32 (n, dim).

    Attributes
    ----------
    points : float32 array (n, 2), or None
        Between 0 and 1, y downwards; NaN for a row without a point. None while they are computed.
    state : str
        ``computing``, ``ready`` or ``failed``.
    note : str
        How the points were computed, or why they could not be.
    """

    def __init__(self, collection: Collection, vectors: Callable[[], npt.NDArray[np.float32]]) -> None:
        self._collection, self._vectors = collection, vectors
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
            self.points, self.note = self._kept() or self._compute()
            self.state = "ready"
        except (EmbedpipeError, ValueError, OSError, MemoryError) as error:
            self.note, self.state = str(error), "failed"

    def _compute(self) -> tuple[Points, str]:
        vectors = self._vectors()
        rows = np.arange(len(vectors))
        if len(rows) > MOST_POINTS:
            rows = np.sort(np.random.default_rng(0).choice(len(rows), MOST_POINTS, replace=False))
        placed, method = project(np.asarray(vectors[rows]), 0, Progress(False))
        points = np.full((len(vectors), 2), np.nan, np.float32)
        points[rows] = _to_unit(placed)
        note = method.partition("\n")[0]
        if len(rows) < len(vectors):
            note = f"A random {len(rows):,} of {len(vectors):,} items. {note}"
        self._keep(points, note)
        return points, note

    def _kept(self) -> tuple[Points, str] | None:
        folder = store_cache(self._collection)
        if folder is None:
            return None
        try:
            with np.load(folder / self._name, allow_pickle=False) as kept:
                points, note = kept["points"], str(kept["note"])
        except (OSError, ValueError, LookupError, EOFError):
            return None
        whole = points.shape == (len(self._collection), 2) and points.dtype == np.float32
        return (points, note) if whole else None

    def _keep(self, points: Points, note: str) -> None:
        folder = store_cache(self._collection)
        if folder is not None:
            with suppress(OSError), whole_file(folder / self._name) as part, part.open("wb") as file:
                np.savez(file, points=points, note=note)

    @property
    def _name(self) -> str:
        method = hashlib.sha256(f"t-SNE {MOST_POINTS}".encode()).hexdigest()[:8]
        return f"map-{self._collection.key}-{method}.npz"


def _to_unit(placed: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scale points into the unit square, with one scale for both axes and y downwards."""
    low, high = placed.min(axis=0), placed.max(axis=0)
    size = float((high - low).max()) or 1.0
    unit: npt.NDArray[np.float64] = 0.5 + (placed - (low + high) / 2) / size * [1, -1] * (1 - 2 * EDGE)
    return unit


def as_bytes(points: Points) -> bytes:
    """Return points as pairs of little-endian uint16, 0 to 65534; 65535 for a row without a point."""
    whole = np.where(np.isfinite(points), np.round(np.clip(points, 0, 1) * 65534), 65535)
    return whole.astype("<u2").tobytes()
