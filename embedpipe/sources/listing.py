"""The listing of a source: a table of its items, and a reader that reads the payload of one of them.

A listing is an Arrow table without Python objects, with about 150 bytes per item. What is long lies in a memory map
(`Spool`). The embedding loop reads payloads one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.errors import DuplicateIdError, Failure
from embedpipe.sources.access.outage import is_outage
from embedpipe.sources.columns.spool import Spool, spooled
from embedpipe.sources.reading import Reader, RowNumbers, take_near

#: Columns that every listing has, in this order; metadata columns follow. ``label`` may have any scalar type.
#: ``source_size`` is in bytes and ``source_modified`` in nanoseconds since the epoch; null if unknown.
COLUMNS = ("id", "uri", "source_size", "source_modified", "label", "split")

#: Lower-case name of a folder or value of a split column -> the split.
SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}

#: The root of what is in memory.
ROOT = "memory"

#: Rows per chunk of the table of a listing.
CHUNK_ROWS = 16_384

SCHEMA = pa.schema([(name, pa.int64() if name.startswith("source_") else pa.string()) for name in COLUMNS])


def split_name(value: Any) -> Any:
    """Return the name of a split as train, validation or test, however it is spelled; another value as it is."""
    return SPLITS.get(str(value).strip().lower(), value)


@dataclass(frozen=True)
class Listing:
    """The items of a source, in a fixed order.

    Parameters
    ----------
    table : pyarrow.Table
        The columns of `COLUMNS`, then metadata. ``id`` is unique and not null.
    root : str
        Name of the source, the same for the same folder, table or shards. Pruning and id collisions are decided
        per root.
    read : Reader
        ``read(row)`` returns the payload of a row: encoded bytes, a text, or an object of a source in memory. It can
        be called from several threads. Raises ReadError.
    failures : tuple of Failure
        Items that could not be listed: an unreadable folder, a truncated archive, a row without an id.
    skipped : dict
        Number of things left out: files of other types by suffix, ``"hidden"`` files, table columns that no store
        can hold. Shown to the user.
    notes : tuple of str
        Detected properties of the source, such as its encoding. Shown to the user.
    excerpts : bool
        Whether a store keeps the beginning of each text.
    """

    table: pa.Table
    root: str
    read: Reader
    failures: tuple[Failure, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    excerpts: bool = True

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def failure(self, row: int, error: Exception, stage: str) -> Failure:
        """Return the Failure of a row."""
        id, uri = (self.table.column(name)[row].as_py() for name in ("id", "uri"))
        return replace(Failure.of(id, uri, error, stage), temporary=is_outage(error))

    def take(self, rows: RowNumbers) -> Listing:
        """Return the listing of some rows in their order, without failures. Its pickle holds these rows only."""
        return Listing(take_near(self.table, rows), self.root, self.read.take(rows), excerpts=self.excerpts)


class ListingBuilder:
    """Builds the table of a listing row by row, with at most `CHUNK_ROWS` rows as Python objects.

    A metadata column is added with the first row that has it. A column of mixed types becomes strings, except that
    integers among floats become floats.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []
        self._metadata: list[Mapping[str, Any]] = []
        self._types: dict[str, set[pa.DataType]] = {}
        self._chunks = Spool()

    def add(
        self,
        id: str,
        uri: str | None,
        size: int | None = None,
        modified: int | None = None,
        label: str | None = None,
        split: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Add one item."""
        self._rows.append((id, uri, size, modified, label, split))
        self._metadata.append(metadata or {})
        if len(self._rows) == CHUNK_ROWS:
            self._flush()

    def finish(self) -> pa.Table:
        """Return the table of all added items."""
        self._flush()
        schema = pa.schema([(name, _common_type(kinds)) for name, kinds in self._types.items()])
        chunks = [
            pa.table([_column_as(c, f) for f in schema], schema=schema) if c.schema != schema else c
            for c in self._chunks.finish()
        ]
        return pa.concat_tables(chunks)

    def _flush(self) -> None:
        if not self._rows and self._types:
            return
        values: list[Any] = list(zip(*self._rows, strict=True)) or [()] * len(COLUMNS)
        columns = {f.name: pa.array(column, f.type) for f, column in zip(SCHEMA, values, strict=True)}
        for name in dict.fromkeys(name for row in self._metadata for name in row):
            columns[name] = _infer([row.get(name) for row in self._metadata])
        for name, column in columns.items():
            self._types.setdefault(name, set()).add(column.type)
        self._chunks.add(pa.table(columns))
        self._rows, self._metadata = [], []


def in_chunks(column: pa.ChunkedArray, convert: Callable[[Any], Any], type: pa.DataType) -> pa.ChunkedArray:
    """Return the column of ``convert(value)`` for each value, with one chunk of Python objects at a time."""
    parts = (column.slice(start, CHUNK_ROWS).to_pylist() for start in range(0, len(column), CHUNK_ROWS))
    return spooled((pa.array(map(convert, part), type, size=len(part)) for part in parts), type)


def numbered(before: str, count: int, after: str = "", width: int = 8) -> pa.ChunkedArray:
    """Return the strings ``before`` + row + ``after``, with the row number padded with zeros to ``width``."""

    def chunk(start: int) -> pa.Array:
        rows = pa.array(np.arange(start, min(start + CHUNK_ROWS, count)))
        return pc.binary_join_element_wise(before, pc.utf8_lpad(rows.cast(pa.string()), width, "0"), after, "")

    return spooled(map(chunk, range(0, count, CHUNK_ROWS)), pa.string())


def constant(value: Any, count: int, type: pa.DataType) -> pa.ChunkedArray:
    """Return a column of one value, whose chunks share their memory."""
    chunk = pa.repeat(pa.scalar(value, type), min(count, CHUNK_ROWS))
    rest = chunk.slice(0, count % CHUNK_ROWS)
    return pa.chunked_array([chunk] * (count // CHUNK_ROWS) + [rest] * (len(rest) > 0), type)


def check_unique(table: pa.Table, root: str, advice: str = "drop the repeated items") -> None:
    """Raise DuplicateIdError, naming up to three ids and with ``advice``, if an id occurs twice."""
    ids = table.column("id")
    if pc.all(pc.less(ids[:-1], ids[1:])).as_py():  # sorted, as files mostly are
        return
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(pc.struct_field(counts, "counts"), 1))
    names = ", ".join(repr(id) for id in pc.struct_field(twice, "values")[:3].to_pylist())
    raise DuplicateIdError(
        f"ids of {root!r} must be unique, and {len(twice)} occur more than once: "
        f"{names}{', ...' if len(twice) > 3 else ''}; {advice}"
    )


def _infer(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())


def _common_type(types: set[pa.DataType]) -> pa.DataType:
    types = types - {pa.null()} or {pa.string()}
    if len(types) == 1:
        return next(iter(types))
    return pa.float64() if types == {pa.int64(), pa.float64()} else pa.string()


def _column_as(chunk: pa.Table, wanted: pa.Field) -> Any:
    if wanted.name not in chunk.column_names:
        return pa.nulls(chunk.num_rows, wanted.type)
    return chunk.column(wanted.name).cast(wanted.type)
