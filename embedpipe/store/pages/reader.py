"""Vectors read directly from the pages of a Parquet file, several times faster than through Arrow.

Arrow decodes list boundaries value by value. In a store all lists of a column have one length, so one comparison per
page confirms the boundaries, and the values are copied as a block. Checksums are verified as Arrow verifies them.
Files with another layout than that of `write_files` are left to Arrow. The layout of data pages is described at
https://parquet.apache.org/docs/file-format/data-pages/.
"""

from __future__ import annotations

import functools
import io
import threading
import zlib
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from embedpipe.store.pages import thrift

FloatArray = npt.NDArray[np.float32]

_DATA_PAGE, _PLAIN, _BYTE_STREAM_SPLIT = 0, 0, 9

#: Thrift field numbers of the footer, of a row group, of the entry of a column in it, and of its metadata.
_ROW_GROUPS, _COLUMNS, _GROUP_ROWS, _METADATA = 4, 1, 3, 3
_PHYSICAL_TYPE, _ENCODINGS, _PATH, _CODEC, _CHUNK_SIZE, _DATA_OFFSET, _DICTIONARY_OFFSET = 1, 2, 3, 4, 7, 9, 11

#: Values of enums.
_FLOAT, _CODECS = 4, {0: "UNCOMPRESSED", 6: "ZSTD"}

#: Thrift field numbers of a page header.
_TYPE, _UNCOMPRESSED, _COMPRESSED, _CHECKSUM, _ABOUT = 1, 2, 3, 4, 5
_COUNT, _ENCODING = 1, 2


class UnusualLayoutError(Exception):
    """The pages have another layout than `read_chunk` expects, so Arrow must read them."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Position of the vectors of a row group in the file, in bytes, and their compression and encodings."""

    rows: int
    offset: int
    size: int
    compression: str
    encodings: tuple[int, ...]


def find_chunks(parquet: pq.ParquetFile, size: int, column: str) -> tuple[list[int], list[Chunk | None]]:
    """Return the rows of each row group, and the position of a vector column in it; None if only Arrow can read it.

    ``size`` is that of the file. Raises OSError if the footer is damaged, where Arrow's own access to row groups ends
    the process.
    """
    footer = io.BytesIO()
    parquet.metadata.write_metadata_file(footer)
    schema = parquet.schema
    path = f"{column}.list.element"
    place = next((i for i in range(len(schema)) if schema.column(i).path == path), None)
    try:
        groups = thrift.read_footer(footer.getvalue()).get(_ROW_GROUPS, [])
        rows = [int(group[_GROUP_ROWS]) for group in groups]
        if min(rows, default=0) < 0 or sum(rows) != parquet.metadata.num_rows:
            raise ValueError("its row groups have other rows")
        if place is None or not _is_plain(schema.column(place)):
            return rows, [None] * len(rows)
        return rows, [
            _chunk(group[_COLUMNS][place][_METADATA], n, path, size) for group, n in zip(groups, rows, strict=True)
        ]
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise OSError("the footer is damaged") from error


def _is_plain(field: Any) -> bool:
    """Return whether values and lists are never null, and lists are not nested: there is one level each."""
    return bool(field.max_definition_level == field.max_repetition_level == 1 and field.physical_type == "FLOAT")


def _chunk(metadata: thrift.Struct, rows: int, path: str, size: int) -> Chunk | None:
    offset, length = metadata[_DATA_OFFSET], metadata[_CHUNK_SIZE]
    if b".".join(metadata[_PATH]).decode() != path or metadata[_PHYSICAL_TYPE] != _FLOAT:
        raise ValueError("a column is in the place of another")
    if not 0 <= offset <= offset + length <= size:
        raise ValueError("a column must lie in the file")
    compression = _CODECS.get(metadata[_CODEC])
    if compression is None or _DICTIONARY_OFFSET in metadata:
        return None
    return Chunk(rows, offset, length, compression, tuple(metadata[_ENCODINGS]))


def read_chunk(source: pa.NativeFile, chunk: Chunk, dim: int, to: FloatArray) -> None:
    """Read the vectors of a row group into ``to``, float32 (rows, dim), contiguous.

    Raises
    ------
    OSError
        The checksum of a page is wrong, or the file is truncated.
    UnusualLayoutError
        A list is not ``dim`` long, or the pages have another layout.
    """
    data = _scratch(chunk.size)
    source.seek(chunk.offset)
    if source.readinto(data) != chunk.size:
        raise OSError("the file is truncated")
    flat = to.reshape(-1)
    at = filled = 0
    while at < len(data):
        try:
            header, start = thrift.decode(data, at)
            count, encoding = index(header[_ABOUT][_COUNT]), header[_ABOUT][_ENCODING]
            kind, size, whole = (index(header[field]) for field in (_TYPE, _COMPRESSED, _UNCOMPRESSED))
            checksum = index(header[_CHECKSUM]) & 0xFFFFFFFF if _CHECKSUM in header else None
            end, full = start + size, filled + count
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise UnusualLayoutError from error
        page = data[start:end]
        # Levels need fewer bytes than values. What a damaged header says must not be allocated.
        if kind != _DATA_PAGE or len(page) != size or full > len(flat) or not 0 <= whole <= 8 * count + 64:
            raise UnusualLayoutError
        if checksum is not None and zlib.crc32(page) != checksum:
            raise OSError("the checksum of a page is wrong")
        if encoding not in chunk.encodings:  # which no checksum covers
            raise OSError("a page has another encoding than the footer says")
        if chunk.compression == "ZSTD":
            page = memoryview(pa.Codec("zstd").decompress(page, whole))
        values = _values(page, count, dim, first=-filled % dim)
        if encoding == _PLAIN:
            flat[filled:full] = values.view(np.float32)
        elif encoding == _BYTE_STREAM_SPLIT:
            octets = flat[filled:full].view(np.uint8).reshape(count, 4)
            for i in range(4):  # three times as fast as one transpose
                octets[:, i] = values[i * count : (i + 1) * count]
        else:
            raise UnusualLayoutError
        at, filled = end, full
    if filled != len(flat):
        raise UnusualLayoutError


def _scratch(size: int) -> memoryview:
    """Return a buffer of this thread, reused by the next call: allocating costs more than reading."""
    if len(getattr(_of_thread, "memory", b"")) < size:
        _of_thread.memory = bytearray(size)
    return memoryview(_of_thread.memory)[:size]


_of_thread = threading.local()


def _values(page: memoryview, count: int, dim: int, first: int) -> npt.NDArray[np.uint8]:
    """Return the bytes of the values of a page, after checking that all its lists are ``dim`` long."""
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


# All pages of a file except the last have the same levels, so the cache decodes them a few times only.


@functools.lru_cache(maxsize=256)
def _are_even(levels: bytes, count: int, dim: int, first: int) -> bool:
    """Return whether lists begin at value ``first``, ``first + dim`` and so on, and nowhere else."""
    return np.array_equal(np.flatnonzero(_levels(levels, count) == 0), np.arange(first, count, dim))


@functools.lru_cache(maxsize=256)
def _are_set(levels: bytes, count: int) -> bool:
    """Return whether every level has a value. An empty list has a level and no value."""
    return bool(_levels(levels, count).all())


def _levels(data: bytes, count: int) -> npt.NDArray[np.uint8]:
    """Decode levels of one bit each from runs of one level and groups of eight packed bits."""
    parts: list[npt.NDArray[np.uint8]] = []
    at = decoded = 0
    while decoded < count:
        try:
            run, at = thrift.read_varint(data, at)
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
        at, decoded = at + size, decoded + len(part)
        parts.append(part)
    return np.concatenate(parts)[:count] if parts else np.empty(0, np.uint8)
