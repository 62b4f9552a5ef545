"""The Parquet files of a table: their entries in the Delta log, and writing them in bounded sizes."""

from __future__ import annotations

import json
import re
import time
import uuid
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake.transaction import AddAction, RemoveAction

from embedpipe.errors import StoreError
from embedpipe.store.schema import VECTOR, is_compressed, rounded

#: Bytes of vectors per file and per row group. A change rewrites whole files, so their size is bounded.
FILE_BYTES = 64 << 20
ROW_GROUP_BYTES = 8 << 20

#: Names of the data files.
DATA_FILE = re.compile(r"part-[0-9a-f]{32}\.parquet")

#: Estimated bytes per row of all columns except the vectors.
ROW_BYTES = 512


@dataclass(frozen=True, slots=True)
class DataFile:
    """A Parquet file of the table: relative path, rows, bytes, first and last id."""

    path: str
    rows: int
    size: int
    first: str
    last: str


def read_log(actions: pa.Table, path: str) -> tuple[DataFile, ...]:
    """Return the files of a table version from the flattened add actions of delta-rs.

    Raises StoreError if another tool wrote files without the statistics that lookups need.
    """
    if actions.num_rows == 0:
        return ()
    names = ["path", "num_records", "size_bytes", "min.id", "max.id"]
    missing = [name for name in names if name not in actions.column_names or actions[name].null_count]
    if missing:
        raise StoreError(
            f"files of {path!r} lack {missing} in the log: another tool wrote them. Embed into a new store"
        )
    columns = [actions.column(name).to_pylist() for name in names]
    return tuple(sorted((DataFile(*row) for row in zip(*columns, strict=True)), key=lambda file: file.path))


def write_files(rows: pa.Table, fs: pafs.FileSystem, base: str, *, data_change: bool = True) -> list[AddAction]:
    """Write rows into new files below ``base``, to be referenced by the next commit.

    Vectors are rounded and compressed if their field is marked (`is_compressed`). Raises StoreError if writing fails.
    """
    vectors = [field.name for field in rows.schema if field.type == VECTOR]
    compressed = [field.name for field in rows.schema if is_compressed(field)]
    for name in compressed:
        index = rows.schema.get_field_index(name)
        rows = rows.set_column(index, rows.schema.field(name), rounded(rows.column(name)))
    row_bytes = ROW_BYTES
    if vectors and rows.num_rows:
        row_bytes += sum(len(rows.column(name)[0]) * 4 for name in vectors)
    per_file = max(1, FILE_BYTES // row_bytes)
    actions = []
    for start in range(0, rows.num_rows, per_file):
        part = rows.slice(start, per_file)
        name = f"part-{uuid.uuid4().hex}.parquet"
        try:
            pq.write_table(
                part,
                f"{base}/{name}",
                filesystem=fs,
                row_group_size=max(1, ROW_GROUP_BYTES // row_bytes),
                # Mantissas of unrounded floats do not compress; the other columns do.
                compression={field.name: "zstd" for field in rows.schema if field.type != VECTOR}
                | {f"{name}.list.element": "zstd" if name in compressed else "none" for name in vectors},
                use_byte_stream_split=[f"{name}.list.element" for name in compressed],
                use_dictionary=[field.name for field in rows.schema if field.type == pa.string()],
                write_statistics=["id"],
                write_page_checksum=True,
            )
            size = fs.get_file_info(f"{base}/{name}").size
        except OSError as error:
            raise StoreError(f"cannot write to {base!r}: {reason(error)}") from error
        bounds = pc.min_max(part.column("id"))
        stats = {
            "numRecords": part.num_rows,
            "minValues": {"id": bounds["min"].as_py()},
            "maxValues": {"id": bounds["max"].as_py()},
            "nullCount": {"id": 0},
        }
        actions.append(AddAction(name, size, {}, _now(), data_change, json.dumps(stats)))
    return actions


def removal(file: DataFile, *, data_change: bool = True) -> RemoveAction:
    """Return the action that removes a file from the table. Its bytes stay until vacuum."""
    return RemoveAction(path=file.path, data_change=data_change, deletion_timestamp=_now(), size=file.size)


def reason(error: Exception) -> str:
    """Return the message of an error of delta-rs without colours and line breaks."""
    return " ".join(re.sub(r"\x1b\[\d+m|↳", "", str(error)).split())


def _now() -> int:
    return int(time.time() * 1000)
