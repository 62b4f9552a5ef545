"""Points of a map, computed once for the same vectors: they are kept in the cache folder."""

from __future__ import annotations

import io
from importlib.metadata import version
from pathlib import Path

import numpy as np

from embedpipe._utils.cache import cannot_cache, find_cache, keep_limit, mark_used, open_cache
from embedpipe._utils.checksums import checksum, read_checked, write_checked
from embedpipe._utils.progress import Progress
from embedpipe.neighbours.exact import Vectors
from embedpipe.report.pictures import projection
from embedpipe.report.pictures.projection import Points, project

#: The part of the cache folder that holds the points.
PART = "maps"


def map_points(vectors: Vectors, seed: int, progress: Progress) -> tuple[Points, str]:
    """Return what `project` returns, from the cache if the same vectors were projected before.

    Labels and other columns do not matter. A file that is damaged is computed again.
    """
    key = _key(vectors, seed)
    if (folder := find_cache(PART)) is not None and (kept := _read(folder / key, len(vectors))) is not None:
        return kept
    points, method = project(vectors, seed, progress)
    if (folder := open_cache(PART)) is not None:
        _write(folder / key, points, method)
        keep_limit()
    return points, method


def _key(vectors: Vectors, seed: int) -> str:
    code = Path(projection.__file__).read_text(encoding="utf-8")
    parts = (checksum(np.ascontiguousarray(vectors)), str(vectors.shape), str(seed), version("openTSNE"), code)
    return checksum("\n".join(parts).encode())


def _read(file: Path, count: int) -> tuple[Points, str] | None:
    try:
        stream = io.BytesIO(read_checked(file))
        points = np.load(stream, allow_pickle=False)
        method = stream.read().decode()
    except (OSError, ValueError, EOFError):
        return None
    if points.shape != (count, 2) or points.dtype != np.float32:
        return None
    mark_used(file)
    return points, method


def _write(file: Path, points: Points, method: str) -> None:
    buffer = io.BytesIO()
    np.save(buffer, points, allow_pickle=False)
    try:
        write_checked(file, buffer.getvalue() + method.encode())
    except OSError as error:
        cannot_cache(error)
