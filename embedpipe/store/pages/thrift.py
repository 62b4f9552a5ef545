"""The compact protocol of Thrift, in which Parquet writes the headers of pages and the footer of a file.

A struct is a dict from the number of a field to its value, and a string is bytes. The protocol is described at
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md.
"""

from __future__ import annotations

from typing import Any

Struct = dict[int, Any]

_TRUE, _FALSE, _BINARY, _LIST, _STRUCT = 1, 2, 8, 9, 12


# Readers skip a field of another type than they expect, so that a footer is written again with the types it had.


class I8(bytes):
    """The byte of an integer of 8 bits."""


class I16(int):
    """An integer of 16 bits. Those of 32 bits are of the type int."""


class I64(int):
    """An integer of 64 bits."""


class Double(bytes):
    """The 8 bytes of a float."""


class TypedList(list[Any]):
    """A list of values of one type, which is known without any."""

    kind: int


_INTEGERS: dict[int, type[int]] = {4: I16, 5: int, 6: I64}
_OF_FIXED_SIZE: dict[int, tuple[type[bytes], int]] = {3: (I8, 1), 7: (Double, 8)}
_KINDS: dict[type, int] = {I8: 3, I16: 4, int: 5, I64: 6, Double: 7, bytes: _BINARY, dict: _STRUCT}
_KINDS |= {list: _LIST, TypedList: _LIST}


def decode(data: bytes | memoryview, at: int = 0) -> tuple[Struct, int]:
    """Return the struct at a position, and the position after it. Raises ValueError for anything else."""
    try:
        return _read_struct(data, at)
    except (IndexError, RecursionError, ValueError) as error:
        raise ValueError("the data are no struct of Thrift") from error


def encode(struct: Struct) -> bytes:
    """Return the bytes of a struct, from which `decode` makes the same."""
    data = bytearray()
    before = 0
    for number, value in sorted(struct.items()):
        kind = (_TRUE if value else _FALSE) if isinstance(value, bool) else _KINDS[type(value)]
        if number - before < 16:
            data.append((number - before) << 4 | kind)
        else:
            data.append(kind)
            data += varint(_zigzag(number))
        data += b"" if isinstance(value, bool) else _encode_value(value)
        before = number
    return bytes(data) + b"\0"


def varint(value: int) -> bytes:
    """Return a number >= 0 in groups of seven bits, the lowest first."""
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def read_varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Return the number below 2^70 at a position, and the position after it.

    Raises IndexError at the end of the data, and ValueError for a larger number.
    """
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("numbers have 64 bits at most")


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else ~(value << 1)


def _encode_value(value: Any) -> bytes:
    if isinstance(value, int):
        return varint(_zigzag(value))
    if isinstance(value, I8 | Double):
        return value
    if isinstance(value, bytes):
        return varint(len(value)) + value
    if isinstance(value, dict):
        return encode(value)
    (kind,) = {value.kind} if isinstance(value, TypedList) else {_KINDS[type(item)] for item in value}
    start = bytes([len(value) << 4 | kind]) if len(value) < 15 else bytes([0xF0 | kind]) + varint(len(value))
    return start + b"".join(map(_encode_value, value))


def _read_struct(data: bytes | memoryview, at: int) -> tuple[Struct, int]:
    fields: Struct = {}
    number = 0
    while byte := data[at]:
        kind, step = byte & 15, byte >> 4
        at += 1
        if step:
            number += step
        else:
            value, at = read_varint(data, at)
            number = value >> 1 ^ -(value & 1)
        if kind in (_TRUE, _FALSE):
            fields[number] = kind == _TRUE
        else:
            fields[number], at = _read_value(data, at, kind)
    return fields, at + 1


def _read_value(data: bytes | memoryview, at: int, kind: int) -> tuple[Any, int]:
    if kind in _INTEGERS:
        value, at = read_varint(data, at)
        return _INTEGERS[kind](value >> 1 ^ -(value & 1)), at
    if kind == _BINARY or kind in _OF_FIXED_SIZE:
        size, at = read_varint(data, at) if kind == _BINARY else (_OF_FIXED_SIZE[kind][1], at)
        if size > len(data) - at:
            raise IndexError
        type_ = bytes if kind == _BINARY else _OF_FIXED_SIZE[kind][0]
        return type_(data[at : at + size]), at + size
    if kind == _LIST:
        byte, at = data[at], at + 1
        size = byte >> 4
        if size == 15:
            size, at = read_varint(data, at)
        items = TypedList()
        items.kind = byte & 15
        for _ in range(size):
            item, at = _read_value(data, at, items.kind)
            items.append(item)
        return items, at
    if kind == _STRUCT:
        return _read_struct(data, at)
    raise ValueError(f"Parquet has no values of the Thrift type {kind} in footers and headers of pages")


def read_footer(file: bytes) -> Struct:
    """Return the struct at the end of a Parquet file."""
    size = int.from_bytes(file[-8:-4], "little")
    return decode(file, len(file) - 8 - size)[0]
