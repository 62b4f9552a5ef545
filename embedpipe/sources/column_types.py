"""Types of Arrow columns."""

from __future__ import annotations

import pyarrow as pa


def value_type(type: pa.DataType) -> pa.DataType:
    """Return the value type of a dictionary type, and any other type unchanged."""
    return type.value_type if pa.types.is_dictionary(type) else type


def is_string(type: pa.DataType) -> bool:
    """Return whether values are strings."""
    return any(test(type) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def is_bytes(type: pa.DataType) -> bool:
    """Return whether values are bytes."""
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(type) for test in tests)


def has_field(type: pa.DataType, name: str) -> bool:
    """Return whether values are structs with a field of that name."""
    return bool(pa.types.is_struct(type) and type.get_field_index(name) >= 0)


def is_storable(type: pa.DataType) -> bool:
    """Return whether a store can hold a column of this type as metadata."""
    type = value_type(type)
    refused = (pa.types.is_nested, pa.types.is_duration, pa.types.is_interval, pa.types.is_decimal256, is_bytes)
    return not any(test(type) for test in refused)


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column without dictionary encoding, with strings as `pyarrow.string`, also if all are null."""
    wanted = value_type(column.type)
    wanted = pa.string() if is_string(wanted) or pa.types.is_null(wanted) else wanted
    return column if column.type == wanted else column.cast(wanted)
