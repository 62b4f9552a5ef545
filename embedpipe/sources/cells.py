"""Images that are cells of a table: bytes, or structs of bytes and path as Hugging Face data sets write them."""

from __future__ import annotations

import bisect
import functools
import itertools
import re
import threading
from collections import OrderedDict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedpipe.errors import ReadError
from embedpipe.sources.locations import join, modified, open_file, read_bytes, split

_URI = re.compile(r"parquet://(.*)/(\d+)::(.+)", re.DOTALL)

#: Row groups kept in memory: rows are asked for in order by several threads, so few are in use at a time.
_GROUPS_KEPT = 3


def cell_uri(column: str, row: int, location: str) -> str:
    """Return the URI of one cell of a Parquet file, which `read_cell_uri` opens."""
    return f"parquet://{column}/{row}::{location}"


def read_cell_uri(uri: str) -> Any:
    """Read what `cell_uri` names. Raises ReadError."""
    match = _URI.fullmatch(uri)
    if not match:
        raise ReadError(f"{uri!r} is not of the form parquet://<column>/<row>::<file>")
    column, row, location = match.groups()
    try:
        cells = _cells(location, column, modified(location))
    except Exception as error:
        raise ReadError(f"cannot read {location}: {error}") from error
    return cells(int(row))


def payload_of(cell: Any, folder: str) -> bytes:
    """Return the image bytes of a cell: bytes, a path relative to ``folder``, or a struct of either.

    Raises ReadError if the cell is null or its file cannot be read.
    """
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if cell is None:
        raise ReadError("the row has no image: the cell is null")
    return read_bytes(join(folder, cell)) if isinstance(cell, str) else bytes(cell)


class ParquetCells:
    """Reads cells of one column of a Parquet file, a row group at a time. Safe to use from several threads."""

    def __init__(self, location: str, column: str) -> None:
        self._location = location
        self._column = column
        self._lock = threading.Lock()
        self._file: pq.ParquetFile | None = None
        self._starts: list[int] = []
        self._groups: OrderedDict[int, pa.ChunkedArray] = OrderedDict()

    def __call__(self, row: int) -> bytes:
        """Return the image bytes of a row. Raises ReadError."""
        try:
            with self._lock:
                group, start = self._group(row)
            cell = group[row - start].as_py()
        except Exception as error:
            raise ReadError(f"cannot read row {row} of {self._location}: {error}") from error
        return payload_of(cell, split(self._location)[0])

    def _group(self, row: int) -> tuple[pa.ChunkedArray, int]:
        if self._file is None:
            self._file = pq.ParquetFile(open_file(self._location))
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
def _cells(location: str, column: str, time: int | None) -> ParquetCells:
    """Keep a few files open; ``time`` lets go of a file that was written anew."""
    return ParquetCells(location, column)
