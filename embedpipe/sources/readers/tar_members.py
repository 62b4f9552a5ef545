"""Files in tar shards, read by their place."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe.errors import ReadError
from embedpipe.sources.locations import local_path, read_range
from embedpipe.sources.reading import Reader, RowNumbers, take_near

#: Most bytes that one request reads, and most bytes between two files that are read along.
STRETCH = 8 << 20
GAP = 1 << 16


class Members:
    """Reads files of shards. Safe to use from several threads.

    A part of a listing is read in order: what lies next to each other in a remote shard is read by one request, and
    kept until each file of it was read.

    Parameters
    ----------
    shards : sequence of str
        Paths or URLs.
    numbers : int32 array (n,)
        Place in ``shards`` of the shard of each row.
    offsets : int64 array (n,)
        First byte.
    sizes : pyarrow.ChunkedArray
        Number of bytes.
    """

    def __init__(
        self,
        shards: Sequence[str],
        numbers: npt.NDArray[np.int32],
        offsets: npt.NDArray[np.int64],
        sizes: pa.ChunkedArray,
        *,
        in_order: bool = False,
    ) -> None:
        self._shards, self._numbers, self._offsets, self._sizes = shards, numbers, offsets, sizes
        self._in_order = in_order
        self._lock = threading.Lock()
        self._stretches: list[_Stretch] | None = None

    def __call__(self, row: int) -> bytes:
        """Return the bytes of a file. Raises ReadError."""
        shard, offset = self._shards[self._numbers.item(row)], self._offsets.item(row)
        size = self._sizes[row].as_py()
        if self._in_order and local_path(shard) is None:
            with self._lock:
                self._stretches = self._stretches or self._find_stretches()
            if (data := self._stretches[row].read(shard, row, offset, size)) is not None:
                return data
        return read_range(shard, offset, size)

    def take(self, rows: RowNumbers) -> Reader:
        """Return the reader of some rows, which are read in order."""
        used, numbers = np.unique(self._numbers[rows], return_inverse=True)
        shards = [self._shards[number] for number in used.tolist()]
        sizes = take_near(self._sizes, rows)
        return Members(shards, numbers.astype(np.int32), self._offsets[rows], sizes, in_order=True)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_stretches": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def _find_stretches(self) -> list[_Stretch]:
        found: list[_Stretch] = []
        places = zip(self._numbers.tolist(), self._offsets.tolist(), self._sizes.to_pylist(), strict=True)
        before = -1
        for row, (number, offset, size) in enumerate(places):
            last = found[-1] if found else None
            if not (
                last
                and number == before
                and last.end <= offset <= last.end + GAP
                and offset + size - last.start <= STRETCH
            ):
                last = _Stretch(offset)
            last.add(row, offset + size)
            found.append(last)
            before = number
        return found


class _Stretch:
    """Files that lie next to each other, read together when the first of them is asked for."""

    def __init__(self, start: int) -> None:
        self.start = self.end = start
        self._waiting: set[int] = set()
        self._lock = threading.Lock()
        self._data: bytes | None = None

    def add(self, row: int, end: int) -> None:
        """Add the file of a row, which ends there."""
        self._waiting.add(row)
        self.end = end

    def read(self, shard: str, row: int, offset: int, size: int) -> bytes | None:
        """Return the bytes of a file, None if it is to be read alone: again, or after an error."""
        with self._lock:
            if row not in self._waiting:
                return None
            if self._data is None and len(self._waiting) > 1:
                try:
                    self._data = read_range(shard, self.start, self.end - self.start)
                except ReadError:  # of one file, such as the last of a truncated shard
                    self._waiting.clear()
            if self._data is None:
                return None
            self._waiting.discard(row)
            part = self._data[offset - self.start : offset - self.start + size]
            if not self._waiting:
                self._data = None
            return part
