"""Parquet files whose vectors are written as blocks, several times faster than through Arrow.

Arrow makes the levels of lists value by value. In a store all lists of a column have one length, so its pages have the
same levels, which are made once. Arrow writes the other columns. The vectors of a row group follow them in the file,
and get their entries in the footer of Arrow. The formats of the file, its pages and their levels are described at
https://parquet.apache.org/docs/file-format/, the numbers of fields in
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
"""

from __future__ import annotations

import functools
import io
import zlib
from collections.abc import Collection
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedpipe.store.pages import thrift
from embedpipe.store.pages.thrift import I64, Struct, varint
from embedpipe.store.schema import VECTOR, matrix

#: Bytes of values in a page, as Arrow has them. A row is never divided.
PAGE_BYTES = 1 << 20

#: Bytes of a vector above which Arrow writes it, as a page has less than 2^31.
MOST_BYTES = 1 << 30

#: Fields of the footer and of a row group.
_ROW_COUNT, _ROW_GROUPS = 3, 4
_COLUMNS, _BYTES, _FILE_OFFSET, _COMPRESSED_BYTES = 1, 2, 5, 6

#: Fields of the entry of a column in a row group, and of its metadata. The offsets are of data, index and dictionary.
_METADATA, _SIZE = 3, 7
_OFFSETS = (9, 10, 11)

#: Values of enums.
_DATA_PAGE, _FLOAT, _UNCOMPRESSED, _PLAIN, _RLE = 0, 4, 0, 0, 3


class Sink(Protocol):
    """A new file to whose end bytes are written."""

    def write(self, data: Any) -> Any:
        """Write all bytes of a buffer."""

    def tell(self) -> int:
        """Return the position, which is the end."""


def write_parquet(rows: pa.Table, sink: Sink, row_group_size: int, plain: Collection[str], **options: Any) -> None:
    """Write rows as `pyarrow.parquet.write_table` does with the same options.

    ``plain`` are columns of the type `VECTOR` for which the options ask neither for compression nor for a dictionary or
    statistics. Checksums of pages are written. Raises OSError.
    """
    lengths = {name: length for name in plain if (length := _common_length(rows, name))}
    others = rows.drop_columns([*lengths])
    if not lengths or not others.num_columns or any(map(_has_parts, others.schema.types)):
        pq.write_table(rows, sink, row_group_size=row_group_size, **options)
        return
    places: list[int] = []
    vectors: list[dict[str, Struct]] = []
    arrow = io.BytesIO()
    with pq.ParquetWriter(arrow, others.schema, **options) as writer:
        for start in range(0, rows.num_rows, row_group_size):
            _move(arrow, sink)  # the bytes with which a file begins
            places.append(sink.tell())
            writer.write_table(others.slice(start, row_group_size), row_group_size)
            _move(arrow, sink)
            group = rows.slice(start, row_group_size)
            matrices = {name: matrix(group.column(name), length, name) for name, length in lengths.items()}
            vectors.append({name: _write_chunk(sink, name, X) for name, X in matrices.items()})
    written = thrift.read_footer(arrow.getvalue())
    empty = io.BytesIO()
    pq.write_table(rows.schema.empty_table(), empty, **options)
    footer = thrift.read_footer(empty.getvalue())  # which has the schema of all columns
    footer[_ROW_COUNT], footer[_ROW_GROUPS] = written[_ROW_COUNT], written[_ROW_GROUPS]
    for entry, place, added in zip(footer[_ROW_GROUPS], places, vectors, strict=True):
        _shift(entry, place - entry[_FILE_OFFSET])
        of_arrow = iter(entry[_COLUMNS])
        entry[_COLUMNS] = [added.get(name) or next(of_arrow) for name in rows.column_names]
        size = sum(chunk[_METADATA][_SIZE] for chunk in added.values())
        entry[_BYTES], entry[_COMPRESSED_BYTES] = I64(entry[_BYTES] + size), I64(entry[_COMPRESSED_BYTES] + size)
    data = thrift.encode(footer)
    sink.write(data + len(data).to_bytes(4, "little") + b"PAR1")


def _move(arrow: io.BytesIO, sink: Sink) -> None:
    """Write to a sink what Arrow has written."""
    sink.write(arrow.getvalue())
    arrow.seek(0)
    arrow.truncate()


def _shift(entry: Struct, by: int) -> None:
    """Move a row group, whose position Arrow gives without the vectors before it."""
    entry[_FILE_OFFSET] = I64(entry[_FILE_OFFSET] + by)
    for chunk in entry[_COLUMNS]:
        metadata = chunk[_METADATA]
        metadata |= {field: I64(metadata[field] + by) for field in _OFFSETS if field in metadata}


def _has_parts(type_: pa.DataType) -> bool:
    """Return whether Parquet may hold a column in several, so that their places differ from those of the columns."""
    type_ = type_.storage_type if isinstance(type_, pa.BaseExtensionType) else type_
    return bool(pa.types.is_nested(type_)) and type_ != VECTOR


def _common_length(rows: pa.Table, name: str) -> int:
    """Return the length of all vectors of a column; 0 where Arrow must write it."""
    column = rows.column(name)
    nulls = rows.schema.field(name).nullable or column.null_count or any(c.flatten().null_count for c in column.chunks)
    lengths = pc.min_max(pc.list_value_length(column)).as_py()
    even = lengths["min"] == lengths["max"] and (lengths["max"] or 0) * 4 <= MOST_BYTES
    return lengths["max"] or 0 if even and not nulls else 0


def _write_chunk(sink: Sink, name: str, X: npt.NDArray[np.float32]) -> Struct:
    """Write the vectors of a row group, (n, dim), and return their entry in the footer."""
    start, pages = sink.tell(), 0
    step = max(1, PAGE_BYTES // (4 * X.shape[1]))
    for first in range(0, len(X), step):
        page = X[first : first + step]
        levels = _page_levels(*page.shape)
        values = page.reshape(-1).view(np.uint8).data
        size = len(levels) + len(values)
        checksum = zlib.crc32(values, zlib.crc32(levels))
        signed = checksum - ((checksum & 0x80000000) << 1)
        about = {1: page.size, 2: _PLAIN, 3: _RLE, 4: _RLE}
        sink.write(thrift.encode({1: _DATA_PAGE, 2: size, 3: size, 4: signed, 5: about}) + levels)
        sink.write(values)
        pages += 1
    size, rows, count = I64(sink.tell() - start), I64(len(X)), I64(X.size)
    metadata = {
        1: _FLOAT,
        2: [_RLE, _PLAIN],
        3: [name.encode(), b"list", b"element"],
        4: _UNCOMPRESSED,
        5: count,
        6: size,
        _SIZE: size,
        9: I64(start),
        13: [{1: _DATA_PAGE, 2: _PLAIN, 3: pages}],
        16: {2: [rows, I64(count - rows)], 3: [I64(0), count]},  # how often each level occurs
    }
    return {2: I64(0), _METADATA: metadata}


@functools.lru_cache(maxsize=16)
def _page_levels(rows: int, dim: int) -> bytes:
    """Return the levels of a page. A repetition level is 0 where a list begins; no value or list is missing."""
    row = _run(1, 0) + _run(dim - 1, 1) if dim > 1 else b""
    groups = -(-rows * dim // 8)
    packed = varint(groups << 1 | 1) + np.packbits(np.arange(groups * 8) % dim != 0, bitorder="little").tobytes()
    repetition = min(row * rows or _run(rows, 0), packed, key=len)
    return b"".join(len(part).to_bytes(4, "little") + part for part in (repetition, _run(rows * dim, 1)))


def _run(count: int, level: int) -> bytes:
    return varint(count << 1) + bytes([level])
