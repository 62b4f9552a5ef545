"""Readers: each reads the payloads of one kind of source, and can be sent to another process for some of its rows."""

from __future__ import annotations

import bisect
import itertools
from array import array
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe.errors import ReadError
from embedpipe.sources.access.roots import Access
from embedpipe.sources.file_types import read_payload
from embedpipe.sources.options import Modality

RowNumbers = npt.NDArray[np.int64]
_Arrow = TypeVar("_Arrow", pa.Table, pa.ChunkedArray)


class Reader(Protocol):
    """Reads the payloads of a source. It can be called from several threads, and pickled."""

    def __call__(self, row: int) -> Any:
        """Return the payload of a row. Raises ReadError."""

    def take(self, rows: RowNumbers) -> Reader:
        """Return the reader of some rows, in their order. A pickle of it holds nothing of the other rows."""


class Selected:
    """Reads some rows of another reader."""

    def __init__(self, reader: Reader, rows: RowNumbers) -> None:
        self._reader, self._rows = reader, array("q", rows.tolist())

    def __call__(self, row: int) -> Any:
        """Return the payload of a row."""
        return self._reader(self._rows[row])

    def take(self, rows: RowNumbers) -> Reader:
        """Return the reader of some of the rows."""
        return self._reader.take(np.frombuffer(self._rows, np.int64)[rows])


class Joined:
    """Reads the rows of several readers, one reader after the other.

    Parameters
    ----------
    readers : sequence of callable
    counts : sequence of int
        Number of rows of each reader.
    """

    def __init__(self, readers: Sequence[Reader], counts: Sequence[int]) -> None:
        self._readers, self._starts = readers, [0, *itertools.accumulate(counts)]

    def __call__(self, row: int) -> Any:
        """Return the payload of a row."""
        number = bisect.bisect_right(self._starts, row) - 1
        return self._readers[number](row - self._starts[number])

    def take(self, rows: RowNumbers) -> Reader:
        """Return the reader of some rows, without the readers that they do not need."""
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        used, counts = np.unique(numbers, return_counts=True)
        order = np.argsort(numbers, kind="stable")
        parts = np.split(rows[order], np.cumsum(counts))
        readers = [
            self._readers[number].take(part - self._starts[number])
            for number, part in zip(used.tolist(), parts, strict=False)
        ]
        return Selected(Joined(readers, counts.tolist()), np.argsort(order))


class Files:
    """Reads the files that uris name. ``access`` is what they may name, None for uris that the user has named."""

    def __init__(self, uris: pa.ChunkedArray, modality: Modality, access: Access | None = None) -> None:
        self._uris, self._modality, self.access = uris, modality, access

    def __call__(self, row: int) -> bytes:
        """Return the bytes of a file. Raises ReadError, also for an empty uri."""
        if uri := self._uris[row].as_py():
            return read_payload(uri, self._modality, self.access)
        raise ReadError("the row has no image: its path is empty")

    def take(self, rows: RowNumbers) -> Reader:
        """Return the reader of some rows."""
        return Files(take_near(self._uris, rows), self._modality, self.access)


def take_near(values: _Arrow, rows: RowNumbers) -> _Arrow:
    """Take rows that are close together, which slices a table or column first instead of scanning it.

    Rows are taken chunk by chunk: Arrow would join all chunks of strings first.
    """
    if not len(rows):
        return values.slice(0, 0).take(pa.array(rows))  # a slice alone would be pickled with what it is a slice of
    first, last = int(rows.min()), int(rows.max())
    values = values.slice(first, last - first + 1)
    order = np.argsort(rows, kind="stable")
    ascending = rows[order] - first
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else values.to_batches()
    stops = np.cumsum([len(chunk) for chunk in chunks])
    parts, begin = [], 0
    for chunk, stop, end in zip(chunks, stops, np.searchsorted(ascending, stops), strict=True):
        if begin < end:
            parts.append(chunk.take(pa.array(ascending[begin:end] - (stop - len(chunk)))))
        begin = end
    taken = pa.chunked_array(parts) if isinstance(values, pa.ChunkedArray) else pa.Table.from_batches(parts)
    return taken.take(pa.array(np.argsort(order)))
