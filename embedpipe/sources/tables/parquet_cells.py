"""Payloads in the cells of Parquet files, read on demand."""

from __future__ import annotations

import bisect
import functools
import itertools
import threading
import weakref
from collections import OrderedDict, deque
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedpipe.errors import ReadError
from embedpipe.sources.access.roots import Access
from embedpipe.sources.locations import modified, open_file, split_location
from embedpipe.sources.options import Modality
from embedpipe.sources.reading import Reader, RowNumbers, Selected
from embedpipe.sources.tables.cells import payload_of

#: Bytes of the row groups of a file that stay in memory. Threads read rows in order, so that few are in use at a time.
_GROUPS_BYTES = 1 << 26

#: Bytes of the cells of a row group from which it is read a part at a time.
_LARGE_GROUP = 1 << 25

#: Bytes of a part, and how many parts behind the last row stay in memory.
_PART, _PARTS_KEPT = 1 << 20, 32

#: Large row groups of a file that are read at the same time.
_WINDOWS_KEPT = 2

#: Most Parquet files of listings that are open, and most bytes of their row groups. A source may have thousands.
_MOST_OPEN = 32
_MOST_BYTES = 1 << 28

#: Readers with an open file, the oldest first.
_open: list[weakref.ref[ParquetCells]] = []
_opening = threading.Lock()


class ParquetCells:
    """Reads the cells of a column of a Parquet file. Safe to use from several threads.

    A row group is read whole, or if it is large, part by part from its beginning (`_Window`).

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
        self._sizes: dict[int, int] = {}
        self._groups: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._windows: list[_Window] = []

    def __call__(self, row: int) -> Any:
        """Return the payload of a row. Raises ReadError."""
        try:
            with self._lock:
                is_new = self._file is None
                part, start = self._part(row)
            if is_new:
                _close_others(self)
            cell = part[row - start].as_py()
        except Exception as error:
            raise ReadError(f"cannot read row {row} of {self._location}: {error}") from error
        return payload_of(cell, self._folder, self._modality, self._access)

    def take(self, rows: RowNumbers) -> Reader:
        """Return the reader of some rows."""
        return Selected(self, rows)

    @property
    def nbytes(self) -> int:
        """Bytes of the row groups in memory."""
        return sum(part.nbytes for part in [*list(self._groups.values()), *list(self._windows)])

    def close(self) -> None:
        """Forget the file and its row groups until the next call."""
        with self._lock:
            if self._file is not None:
                self._file.close(force=True)
            self._file = None
            self._groups.clear()
            self._windows.clear()

    def __reduce__(self) -> Any:
        known = (self._location, self._column, self._modality, self._listed, self._access)
        return ParquetCells if self._listed is None else shared_cells, known

    def _part(self, row: int) -> tuple[pa.Array | pa.ChunkedArray, int]:
        """Return some cells with that of a row, and the row of the first."""
        if self._file is None:
            self._file = self._open()
            metadata = self._file.metadata
            sizes = (metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
            self._starts, self._sizes = [0, *itertools.accumulate(sizes)], {}
        index = bisect.bisect_right(self._starts, row) - 1
        if index >= len(self._starts) - 1:
            raise IndexError(f"the file has {self._starts[-1]} rows")
        start = self._starts[index]
        if (size := self._sizes.get(index)) is None:
            size = self._sizes[index] = _column_size(self._file.metadata.row_group(index), self._column)
        if size > _LARGE_GROUP:
            part, first = self._window(index, row - start, size)[row - start]
            return part, start + first
        if index not in self._groups:
            while self._groups and sum(part.nbytes for part in self._groups.values()) + size > _GROUPS_BYTES:
                self._groups.popitem(last=False)
            self._groups[index] = self._file.read_row_group(index, columns=[self._column]).column(0)
        self._groups.move_to_end(index)
        return self._groups[index], start

    def _window(self, group: int, row: int, size: int) -> _Window:
        """Return a window of a row group that has a row, or has it before itself."""
        behind = [window for window in self._windows if window.group == group and window.first <= row]
        window = max(behind, key=lambda window: window.first, default=None) or self._new_window(group, size)
        self._windows = [window, *(other for other in self._windows if other is not window)][:_WINDOWS_KEPT]
        return window

    def _new_window(self, group: int, size: int) -> _Window:
        return _Window(self._open(buffer_size=_PART, pre_buffer=False), group, self._column, size)

    def _open(self, **options: Any) -> pq.ParquetFile:
        file = pq.ParquetFile(open_file(self._location), **options)
        if modified(self._location) != self._listed:
            raise OSError("the file has changed since its rows were listed: run again")
        return file


class _Window:
    """The last cells that were read of a row group, which is read forward only.

    Memory holds `_PARTS_KEPT` parts and a page of the file, which pyarrow writes for every 1,024 rows.
    """

    def __init__(self, file: pq.ParquetFile, group: int, column: str, size: int) -> None:
        self.group = group
        rows = max(1, file.metadata.row_group(group).num_rows * _PART // size)
        self._batches = file.iter_batches(rows, row_groups=[group], columns=[column], use_threads=False)
        self._kept: deque[tuple[int, pa.Array]] = deque(maxlen=_PARTS_KEPT)
        self._stop = 0

    @property
    def first(self) -> int:
        """The first row that can still be read."""
        return self._kept[0][0] if self._kept else 0

    @property
    def nbytes(self) -> int:
        """Bytes of the cells in memory."""
        return sum(part.nbytes for _, part in list(self._kept))

    def __getitem__(self, row: int) -> tuple[pa.Array, int]:
        """Return the part with a row, and the row of its first cell."""
        while row >= self._stop:
            part = next(self._batches).column(0)
            self._kept.append((self._stop, part))
            self._stop += len(part)
        return next((part, start) for start, part in reversed(self._kept) if start <= row)


def _column_size(group: Any, name: str) -> int:
    """Return the bytes of the cells of a column in a row group, with the fields of structs."""
    columns = (group.column(i) for i in range(group.num_columns))
    sizes = (column.total_uncompressed_size for column in columns if f"{column.path_in_schema}.".startswith(f"{name}."))
    return sum(sizes)


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
def shared_cells(location: str, column: str, modality: Modality, time: int | None, access: Access) -> ParquetCells:
    """Keep a few files open. A new ``time`` opens a changed file again."""
    return ParquetCells(location, column, modality, time, access)
