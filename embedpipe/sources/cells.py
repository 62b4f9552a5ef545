"""Payloads that are cells of a table file: images or texts, read when they are asked for."""

from __future__ import annotations

import bisect
import functools
import itertools
import re
import threading
import urllib.parse
from collections import OrderedDict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedpipe.errors import ReadError
from embedpipe.sources.listing import numbered
from embedpipe.sources.locations import join, modified, open_file, read_bytes, split_location
from embedpipe.sources.options import Modality
from embedpipe.sources.table_files import load_table

_PARQUET_URI = re.compile(r"parquet://(.*)/(\d+)::(.+)", re.DOTALL)
_TABLE_URI = re.compile(r"table://(?:([^/]*)/)?([^/]*)/(\d+)::(.+)", re.DOTALL)

#: Row groups kept in memory: rows are asked for in order by several threads, so few are in use at a time.
_GROUPS_KEPT = 3


def cell_uris(column: str, count: int, location: str) -> pa.ChunkedArray:
    """Return the URIs of a Parquet file's cells, which `read_cell_uri` opens."""
    return numbered(f"parquet://{column}/", count, f"::{location}", width=0)


def table_cell_uris(column: str, count: int, location: str, names: str | None) -> pa.ChunkedArray:
    """Return the URIs of the cells of a CSV, TSV or JSON-lines file, which `read_cell_uri` opens.

    They are ``table://<column>/<row>::<file>``, with ``<names>/`` before the column where the names of
    the columns were given (`SourceOptions.header`).
    """
    before = "" if names is None else f"{_escaped(names)}/"
    return numbered(f"table://{before}{_escaped(column)}/", count, f"::{location}", width=0)


def read_cell_uri(uri: str, modality: Modality) -> Any:
    """Read the image or text that is the cell of a table file. Raises ReadError."""
    if match := _PARQUET_URI.fullmatch(uri):
        column, row, location = match.groups()
        try:
            cells = _cells(location, column, modality, modified(location))
        except Exception as error:
            raise ReadError(f"cannot read {location}: {error}") from error
        return cells(int(row))
    match = _TABLE_URI.fullmatch(uri)
    if not match:
        raise ReadError(
            f"{uri!r} is not of the form parquet://<column>/<row>::<file> or table://<column>/<row>::<file>"
        )
    names, column, row, location = match.groups()
    try:
        names = None if names is None else urllib.parse.unquote(names)
        cell = _column(location, urllib.parse.unquote(column), names, modified(location))[int(row)].as_py()
    except Exception as error:
        raise ReadError(f"cannot read row {row} of {location}: {error}") from error
    return payload_of(cell, split_location(location)[0], modality)


def payload_of(cell: Any, folder: str, modality: Modality) -> Any:
    """Return the payload of a cell.

    For a text the string or bytes in it; for an image its bytes, or those of the file at a path relative to
    ``folder``, or a struct of either as Hugging Face data sets write them.

    Raises ReadError if the cell is null, a text is empty, or an image's file cannot be read.
    """
    if modality == "text":
        if not cell:
            raise ReadError("the row has no text: the cell is empty")
        return cell
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if cell is None:
        raise ReadError("the row has no image: the cell is null")
    return read_bytes(join(folder, cell)) if isinstance(cell, str) else bytes(cell)


class ParquetCells:
    """Reads cells of one column of a Parquet file, a row group at a time. Safe to use from several threads.

    ``listed`` is the file's modification time when its rows were listed: another file has others.
    """

    def __init__(self, location: str, column: str, modality: Modality, listed: int | None) -> None:
        self._location = location
        self._listed = listed
        self._folder = split_location(location)[0]
        self._column = column
        self._modality = modality
        self._lock = threading.Lock()
        self._file: pq.ParquetFile | None = None
        self._starts: list[int] = []
        self._groups: OrderedDict[int, pa.ChunkedArray] = OrderedDict()

    def __call__(self, row: int) -> Any:
        """Return the payload of a row. Raises ReadError."""
        try:
            with self._lock:
                group, start = self._group(row)
            cell = group[row - start].as_py()
        except Exception as error:
            raise ReadError(f"cannot read row {row} of {self._location}: {error}") from error
        return payload_of(cell, self._folder, self._modality)

    def _group(self, row: int) -> tuple[pa.ChunkedArray, int]:
        if self._file is None:
            file = pq.ParquetFile(open_file(self._location))
            if modified(self._location) != self._listed:
                raise OSError("it was written anew since its rows were listed: run again")
            self._file = file
            about = self._file.metadata
            sizes = (about.row_group(i).num_rows for i in range(about.num_row_groups))
            self._starts = [0, *itertools.accumulate(sizes)]
        index = bisect.bisect_right(self._starts, row) - 1
        if index >= len(self._starts) - 1:
            raise IndexError(f"the file has {self._starts[-1]} rows")
        if index not in self._groups:
            if len(self._groups) == _GROUPS_KEPT:
                self._groups.popitem(last=False)
            self._groups[index] = self._file.read_row_group(index, columns=[self._column]).column(0)
        self._groups.move_to_end(index)
        return self._groups[index], self._starts[index]


@functools.lru_cache(maxsize=4)
def _cells(location: str, column: str, modality: Modality, time: int | None) -> ParquetCells:
    """Keep a few files open; ``time`` lets go of a file that was written anew."""
    return ParquetCells(location, column, modality, time)


@functools.lru_cache(maxsize=4)
def _column(location: str, column: str, names: str | None, time: int | None) -> pa.ChunkedArray:
    """Keep a few files' columns; ``time`` lets go of a file that was written anew."""
    return load_table(location, [column], [column], names).table.column(column)


def _escaped(name: str) -> str:
    return name.replace("%", "%25").replace("/", "%2F")
