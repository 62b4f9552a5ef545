"""Lookup of the rows of many ids, part by part."""

from __future__ import annotations

import bisect

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

#: If there are so many times more ids to look up than rows, hashing the rows takes less time than hashing the ids.
MANY = 10

RowNumbers = npt.NDArray[np.int64]


class IdIndex:
    """Finds the rows of ids in a column in any order. Null has no row.

    The index holds the ids and, unless they are sorted, 8 bytes per row. A hash table would take five times that.
    """

    def __init__(self, ids: pa.Array | pa.ChunkedArray) -> None:
        self._ids = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
        self._order: RowNumbers | None = None
        if ids.null_count or pc.any(pc.greater(self._ids[:-1], self._ids[1:])).as_py():
            order = np.asarray(pc.sort_indices(self._ids), np.int64)
            self._order = order[: len(order) - ids.null_count]  # nulls sort last
            self._ids = self._ids.take(pa.array(self._order))

    def find(self, ids: pa.Array) -> RowNumbers:
        """Return the rows of ids, int64 (n,), -1 for unknown ids. Fast if the ids are close together in sort order."""
        rows = np.full(len(ids), -1)
        if not len(ids):
            return rows
        bounds = pc.min_max(ids)
        first = bisect.bisect_left(range(len(self._ids)), bounds["min"].as_py(), key=self._id)
        last = bisect.bisect_right(range(len(self._ids)), bounds["max"].as_py(), key=self._id)
        place = np.asarray(pc.fill_null(pc.index_in(self._ids[first:last], value_set=ids), -1))
        at = np.flatnonzero(place >= 0)
        rows[place[at]] = at + first if self._order is None else self._order[at + first]
        return rows

    def mask(self, ids: pa.Array) -> pa.Array:
        """Return which ids have a row."""
        if len(self._ids) * MANY < len(ids):
            return pc.is_in(ids, value_set=self._ids)
        return pa.array(self.find(ids) >= 0)

    def _id(self, at: int) -> str:
        return str(self._ids[at].as_py())
