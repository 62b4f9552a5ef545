"""Images that are in memory already, or a Python sequence of paths."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from embedpipe.errors import ReadError, SourceError
from embedpipe.sources.listing import Listing, ListingBuilder
from embedpipe.sources.locations import join, printable, read_bytes, size_and_time

ROOT = "memory"


def list_items(items: Any, ids: Sequence[str] | None = None) -> Listing:
    """List a sequence of paths, encoded bytes, PIL images or uint8 arrays, which may be mixed.

    Parameters
    ----------
    items : sequence, or one PIL image
        A list, tuple, pandas or polars Series, 1-D array of objects or strings, or a uint8 array of shape
        (n, h, w, 3 or 4). None stands for a missing item, which cannot be read.
    ids : sequence of str, optional
        By default a path is its own id, and anything else has its position as ``"00000012"``.

    Raises
    ------
    SourceError
        ``items`` is not such a sequence, or ``ids`` has another length.
    """
    items = _sequence(items)
    if ids is not None and len(ids) != len(items):
        raise SourceError(f"{len(ids)} ids for {len(items)} items; give one each")
    builder = ListingBuilder()
    here = str(Path.cwd())
    for position, item in enumerate(items):
        path = _path(item)
        uri = None if path is None else join(here, path)
        id = ids[position] if ids is not None else f"{position:08d}" if path is None else printable(path)
        builder.add(id, uri, *((None, None) if uri is None else size_and_time(uri)))

    def read(row: int) -> Any:
        item = items[row]
        if item is None:
            raise ReadError(f"item {row} is None")
        path = _path(item)
        return item if path is None else read_bytes(join(here, path))

    return Listing(builder.finish(), ROOT, read)


def is_position(id: str) -> bool:
    """Say whether an id is only a place in a list, which another list may have too."""
    return re.fullmatch(r"(.*/)?(row-)?\d{8}", id) is not None


def _path(item: Any) -> str | None:
    return os.fsdecode(item) if isinstance(item, str | os.PathLike) else None


def _sequence(items: Any) -> Any:
    if isinstance(items, Image.Image):
        return [items]
    if not isinstance(items, np.ndarray):
        if hasattr(items, "to_numpy"):
            return list(items.to_numpy())
        if isinstance(items, Sequence) and not isinstance(items, str | bytes):
            return items
        raise SourceError(f"{type(items).__name__} is no source: give a path, URL, table, or list of images or paths")
    images = items.ndim == 4 and items.shape[-1] in (3, 4) and items.dtype == np.uint8
    if not images and not (items.ndim == 1 and items.dtype.kind in "OUT"):
        raise SourceError(
            f"an array of shape {items.shape} and type {items.dtype} is no source: give uint8 of shape "
            "(n, h, w, 3 or 4), or a list of arrays"
        )
    return items
