"""Conversion of columns to plain types, with errors that name the column and the row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.errors import SourceError
from embedpipe.sources.column_types import is_string, stored_type, value_type

_FAILURES = (pa.ArrowException, UnicodeError, OverflowError, TypeError, ValueError)


def plain_column(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return a column in a type that a store holds: without dictionary or extension, and strings as `pyarrow.string`.

    UUIDs become text, and columns of nulls strings.

    Raises
    ------
    SourceError
        A value has no such form: text that is not UTF-8, or an integer beyond 64 bits with sign.
    """
    wanted = stored_type(column.type)
    if column.type == wanted and wanted != pa.string():
        return column
    return converted(column, lambda part: _plain(part, wanted), name, str(wanted))


def type_notes(schema: pa.Schema, names: Iterable[str]) -> list[str]:
    """Return notes on columns that a store holds in another form: times of a zone in UTC, and half floats as floats."""
    types = {name: value_type(schema.field(name).type) for name in names}
    zones = {name: type.tz for name, type in types.items() if pa.types.is_timestamp(type) and type.tz}
    notes = [f"times of column {name!r} ({zone}) are stored in UTC" for name, zone in zones.items() if zone != "UTC"]
    halves = [name for name, type in types.items() if pa.types.is_float16(type)]
    return [*notes, *(f"column {name!r} of float16 is stored as float32" for name in halves)]


def converted(
    column: pa.ChunkedArray, convert: Callable[[pa.ChunkedArray], pa.ChunkedArray], name: str, wanted: str
) -> pa.ChunkedArray:
    """Return ``convert(column)``. Raises SourceError, naming the first row that fails, if it fails."""
    try:
        return convert(column)
    except _FAILURES as error:
        row = first_failing(column, convert)
        raise SourceError(
            f"column {name!r} must hold {wanted}, and row {row + 1} of {len(column):,} does not "
            f"({_shown(column, row)}; type {column.type}): convert the column, or leave it out"
        ) from error


def first_failing(column: pa.ChunkedArray, convert: Callable[[pa.ChunkedArray], Any]) -> int:
    """Return the first row that cannot be converted, by bisection."""
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            convert(column.slice(low, middle - low))
            low = middle
        except _FAILURES:
            high = middle
    return low


def _plain(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    type = column.type
    if pa.types.is_dictionary(type):  # not every type of values or indices has a cast
        parts = [chunk.dictionary.cast(wanted).take(chunk.indices) for chunk in column.chunks]
        column = pa.chunked_array(parts, wanted)
    elif isinstance(type, pa.UuidType):
        parts = [
            pa.array([None if id is None else str(id) for id in chunk.to_pylist()], wanted) for chunk in column.chunks
        ]
        column = pa.chunked_array(parts, wanted)
    elif pa.types.is_run_end_encoded(type):
        column = pa.chunked_array([pc.run_end_decode(chunk) for chunk in column.chunks], type.value_type).cast(wanted)
    elif isinstance(type, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], type.storage_type).cast(wanted)
    elif type != wanted:
        column = column.cast(wanted)
    if is_string(wanted):
        column.validate(full=True)  # text of files may be any bytes
    return column


def _shown(column: pa.ChunkedArray, row: int) -> str:
    try:
        return f"{column[row].as_py()!r:.60}"
    except _FAILURES:
        return f"{column.slice(row, 1).cast(pa.binary())[0].as_py()!r:.60}"
