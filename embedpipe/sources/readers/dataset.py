"""Listing of objects of Hugging Face's `datasets`. Nothing is downloaded, and no script of a data set runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedpipe._utils.option_names import option
from embedpipe.errors import EmbedpipeError, SourceError
from embedpipe.sources.access.roots import Access, access_of_object
from embedpipe.sources.column_roles import find_column_roles
from embedpipe.sources.column_types import has_field, is_string, value_type
from embedpipe.sources.columns.conversion import plain_column
from embedpipe.sources.listing import ROOT, SPLITS, Listing, constant
from embedpipe.sources.locations import modified
from embedpipe.sources.options import Modality, SourceOptions
from embedpipe.sources.reading import Reader, RowNumbers
from embedpipe.sources.tables.cell_uris import table_cell_uris
from embedpipe.sources.tables.cells import Cells, payload_of
from embedpipe.sources.tables.rows import Payloads, cells, image_paths, join_listings, list_rows, texts
from embedpipe.sources.tables.shards import Shard
from embedpipe.sources.tables.table_files import load_table

_NAME = "the data set"


def is_dataset(source: Any) -> bool:
    """Return whether a source is a `datasets.Dataset` or `datasets.DatasetDict`."""
    library = sys.modules.get("datasets")
    kinds = tuple(getattr(library, name) for name in ("Dataset", "DatasetDict") if hasattr(library, name))
    return isinstance(source, kinds)


def list_dataset(dataset: Any, options: SourceOptions, modality: Modality) -> Listing:
    """List the rows of a `datasets.Dataset`, or of all splits of a `datasets.DatasetDict`.

    Names of splits are the splits of a `DatasetDict`, and come before its ids. A `Dataset` alone has the splits of its
    column ``split``. Its attribute ``split`` names where it was loaded from, also after `train_test_split`.

    Raises
    ------
    SourceError
        A column is missing or has a wrong type for its role.
    """
    if options.header is not None:
        raise SourceError(f"{option('header')} is for CSV and TSV files, and the columns of a data set have names")
    if not isinstance(dataset, dict):
        return _list_one(dataset, Shard(ROOT), options, modality)
    parts = [
        _list_one(part, Shard(ROOT, f"{name}/", SPLITS.get(name.lower(), name)), options, modality)
        for name, part in dataset.items()
    ]
    if not parts:
        raise SourceError("a data set must have a split, and has none")
    return join_listings(parts, ROOT)


def _list_one(dataset: Any, shard: Shard, options: SourceOptions, modality: Modality) -> Listing:
    schema = dataset.features.arrow_schema
    roles = find_column_roles(schema, options, _NAME, modality)
    type = value_type(schema.field(roles.payload).type)
    is_inside = modality == "image" and not is_string(type)
    names = roles.beside_payload
    table = _columns(dataset, names if is_inside else [*names, roles.payload])
    access = access_of_object(options.allow_root)
    if is_inside:
        payloads = _images(dataset, roles.payload, access)
    elif modality == "image":
        payloads = _named_images(table.column(roles.payload), access)
    else:
        payloads = texts(table.column(roles.payload), roles.payload)
    transform = dataset.format["type"] == "custom"
    notes = (f"the transform of {_NAME} is left out: images and texts are embedded as they are stored",) * transform
    return list_rows(table, roles, payloads, _NAME, shard, notes)


def _columns(dataset: Any, names: list[str]) -> pa.Table:
    """Return some columns of a data set, with the names of classes in their schema."""
    if not names:
        return pa.table({})
    chosen = dataset.select_columns(list(dict.fromkeys(names)))
    return chosen.with_format("arrow")[:].replace_schema_metadata(chosen.features.arrow_schema.metadata)


def _images(dataset: Any, name: str, access: Access) -> Payloads:
    """Images in the data set, or paths in its structs. Pages find those that lie in one file row by row."""
    structs = None
    if has_field(dataset.features.arrow_schema.field(name).type, "path"):
        undecoded = dataset.select_columns([name]).cast_column(name, sys.modules["datasets"].Image(decode=False))
        flat = undecoded.flatten()
        paths = _columns(flat, [f"{name}.path"]).column(0)
        if flat.data.column(f"{name}.bytes").null_count == flat.data.num_rows:
            return _named_images(paths, access)
        structs = pa.chunked_array([pa.StructArray.from_arrays([part], ["path"]) for part in paths.chunks])
    read = DatasetCells(dataset.select_columns([name]).with_format("arrow"), name, access)
    return cells(structs, len(dataset), read, *_places(dataset, name))


def _named_images(paths: pa.ChunkedArray, access: Access) -> Payloads:
    return image_paths(plain_column(paths, _NAME), str(Path.cwd()), access, _NAME)


def _places(dataset: Any, name: str) -> tuple[pa.ChunkedArray | None, pa.ChunkedArray | None]:
    """Return the uris of the images in the files that a data set is a memory map of, and their times.

    None for a data set in memory, or whose table is another one than its files hold.
    """
    files = [file["filename"] for file in dataset.cache_files]
    if not files or not hasattr(dataset, "_indices"):
        return None, None
    uris: list[pa.Array] = []
    times: list[pa.Array] = []
    rows = dataset.data.column(name)
    start = 0
    try:
        for file in files:
            if start == len(rows):  # the others hold the order of the rows
                break
            column = load_table(file, [name]).table.column(name)
            count = len(column)
            if count and (start + count > len(rows) or any(column[at] != rows[start + at] for at in (0, count - 1))):
                return None, None
            uris += table_cell_uris(name, count, file, None).chunks
            times += constant(modified(file), count, pa.int64()).chunks
            start += count
    except (EmbedpipeError, KeyError):
        return None, None
    if start != len(rows):
        return None, None
    places = pa.chunked_array(uris), pa.chunked_array(times)
    if dataset._indices is None:
        return places
    chosen = dataset._indices.column(0)  # of a data set that was shuffled, split or filtered
    return places[0].take(chosen), places[1].take(chosen)


class DatasetCells:
    """Reads the cells of a column of a data set, whose format is that of Arrow."""

    def __init__(self, dataset: Any, column: str, access: Access) -> None:
        self._dataset, self._column, self._access, self._folder = dataset, column, access, str(Path.cwd())

    def __call__(self, row: int) -> Any:
        """Return the payload of a row. Raises ReadError."""
        return payload_of(self._value(row), self._folder, "image", self._access)

    def take(self, rows: RowNumbers) -> Reader:
        """Return the reader of some rows."""
        return DatasetCells(self._dataset.select(rows), self._column, self._access)

    def __reduce__(self) -> Any:
        values = [self._value(row) for row in range(len(self._dataset))]
        return Cells, (values, self._folder, "image", self._access)

    def _value(self, row: int) -> Any:
        return self._dataset[row].column(self._column)[0].as_py()
