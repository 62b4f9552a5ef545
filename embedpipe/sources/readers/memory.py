"""Listing of items in memory, or of a sequence of paths."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from embedpipe._utils.missing import is_missing
from embedpipe._utils.option_names import option
from embedpipe.errors import ReadError, SourceError
from embedpipe.sources.access.roots import Access, access_of_memory
from embedpipe.sources.columns.labels import clean_labels
from embedpipe.sources.file_types import is_image_name, read_payload
from embedpipe.sources.in_memory import Pairs, plain_item
from embedpipe.sources.listing import ROOT, SCHEMA, Listing, ListingBuilder, numbered
from embedpipe.sources.locations import join, printable, size_and_time
from embedpipe.sources.options import Modality, or_other_modality
from embedpipe.sources.reading import Reader, RowNumbers


def list_items(
    items: Any, ids: Sequence[str] | None = None, modality: Modality = "image", allow_root: Sequence[str] = ()
) -> Listing:
    """List a sequence of items, which may have different types.

    Parameters
    ----------
    items : sequence, or one PIL image
        A list, tuple, pandas or polars Series, pyarrow array, or 1-D array of objects or strings. Images are paths,
        encoded bytes, PIL images, uint8 arrays or tensors, or together one uint8 array of shape (n, h, w, 3 or 4). For
        texts, a ``str`` is a text, a ``pathlib.Path`` a text file, ``bytes`` the contents of a text file, and
        `EmailBytes` an e-mail. None is a missing item, which cannot be read; for texts also NaN, NA and NaT.
    ids : sequence of str, optional
        Default: the path, or for other items the position as ``"00000012"``.
    modality : str
        ``"image"`` or ``"text"``.
    allow_root : sequence of str
        See `SourceOptions`.

    Raises
    ------
    SourceError
        ``items`` is not such a sequence, or ``ids`` has another length.
    """
    items = _sequence(items, modality)
    if ids is not None and len(ids) != len(items):
        raise SourceError(f"ids must have one id per item, got {len(ids)} ids for {len(items)} items")
    folder = str(Path.cwd())
    access = access_of_memory(allow_root)
    read = _Items(items, folder, modality, access)
    if modality == "text" and not any(issubclass(kind, os.PathLike) for kind in set(map(type, items))):
        return Listing(_table_of_loaded(len(items), ids), ROOT, read)
    return Listing(_table_of_mixed(items, ids, folder, read.path_of), ROOT, read)


def list_pairs(pairs: Pairs, modality: Modality = "image", allow_root: Sequence[str] = ()) -> Listing:
    """List the images or texts of pairs with a label. Raises SourceError for labels of several types."""
    read = _Items(pairs.items, str(Path.cwd()), modality, access_of_memory(allow_root))
    if pairs.is_lazy and read.path_of(pairs.items[0]) is None:
        table = _table_of_loaded(len(pairs.items), None)
    else:
        table = list_items(pairs.items, None, modality, allow_root).table
    labels, remarks = clean_labels(pa.chunked_array([pairs.labels]), "label")
    at = table.column_names.index("label")
    return Listing(table.set_column(at, "label", labels), ROOT, read, notes=(*pairs.notes, *remarks))


class _Items:
    """Reads items in memory, and the files that paths among them name.

    Parameters
    ----------
    items : sequence or dict
        Items by their position in the sequence of the user.
    folder : str
        Where relative paths begin.
    modality : str
    access : Access
        What paths may name.
    positions : int64 array, optional
        Position of each row. Default: the row.
    """

    def __init__(
        self, items: Any, folder: str, modality: Modality, access: Access, positions: RowNumbers | None = None
    ) -> None:
        self._items, self._folder, self._modality, self._access = items, folder, modality, access
        self._positions = positions
        self._is_missing = _is_none if modality == "image" else is_missing
        #: Returns the path that an item is, None for other items: a string is a path of an image, or a text.
        self.path_of = _image_path if modality == "image" else _text_path
        advice = f"if it is a text and not a path, pass {option('modality', 'text')}"
        self._advice = or_other_modality(advice, modality)

    def __call__(self, row: int) -> Any:
        """Return an item, or the bytes of its file. Raises ReadError."""
        position = row if self._positions is None else self._positions.item(row)
        item = self._items[position]
        if self._is_missing(item):
            raise ReadError(f"item {position} is missing: {item}")
        path = self.path_of(item)
        if path is None:
            return plain_item(item)
        try:
            return read_payload(join(self._folder, path), self._modality, self._access)
        except ReadError as error:
            if not is_image_name(path) and isinstance(error.__cause__, FileNotFoundError):
                raise ReadError(f"{error}; {self._advice}") from error.__cause__
            raise

    def take(self, rows: RowNumbers) -> Reader:
        """Return the reader of some rows. It reads the items from the same sequence until it is pickled."""
        positions = rows if self._positions is None else self._positions[rows]
        reader = _Items(self._items, self._folder, self._modality, self._access, positions)
        reader._advice = self._advice
        return reader

    def __getstate__(self) -> dict[str, Any]:
        positions = range(len(self._items)) if self._positions is None else self._positions.tolist()
        return {**self.__dict__, "_items": {position: self._items[position] for position in positions}}


def is_position(id: str) -> bool:
    """Return whether an id is a position in a list, which another list may have too."""
    return re.fullmatch(r"(.*/)?(row-)?\d{8}", id) is not None


def _table_of_loaded(count: int, ids: Sequence[str] | None) -> pa.Table:
    """Return the table of items without files. It needs no Python object per item."""
    nulls = {field.name: pa.nulls(count, field.type) for field in SCHEMA}
    return pa.table(nulls | {"id": numbered("", count) if ids is None else pa.array(ids, pa.string())})


def _table_of_mixed(
    items: Any, ids: Sequence[str] | None, folder: str, path_of: Callable[[Any], str | None]
) -> pa.Table:
    builder = ListingBuilder()
    for position, item in enumerate(items):
        path = path_of(item)
        uri = None if path is None else join(folder, path)
        id = ids[position] if ids is not None else f"{position:08d}" if path is None else printable(path)
        builder.add(id, uri, *((None, None) if uri is None else size_and_time(uri)))
    return builder.finish()


def _image_path(item: Any) -> str | None:
    return os.fsdecode(item) if isinstance(item, str | os.PathLike) else None


def _text_path(item: Any) -> str | None:
    return os.fsdecode(item) if isinstance(item, os.PathLike) else None


def _is_none(item: Any) -> bool:
    return item is None


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
        what = "texts" if modality == "text" else "images or paths"
        advice = ": give what it returns" if callable(items) else ""
        advice = ": give what its collect() returns" if hasattr(items, "collect") else advice  # a lazy frame
        raise SourceError(f"a source must be a path, URL, table or list of {what}, got {type(items).__name__}{advice}")
    if items.ndim == 1 and items.dtype.kind in "OUT":
        return items
    actual = f"got shape {items.shape} and type {items.dtype}"
    if modality == "text":
        raise SourceError(f"an array of texts must be 1-D with strings, {actual}")
    if not (items.ndim == 4 and items.shape[-1] in (3, 4) and items.dtype == np.uint8):
        raise SourceError(f"an array of images must be uint8 of shape (n, h, w, 3 or 4), {actual}")
    return items
