"""Vectors straight out of a Parquet file's pages, which is several times faster than by way of Arrow.

Arrow decodes where each list begins and ends for every single value. In a store all lists of a column have one
length, so it is enough to see that the levels say so, which takes a comparison a page; the values then are copied
as they lie. Checksums are looked at here as Arrow looks at them. Whatever is not laid out as `write_files` does it is
left to Arrow. The layout is that of https://parquet.apache.org/docs/file-format/data-pages/.
"""

from __future__ import annotations

import functools
import threading
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

FloatArray = npt.NDArray[np.float32]

_DATA_PAGE, _PLAIN, _BYTE_STREAM_SPLIT = 0, 0, 9

#: Numbers of the fields of a page's header that are needed.
_TYPE, _UNCOMPRESSED, _COMPRESSED, _CHECKSUM, _ABOUT = 1, 2, 3, 4, 5
_COUNT, _ENCODING = 1, 2


class UnusualLayoutError(Exception):
    """The pages are not laid out as `read_chunk` expects: Arrow must read them."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where the vectors of a row group are: in bytes of the file, and how those are compressed."""

    rows: int
    offset: int
    size: int
    compression: str


def find_chunk(parquet: pq.ParquetFile, group: int, column: str) -> Chunk | None:
    """Return where a row group keeps a column of vectors; None where only Arrow can read it."""
    path = f"{column}.list.element"
    about = parquet.metadata.row_group(group)
    for i in range(about.num_columns):
        found = about.column(i)
        if found.path_in_schema == path:
            field = parquet.schema.column(i)
            # One level each: values and lists are never null, and lists are not nested.
            plain = field.max_definition_level == field.max_repetition_level == 1 and found.physical_type == "FLOAT"
            known = found.compression in ("UNCOMPRESSED", "ZSTD") and not found.has_dictionary_page
            if plain and known:
                return Chunk(about.num_rows, found.data_page_offset, found.total_compressed_size, found.compression)
    return None


def read_chunk(source: pa.NativeFile, chunk: Chunk, dim: int, to: FloatArray) -> None:
    """Read the vectors of a row group into ``to``, float32 (rows, dim), contiguous.

    Raises
    ------
    OSError
        If a page's checksum does not hold.
    UnusualLayoutError
        If lists are not all ``dim`` long, or the pages are of another kind.
    """
    data = _scratch(chunk.size)
    source.seek(chunk.offset)
    if source.readinto(data) != chunk.size:
        raise OSError("it ends too early")
    flat = to.reshape(-1)
    at = filled = 0
    while at < len(data):
        try:
            header, start = _struct(data, at)
            count, encoding = header[_ABOUT][_COUNT], header[_ABOUT][_ENCODING]
            end = start + header[_COMPRESSED]
        except (KeyError, IndexError, TypeError) as error:
            raise UnusualLayoutError from error
        page = data[start:end]
        if header[_TYPE] != _DATA_PAGE or len(page) != header[_COMPRESSED] or filled + count > len(flat):
            raise UnusualLayoutError
        if _CHECKSUM in header and zlib.crc32(page) != header[_CHECKSUM] & 0xFFFFFFFF:
            raise OSError("a page's checksum does not hold")
        if chunk.compression == "ZSTD":
            page = memoryview(pa.Codec("zstd").decompress(page, header[_UNCOMPRESSED]))
        values = _values(page, count, dim, first=-filled % dim)
        if encoding == _PLAIN:
            flat[filled : filled + count] = values.view(np.float32)
        elif encoding == _BYTE_STREAM_SPLIT:
            octets = flat[filled : filled + count].view(np.uint8).reshape(count, 4)
            for i in range(4):  # one after the other: three times as fast as transposing at once
                octets[:, i] = values[i * count : (i + 1) * count]
        else:
            raise UnusualLayoutError
        at, filled = end, filled + count
    if filled != len(flat):
        raise UnusualLayoutError


def _scratch(size: int) -> memoryview:
    """Return memory that belongs to this thread until it asks again: fresh memory costs more than reading into it."""
    if len(getattr(_of_thread, "memory", b"")) < size:
        _of_thread.memory = bytearray(size)
    return memoryview(_of_thread.memory)[:size]


_of_thread = threading.local()


def _values(page: memoryview, count: int, dim: int, first: int) -> npt.NDArray[np.uint8]:
    """Return the bytes of a page's values, once its levels are seen to be those of lists of one length."""
    parts = []
    at = 0
    for _ in range(2):
        size = int.from_bytes(page[at : at + 4], "little")
        parts.append(bytes(page[at + 4 : at + 4 + size]))
        at += 4 + size
    repeated, defined = parts
    if len(page) - at != 4 * count or not _are_even(repeated, count, dim, first) or not _are_set(defined, count):
        raise UnusualLayoutError
    return np.frombuffer(page, np.uint8, 4 * count, at)


# Pages of one file have the same levels but for the last, so they are decoded a few times only.


@functools.lru_cache(maxsize=256)
def _are_even(levels: bytes, count: int, dim: int, first: int) -> bool:
    """Say whether lists begin at value ``first``, at ``first + dim``, and so on, and nowhere else."""
    return np.array_equal(np.flatnonzero(_levels(levels, count) == 0), np.arange(first, count, dim))


@functools.lru_cache(maxsize=256)
def _are_set(levels: bytes, count: int) -> bool:
    """Say whether each value is there; an empty list has a level and no value."""
    return bool(_levels(levels, count).all())


def _levels(data: bytes, count: int) -> npt.NDArray[np.uint8]:
    """Decode levels of one bit each: runs of one level, and bits packed by eight."""
    parts: list[npt.NDArray[np.uint8]] = []
    at = found = 0
    while found < count:
        try:
            run, at = _varint(data, at)
            if run & 1:
                size = run >> 1
                part = np.unpackbits(np.frombuffer(data, np.uint8, size, at), bitorder="little")
            else:
                size = 1
                part = np.full(min(run >> 1, count), data[at], np.uint8)
        except (IndexError, ValueError) as error:
            raise UnusualLayoutError from error
        if not len(part):
            raise UnusualLayoutError
        at, found = at + size, found + len(part)
        parts.append(part)
    return np.concatenate(parts)[:count] if parts else np.empty(0, np.uint8)


def _varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _struct(data: memoryview, at: int) -> tuple[dict[int, Any], int]:
    """Decode a struct in Thrift's compact protocol: numbers and structs by field; all else is skipped."""
    fields: dict[int, Any] = {}
    number = 0
    while byte := data[at]:
        kind, step = byte & 15, byte >> 4
        at += 1
        if step:
            number += step
        else:
            value, at = _varint(data, at)
            number = value >> 1 ^ -(value & 1)
        if kind in (1, 2):  # a boolean, true or false
            fields[number] = kind == 1
        elif kind in (4, 5, 6):  # whole numbers
            value, at = _varint(data, at)
            fields[number] = value >> 1 ^ -(value & 1)
        elif kind == 8:  # bytes
            value, at = _varint(data, at)
            at += value
        elif kind == 12:
            fields[number], at = _struct(data, at)
        else:
            raise UnusualLayoutError
    return fields, at + 1
