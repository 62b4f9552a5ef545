"""URIs of the cells of table files, for stores, and reading the payload that one names."""

from __future__ import annotations

import functools
import re
import urllib.parse
from typing import Any

import pyarrow as pa

from embedpipe.errors import ReadError
from embedpipe.sources.access.roots import access_of, access_of_store
from embedpipe.sources.listing import numbered
from embedpipe.sources.locations import modified, split_location
from embedpipe.sources.options import Modality
from embedpipe.sources.tables.cells import payload_of
from embedpipe.sources.tables.parquet_cells import shared_cells
from embedpipe.sources.tables.table_files import load_table

_PARQUET_URI = re.compile(r"parquet://(.*)/([0-9]{1,18})::(.+)", re.DOTALL)
_TABLE_URI = re.compile(r"table://(?:([^/]*)/)?([^/]*)/([0-9]{1,18})::(.+)", re.DOTALL)


def cell_uris(column: str, count: int, location: str) -> pa.ChunkedArray:
    """Return the URIs of the cells of a column of a Parquet file, for `read_cell_uri`."""
    return numbered(f"parquet://{column}/", count, f"::{location}", width=0)


def table_cell_uris(column: str, count: int, location: str, names: str | None) -> pa.ChunkedArray:
    """Return the URIs of the cells of a column of a CSV, TSV or JSON-lines file, for `read_cell_uri`.

    They are ``table://<column>/<row>::<file>``, with ``<names>/`` before the column if the names of the columns were
    given (`SourceOptions.header`).
    """
    before = "" if names is None else f"{_escaped(names)}/"
    return numbered(f"table://{before}{_escaped(column)}/", count, f"::{location}", width=0)


def read_cell_uri(uri: str, modality: Modality) -> Any:
    """Read the image or text in a cell of a table file. Raises ReadError."""
    if match := _PARQUET_URI.fullmatch(uri):
        column, row, location = match.groups()
        access_of_store().check_file(location)
        try:
            access = access_of(split_location(location)[0])
            cells = shared_cells(location, column, modality, modified(location), access)
        except Exception as error:
            raise ReadError(f"cannot read {location}: {error}") from error
        return cells(int(row))
    match = _TABLE_URI.fullmatch(uri)
    if not match:
        raise ReadError(
            f"a uri of a cell must be parquet://<column>/<row>::<file> or table://<column>/<row>::<file>, got {uri!r}"
        )
    names, column, row, location = match.groups()
    access_of_store().check_file(location)
    try:
        names = None if names is None else urllib.parse.unquote(names)
        cell = _column(location, urllib.parse.unquote(column), names, modified(location))[int(row)].as_py()
    except Exception as error:
        raise ReadError(f"cannot read row {row} of {location}: {error}") from error
    return payload_of(cell, split_location(location)[0], modality, access_of(split_location(location)[0]))


@functools.lru_cache(maxsize=4)
def _column(location: str, column: str, names: str | None, time: int | None) -> pa.ChunkedArray:
    """Keep the columns of a few files. A new ``time`` reads a changed file again."""
    return load_table(location, [column], [column], names).table.column(column)


def _escaped(name: str) -> str:
    return name.replace("%", "%25").replace("/", "%2F")
