"""Payloads in the cells of table files: images or texts, read on demand."""

from __future__ import annotations

import bisect
import functools
import itertools
import re
import threading
import urllib.parse
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedpipe.errors import ReadError
from embedpipe.sources.access.roots import Access, access_of, access_of_store, read_allowed
from embedpipe.sources.listing import numbered
from embedpipe.sources.locations import join, modified, open_file, split_location
from embedpipe.sources.options import Modality
from embedpipe.sources.reading import Reader, RowNumbers, Selected, take_near
from embedpipe.sources.table_files import load_table

_PARQUET_URI = re.compile(r"parquet://(.*)/(\d+)::(.+)", re.DOTALL)
_TABLE_URI = re.compile(r"table://(?:([^/]*)/)?([^/]*)/(\d+)::(.+)", re.DOTALL)

#: Row groups of a file kept in memory. Several threads read rows in order, so few groups are in use at a time.
_GROUPS_KEPT = 3

#: Most Parquet files of listings that are open, and most bytes of their row groups. A source may have thousands.
_MOST_OPEN = 32
_MOST_BYTES = 1 << 28

#: Readers with an open file, the oldest first.
_open: list[weakref.ref[ParquetCells]] = []
_opening = threading.Lock()


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
            cells = _cells(location, column, modality, modified(location), access)
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


def payload_of(cell: Any, folder: str, modality: Modality, access: Access) -> Any:
    """Return the payload of a cell.

    A text is the string or bytes in the cell. An image is the bytes in the cell, the file at a path relative to
    ``folder``, or a struct of either as in Hugging Face data sets.

    Raises ReadError if the cell is null, a text is empty, or the file of an image cannot or must not be read.
    """
    if modality == "text":
        if not cell:
            raise ReadError("the row has no text: the cell is empty")
        return cell
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if cell is None:
        raise ReadError("the row has no image: the cell is null")
    return read_allowed(join(folder, cell), access) if isinstance(cell, str) else bytes(cell)


class Cells:
    """Reads the cells of a column in memory."""

    def __init__(self, cells: pa.ChunkedArray | Sequence[Any], folder: str, modality: Modality, access: Access) -> None:
        self._cells, self._folder, self._modality, self._access = cells, folder, modality, access

    def __call__(self, row: int) -> Any:
        """Return the payload of a row. Raises ReadError."""
        return payload_of(self._value(row), self._folder, self._modality, self._access)

    def take(self, rows: RowNumbers) -> Reader:
        """Return the reader of some rows."""
        fast = isinstance(self._cells, pa.ChunkedArray) and self._cells.type == pa.string()
        # Views and runs have no `take`, and a dictionary would be pickled whole.
        values = take_near(self._cells, rows).to_pylist() if fast else [self._value(row) for row in rows.tolist()]
        return Cells(values, self._folder, self._modality, self._access)

    def _value(self, row: int) -> Any:
        cell = self._cells[row]
        return cell.as_py() if isinstance(cell, pa.Scalar) else cell


class ParquetCells:
    """Reads the cells of a column of a Parquet file by row group. Safe to use from several threads.

    ``listed`` is the modification time of the file at the time of the listing. A changed file is refused.
    In another process, the readers of several tasks share the open file and the row groups.
    """

    def __init__(self, location: str, column: str, modality: Modality, listed: int | None, access: Access) -> None:
        self._location = location
        self._access = access
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
                is_new = self._file is None
                group, start = self._group(row)
            if is_new:
                _close_others(self)
            cell = group[row - start].as_py()
        except Exception as error:
            raise ReadError(f"cannot read row {row} of {self._location}: {error}") from error
        return payload_of(cell, self._folder, self._modality, self._access)

    def take(self, rows: RowNumbers) -> Reader:
        """Return the reader of some rows."""
        return Selected(self, rows)

    @property
    def nbytes(self) -> int:
        """Bytes of the row groups in memory."""
        return sum(group.nbytes for group in list(self._groups.values()))

    def close(self) -> None:
        """Forget the file and its row groups until the next call."""
        with self._lock:
            if self._file is not None:
                self._file.close(force=True)
            self._file = None
            self._groups.clear()

    def __reduce__(self) -> Any:
        known = (self._location, self._column, self._modality, self._listed, self._access)
        return ParquetCells if self._listed is None else _cells, known

    def _group(self, row: int) -> tuple[pa.ChunkedArray, int]:
        if self._file is None:
            file = pq.ParquetFile(open_file(self._location))
            if modified(self._location) != self._listed:
                raise OSError("the file has changed since its rows were listed: run again")
            self._file = file
            metadata = self._file.metadata
            sizes = (metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
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


def _close_others(opened: ParquetCells) -> None:
    """Take note of a reader that has opened its file, and close the oldest ones if too many are open."""
    with _opening:
        alive = [reader for known in _open if (reader := known()) is not None] + [opened]
        held = list(itertools.accumulate(reader.nbytes for reader in reversed(alive)))
        keep = max(1, min(_MOST_OPEN, bisect.bisect_right(held, _MOST_BYTES)))
        closing, _open[:] = alive[:-keep], map(weakref.ref, alive[-keep:])
    for reader in closing:
        reader.close()


@functools.lru_cache(maxsize=4)
def _cells(location: str, column: str, modality: Modality, time: int | None, access: Access) -> ParquetCells:
    """Keep a few files open. A new ``time`` opens a changed file again."""
    return ParquetCells(location, column, modality, time, access)


@functools.lru_cache(maxsize=4)
def _column(location: str, column: str, names: str | None, time: int | None) -> pa.ChunkedArray:
    """Keep the columns of a few files. A new ``time`` reads a changed file again."""
    return load_table(location, [column], [column], names).table.column(column)


def _escaped(name: str) -> str:
    return name.replace("%", "%25").replace("/", "%2F")
