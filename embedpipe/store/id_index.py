"""Rows in the order of their ids, and lookup of the rows of many ids, part by part."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.errors import StoreError, UsageError
from embedpipe.sources.reading import take_near
from embedpipe.store.schema import VECTOR, is_ascending, matrix, refuse_missing_vectors

#: If there are so many times more ids to look up than rows, hashing the rows takes less time than searching.
MANY = 10

#: Bytes of ids that a table keeps for the next lookup: those of about 3 million rows.
KEPT_BYTES = 64 << 20

#: Bytes of values of any length from which Arrow takes rows of them only with large offsets.
LARGE_BYTES = 1 << 31
#: Types of such values -> those with large offsets.
_LARGE = {
    pa.string(): pa.large_string(),
    pa.binary(): pa.large_binary(),
    VECTOR: pa.large_list(VECTOR.value_field),
}

RowNumbers = npt.NDArray[np.int64]


def id_array(ids: Iterable[str]) -> pa.Array:
    """Return ids as an array. Raises UsageError for anything but texts, and for one text: its letters would be ids."""
    texts = [] if isinstance(ids, str) else list(ids)
    if isinstance(ids, str) or not all(isinstance(id, str | pa.StringScalar) for id in texts):
        raise UsageError(f"ids must be a sequence of strings such as ['a.jpg', 'b.jpg'], got {ids!r:.100}")
    try:
        return pa.array(texts, pa.string())
    except UnicodeError as error:
        raise UsageError(f"ids must be UTF-8, without half of a surrogate pair, got {ids!r:.100}") from error


class IdIndex:
    """Finds the rows of ids in a column in any order. Null has no row.

    The index holds nothing but the column if that is sorted, else a sorted copy and the rows. A hash table would take
    five times that.
    """

    def __init__(self, ids: pa.Array | pa.ChunkedArray) -> None:
        self._ids, self._order = _in_order(ids)

    @property
    def has_repeats(self) -> bool:
        """Whether an id occurs twice."""
        return bool(pc.any(pc.equal(self._ids[:-1], self._ids[1:])).as_py())

    def find(self, ids: pa.Array | pa.ChunkedArray) -> RowNumbers:
        """Return the rows of ids, int64 (n,), -1 for unknown ids."""
        rows = np.full(len(ids), -1)
        ids, order = _in_order(ids.cast(self._ids.type))  # neighbours are searched for in the same place
        if not len(ids) or not len(self._ids):
            return rows
        found = np.minimum(np.asarray(pc.search_sorted(self._ids, ids), np.int64), len(self._ids) - 1)
        known = np.asarray(pc.equal(take_near(_chunked(self._ids), found), ids))
        rows[np.flatnonzero(known) if order is None else order[known]] = (
            found[known] if self._order is None else self._order[found[known]]
        )
        return rows

    def mask(self, ids: pa.Array) -> pa.Array:
        """Return which ids have a row."""
        if len(self._ids) * MANY < len(ids):
            return pc.is_in(ids.cast(self._ids.type), value_set=self._ids)
        return pa.array(self.find(ids) >= 0)


def in_id_order(rows: pa.Table) -> pa.Table:
    """Return rows sorted by ``id``. Those that are sorted, as in most stores, are returned as they are."""
    if is_ascending(rows.column("id")):
        return rows
    order = pc.sort_indices(rows.column("id"))
    return pa.Table.from_arrays([_taken(column, order) for column in rows.columns], schema=rows.schema)


def checked_rows(made: pa.Table, rows: pa.Table, path: str, dims: Mapping[str, int]) -> pa.Table:
    """Return new rows in id order. Refuse those that would make a table unreadable.

    Parameters
    ----------
    made : pyarrow.Table
        New rows as they were made.
    rows : pyarrow.Table
        The same in the columns of the table.
    path : str
        Of the table.
    dims : mapping
        Columns of vectors, and their lengths.

    Raises
    ------
    StoreError
        An id occurs twice, a needed value is missing, or a vector has another length or is not finite.
    ConcurrentWriteError
        As `refuse_missing_vectors`.
    """
    refuse_missing_vectors(made, rows.schema, path)
    for field in rows.schema:
        if not field.nullable and rows.column(field.name).null_count:
            raise StoreError(f"new rows of {path!r} must have a value in column {field.name!r} each")
    for name, dim in dims.items() if len(rows) else ():
        column = rows.column(name)
        lengths = pc.min_max(pc.list_value_length(column)).as_py()
        if {*lengths.values()} != {dim} or any(chunk.flatten().null_count for chunk in column.chunks):
            raise StoreError(f"vectors of new rows of {path!r} must have {dim} values in {name!r} each")
        finite = [np.isfinite(matrix(chunk, dim, name)).all(axis=1) for chunk in column.chunks]
        if not (known := np.concatenate(finite)).all():
            id = rows.column("id")[int(np.argmin(known))].as_py()
            raise StoreError(f"vectors of new rows of {path!r} must be finite, and that of {id!r} in {name!r} is not")
    rows = in_id_order(rows)
    if not is_ascending(ids := rows.column("id")):
        twice = next(id for id, after in itertools.pairwise(ids) if id == after)
        raise StoreError(f"ids of new rows of {path!r} must be unique, and {twice.as_py()!r} occurs twice")
    return rows


def _taken(column: pa.ChunkedArray, order: pa.Array) -> pa.ChunkedArray:
    """Return values in another order; Arrow joins them before, which offsets of 32 bits may not reach."""
    if column.type not in _LARGE or column.nbytes < LARGE_BYTES:
        return column.take(order)
    values = column.cast(_LARGE[column.type]).combine_chunks()
    lengths = (pc.list_value_length if column.type == VECTOR else pc.binary_length)(values)
    ends = np.cumsum(np.asarray(pc.fill_null(lengths, 0))[np.asarray(order)])
    cuts = np.unique([0, *np.searchsorted(ends, np.arange(0, ends[-1], LARGE_BYTES // 2)), len(order)]).tolist()
    parts = [
        values.take(order.slice(start, stop - start)).cast(column.type) for start, stop in itertools.pairwise(cuts)
    ]
    return pa.chunked_array(parts, column.type)


def are_among(values: pa.ChunkedArray, many: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return which values are among many, without a hash table of the many. Null is among nothing."""
    return pc.is_in(values, value_set=pc.drop_null(many.filter(pc.is_in(many, value_set=values))))


def _chunked(ids: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    return ids if isinstance(ids, pa.ChunkedArray) else pa.chunked_array([ids])


def _in_order(ids: pa.Array | pa.ChunkedArray) -> tuple[pa.Array | pa.ChunkedArray, npt.NDArray[Any] | None]:
    """Return ids in order without nulls, and where they were; None if they are in order."""
    if not ids.null_count and not pc.any(pc.greater(ids[:-1], ids[1:])).as_py():
        return ids, None
    order = pc.sort_indices(ids).slice(0, len(ids) - ids.null_count)  # nulls sort last
    ids = ids.cast(pa.large_string()) if ids.nbytes >= LARGE_BYTES else ids
    return ids.take(order), np.asarray(order).astype(np.min_scalar_type(len(ids)))
