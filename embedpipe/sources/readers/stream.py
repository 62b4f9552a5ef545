"""Listing of iterators and iterable data sets: every item is read once and kept in a file until the process ends."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from embedpipe.errors import SourceError
from embedpipe.sources.access.roots import access_of_memory, access_of_object
from embedpipe.sources.columns.spool import Spool
from embedpipe.sources.in_memory import as_file, is_pair, plain_value
from embedpipe.sources.listing import CHUNK_ROWS, SPLITS, Listing
from embedpipe.sources.options import Modality, SourceOptions
from embedpipe.sources.tables.rows import list_in_memory

#: Bytes of images and texts that wait in memory.
_CHUNK_BYTES = 1 << 23


def list_stream(items: Any, options: SourceOptions, modality: Modality) -> Listing:
    """List an iterator of images or texts, of pairs with a label, or of dicts with the columns of a table.

    Ids are numbers of rows if no column has them. Images that are not encoded are kept as PNG or TIFF without loss. A
    `datasets.IterableDataset` or `IterableDatasetDict` is read without decoding, and may name files below the working
    folder only.

    Raises
    ------
    SourceError
        Items have different types, or an array is no image.
    """
    library = sys.modules.get("datasets")
    metadata = None
    rows: Iterator[dict[str, Any]]
    if library is not None and isinstance(items, library.IterableDataset | library.IterableDatasetDict):
        access = access_of_object(options.allow_root)
        parts = items.items() if isinstance(items, dict) else [(None, items)]
        features = next((part.features for _, part in parts if part.features), None)
        metadata = None if features is None else features.arrow_schema.metadata
        rows = (row for name, part in parts for row in _examples(part, name))
    else:
        access = access_of_memory(options.allow_root)
        rows = _rows(items, modality)
    return list_in_memory(_spooled(rows).replace_schema_metadata(metadata), options, modality, access)


def _examples(dataset: Any, split: str | None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a `datasets.IterableDataset`, with the name of its split if it has one."""
    named = {} if split is None else {"split": SPLITS.get(split.lower(), split)}
    for row in dataset.decode(False) if dataset.features else dataset:
        yield named | row


def _rows(items: Iterable[Any], modality: Modality) -> Iterator[dict[str, Any]]:
    for number, item in enumerate(items):
        if isinstance(item, dict):
            yield {str(name): as_file(value, number, modality) for name, value in item.items()}
        elif is_pair(item):
            yield {modality: as_file(item[0], number, modality), "label": plain_value(item[1])}
        else:
            yield {modality: as_file(item, number, modality)}


def _spooled(rows: Iterable[dict[str, Any]]) -> pa.Table:
    """Return rows as a table, which lies on disk if it is large."""
    spool = Spool()
    waiting: list[dict[str, Any]] = []
    size = number = 0
    for row in rows:
        waiting.append(row)
        size += sum(len(value) for value in row.values() if isinstance(value, str | bytes))
        if size >= _CHUNK_BYTES or len(waiting) == CHUNK_ROWS:
            spool.add(_table(waiting, number))
            number += len(waiting)
            waiting, size = [], 0
    if waiting:
        spool.add(_table(waiting, number))
    if not (tables := spool.finish()):
        raise SourceError("an iterator must give at least one item, and gives none")
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise SourceError(f"items of an iterator must have values of the same types: {error}") from error


def _table(rows: list[dict[str, Any]], first: int) -> pa.Table:
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {}
    for name in names:
        try:
            columns[name] = pa.array([row.get(name) for row in rows])
        except (pa.ArrowException, OverflowError, TypeError, UnicodeError) as error:
            raise SourceError(
                f"items {first} to {first + len(rows) - 1} must have values of one plain type for {name!r}: {error}"
            ) from error
    return pa.table(columns)
