"""What kinds of values an Arrow column has, in the words of this package."""

from __future__ import annotations

import pyarrow as pa


def value_type(type: pa.DataType) -> pa.DataType:
    """Return the type of a dictionary's values, and any other type as it is."""
    return type.value_type if pa.types.is_dictionary(type) else type


def is_string(type: pa.DataType) -> bool:
    """Say whether values are strings."""
    return any(test(type) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def is_bytes(type: pa.DataType) -> bool:
    """Say whether values are bytes."""
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(type) for test in tests)


def has_field(type: pa.DataType, name: str) -> bool:
    """Say whether values are structs with a field of that name."""
    return bool(pa.types.is_struct(type) and type.get_field_index(name) >= 0)


def is_storable(type: pa.DataType) -> bool:
    """Say whether a store can hold such a column as metadata."""
    type = value_type(type)
    refused = (pa.types.is_nested, pa.types.is_duration, pa.types.is_interval, pa.types.is_decimal256, is_bytes)
    return not any(test(type) for test in refused)


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column without dictionary, its strings as Arrow's plain ones; a column of nulls has strings."""
    wanted = value_type(column.type)
    wanted = pa.string() if is_string(wanted) or pa.types.is_null(wanted) else wanted
    return column if column.type == wanted else column.cast(wanted)
