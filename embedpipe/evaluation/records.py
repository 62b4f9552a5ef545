"""Dataclasses as plain JSON and back: every value is checked against the type of its field, and no code is run.

Infinite numbers and NaN, for which JSON has no word, are the strings ``Infinity``, ``-Infinity`` and ``NaN``.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any, Literal

import numpy as np
import pyarrow as pa

#: Types of columns, by their names in Arrow. Lists are of ``float``.
_COLUMN_TYPES = ("string", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "float", "double")
_LIST = "list<float>"
#: The largest number: charts cannot be drawn of much larger ones.
_LARGEST = 2**62
_NOT_FINITE = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}


def to_record(value: Any) -> Any:
    """Return a dataclass, a table or a container of these as values that JSON can hold.

    Raises
    ------
    ValueError
        For a value of another type.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_record(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_record(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_record(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return next(word for word, number in _NOT_FINITE.items() if number == value or word == "NaN")
    if isinstance(value, pa.Table):
        return [_column_record(name, value.column(name)) for name in value.column_names]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(f"a {type(value).__name__} has no place in JSON")


def from_record(kind: Any, value: Any, place: str) -> Any:
    """Return the value of a type from what `to_record` made of it.

    Parameters
    ----------
    kind : type
        A dataclass, a type of Python, `pyarrow.Table`, or a generic of these such as ``dict[str, list[float]]``.
    value : JSON value
    place : str
        Where the value stands, for messages.

    Raises
    ------
    ValueError
        If the value has another type; the message names the place.
    """
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in parts:
            return None
        (kind,) = (part for part in parts if part is not type(None))
        return from_record(kind, value, place)
    if origin is Literal:
        _require(value in parts, place, f"one of {', '.join(map(str, parts))}", value)
        return value
    if origin in (list, tuple):
        _require(isinstance(value, list), place, "a list", value)
        items = [from_record(parts[0], item, f"{place}[{i}]") for i, item in enumerate(value)]
        return items if origin is list else tuple(items)
    if origin is dict:
        _require(isinstance(value, dict), place, "an object", value)
        return {key: from_record(parts[1], item, f"{place}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, place)
    if kind is pa.Table:
        return _table(value, place)
    if kind is float:
        if isinstance(value, str) and value in _NOT_FINITE:
            return _NOT_FINITE[value]
        _require(isinstance(value, int | float) and not isinstance(value, bool), place, "a number", value)
        _require(math.isfinite(value) and abs(value) <= _LARGEST, place, "a finite number", value)
        return value
    _require(isinstance(value, kind) and (kind is bool or not isinstance(value, bool)), place, kind.__name__, value)
    _require(kind is not int or abs(value) <= _LARGEST, place, f"at most {_LARGEST:,}", value)
    return value


def _dataclass(kind: Any, value: Any, place: str) -> Any:
    fields = {field.name: type_ for field, type_ in _fields(kind)}
    _require(isinstance(value, dict) and value.keys() == fields.keys(), place, f"the fields of {kind.__name__}", value)
    return kind(**{name: from_record(type_, value[name], f"{place}.{name}") for name, type_ in fields.items()})


def _fields(kind: Any) -> list[tuple[Any, Any]]:
    hints = typing.get_type_hints(kind)
    return [(field, hints[field.name]) for field in dataclasses.fields(kind)]


def _column_record(name: str, column: pa.ChunkedArray) -> dict[str, Any]:
    if pa.types.is_list(column.type) and pa.types.is_float32(column.type.value_type):
        return {"name": name, "type": _LIST, "values": _number_lists(column)}
    if str(column.type) not in _COLUMN_TYPES:
        column = column.cast(pa.string())
    return {"name": name, "type": str(column.type), "values": to_record(column.to_pylist())}


def _number_lists(column: pa.ChunkedArray) -> list[list[float] | None]:
    """Return lists of float32 with the fewest digits that name the same number."""
    lists = column.combine_chunks()
    numbers = [float(text) for text in np.asarray(lists.flatten(), np.float32).astype(str)]
    ends = np.cumsum([0 if count is None else count for count in lists.value_lengths().to_pylist()]).tolist()
    starts = [0, *ends[:-1]]
    known = lists.is_valid().to_pylist()
    return [numbers[i:j] if valid else None for i, j, valid in zip(starts, ends, known, strict=True)]


def _table(value: Any, place: str) -> pa.Table:
    _require(isinstance(value, list), place, "a list of columns", value)
    columns: dict[str, pa.Array] = {}
    for column in value:
        is_column = isinstance(column, dict) and column.keys() == {"name", "type", "values"}
        _require(is_column, place, "columns with name, type and values", column)
        name, kind, values = column["name"], column["type"], column["values"]
        _require(isinstance(name, str) and isinstance(values, list), place, "columns with a name and values", name)
        _require(kind in (*_COLUMN_TYPES, _LIST), f"{place}.{name}", f"of a type of {', '.join(_COLUMN_TYPES)}", kind)
        type_ = pa.list_(pa.float32()) if kind == _LIST else pa.type_for_alias(kind)
        if kind in ("float", "double"):
            values = [from_record(float | None, item, f"{place}.{name}") for item in values]
        try:
            columns[name] = pa.array(values, type_)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{place}.{name} must hold values of the type {kind}: {error}") from error
    _require(len({len(column) for column in columns.values()}) <= 1, place, "columns of one length", "several lengths")
    return pa.table(columns)


def _require(holds: bool, place: str, what: str, value: Any) -> None:
    if not holds:
        raise ValueError(f"{place} must be {what}, got {value!r:.80}")
