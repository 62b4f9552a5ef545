"""Items that are in memory already, or a Python sequence of paths."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from embedpipe.errors import ReadError, SourceError
from embedpipe.sources.file_types import read_payload
from embedpipe.sources.listing import SCHEMA, Listing, ListingBuilder, numbered
from embedpipe.sources.locations import join, printable, size_and_time
from embedpipe.sources.options import Modality

ROOT = "memory"


def list_items(items: Any, ids: Sequence[str] | None = None, modality: Modality = "image") -> Listing:
    """List a sequence of items, which may be mixed.

    Parameters
    ----------
    items : sequence, or one PIL image
        A list, tuple, pandas or polars Series, pyarrow array, or 1-D array of objects or strings. For images
        they are paths, encoded bytes, PIL images and uint8 arrays, or all a uint8 array of shape (n, h, w, 3 or 4).
        For texts, a ``str`` is a text, a ``pathlib.Path`` a text file, ``bytes`` are such a file's contents, and
        `EmailBytes` an e-mail. None, and among texts NaN, NA and NaT, stands for a missing item, which cannot
        be read.
    ids : sequence of str, optional
        By default a path is its own id, and anything else has its position as ``"00000012"``.
    modality : str
        ``"image"`` or ``"text"``.

    Raises
    ------
    SourceError
        ``items`` is not such a sequence, or ``ids`` has another length.
    """
    items = _sequence(items, modality)
    if ids is not None and len(ids) != len(items):
        raise SourceError(f"{len(ids)} ids for {len(items)} items; give one each")
    here = str(Path.cwd())
    path_of, is_missing = (_image_path, _is_none) if modality == "image" else (_text_path, is_missing_text)

    def read(row: int) -> Any:
        item = items[row]
        if is_missing(item):
            raise ReadError(f"item {row} is {item}")
        path = path_of(item)
        return item if path is None else read_payload(join(here, path), modality)

    if modality == "text" and not any(issubclass(kind, os.PathLike) for kind in set(map(type, items))):
        return Listing(_table_of_loaded(len(items), ids), ROOT, read)
    return Listing(_table_of_mixed(items, ids, here, path_of), ROOT, read)


def is_position(id: str) -> bool:
    """Say whether an id is only a place in a list, which another list may have too."""
    return re.fullmatch(r"(.*/)?(row-)?\d{8}", id) is not None


def _table_of_loaded(count: int, ids: Sequence[str] | None) -> pa.Table:
    """Make the table of items none of which is a file: no Python object for each, as there may be millions."""
    nothing = {field.name: pa.nulls(count, field.type) for field in SCHEMA}
    return pa.table(nothing | {"id": numbered("", count) if ids is None else pa.array(ids, pa.string())})


def _table_of_mixed(items: Any, ids: Sequence[str] | None, here: str, path_of: Callable[[Any], str | None]) -> pa.Table:
    builder = ListingBuilder()
    for position, item in enumerate(items):
        path = path_of(item)
        uri = None if path is None else join(here, path)
        id = ids[position] if ids is not None else f"{position:08d}" if path is None else printable(path)
        builder.add(id, uri, *((None, None) if uri is None else size_and_time(uri)))
    return builder.finish()


def _image_path(item: Any) -> str | None:
    return os.fsdecode(item) if isinstance(item, str | os.PathLike) else None


def _text_path(item: Any) -> str | None:
    return os.fsdecode(item) if isinstance(item, os.PathLike) else None


def _is_none(item: Any) -> bool:
    return item is None


def is_missing_text(item: Any) -> bool:
    """Say whether an item among texts stands for none: None, NaN, NA or NaT."""
    if isinstance(item, str | bytes):
        return False
    pandas = sys.modules.get("pandas")
    if item is None or (pandas is not None and (item is pandas.NA or item is pandas.NaT)):
        return True
    return isinstance(item, float | np.floating) and bool(np.isnan(item))


def _sequence(items: Any, modality: Modality) -> Any:
    if isinstance(items, Image.Image):
        return [items]
    if isinstance(items, pa.Array | pa.ChunkedArray):
        return items.to_numpy(zero_copy_only=False)
    if not isinstance(items, np.ndarray):
        if hasattr(items, "to_numpy"):
            return list(items.to_numpy())
        if isinstance(items, Sequence) and not isinstance(items, str | bytes):
            return items
        if modality == "text":
            raise SourceError(f"{type(items).__name__} is no source: give a path, URL, table, or list of texts")
        raise SourceError(f"{type(items).__name__} is no source: give a path, URL, table, or list of images or paths")
    if items.ndim == 1 and items.dtype.kind in "OUT":
        return items
    about = f"an array of shape {items.shape} and type {items.dtype} is no source: give"
    if modality == "text":
        raise SourceError(f"{about} a 1-D array of strings, or a list of them")
    if not (items.ndim == 4 and items.shape[-1] in (3, 4) and items.dtype == np.uint8):
        raise SourceError(f"{about} uint8 of shape (n, h, w, 3 or 4), or a list of arrays")
    return items
