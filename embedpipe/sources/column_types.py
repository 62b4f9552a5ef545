"""Types of Arrow columns."""

from __future__ import annotations

import pyarrow as pa

#: Extension types whose storage means the same.
_AS_THEIR_STORAGE = ("arrow.bool8", "arrow.json")


def value_type(type: pa.DataType) -> pa.DataType:
    """Return the type of the values of a dictionary or of runs, and any other type unchanged."""
    return type.value_type if pa.types.is_dictionary(type) or pa.types.is_run_end_encoded(type) else type


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
    type = stored_type(type)
    refused = (pa.types.is_nested, pa.types.is_duration, pa.types.is_interval, pa.types.is_decimal256, is_bytes)
    return not isinstance(type, pa.BaseExtensionType) and not any(test(type) for test in refused)


def stored_type(type: pa.DataType) -> pa.DataType:
    """Return the type in which a column is stored: without dictionary, extension or unsigned integers."""
    type = value_type(type)
    if is_string(type) or pa.types.is_null(type) or isinstance(type, pa.UuidType):
        return pa.string()
    if isinstance(type, pa.BaseExtensionType) and type.extension_name in _AS_THEIR_STORAGE:
        return pa.bool_() if type.extension_name == "arrow.bool8" else stored_type(type.storage_type)
    return pa.int64() if pa.types.is_uint64(type) else type


def is_list(type: pa.DataType) -> bool:
    """Return whether values are lists."""
    return any(test(type) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))


def is_label_type(type: pa.DataType) -> bool:
    """Return whether labels can have this type: plain values, or lists of texts or integers, for several labels."""
    if is_list(type):
        item = value_type(type.value_type)
        return is_string(item) or pa.types.is_integer(item) or pa.types.is_null(item)
    return is_storable(type)
