"""A table whose rows are images: which column means what, and the listing made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedpipe.errors import Failure, ReadError, SourceError, nearest
from embedpipe.sources.cells import ParquetCells, cell_uri, payload_of
from embedpipe.sources.listing import Listing, in_chunks
from embedpipe.sources.locations import join, modified, open_file, read_bytes, size_and_time, split
from embedpipe.sources.options import SourceOptions
from embedpipe.sources.suffixes import suffix_of
from embedpipe.sources.table_files import empty_to_null, read_table, refuse_doubled_names

#: Where the image is, if the user does not say: the first of these that the table has.
IMAGE_COLUMNS = ("file_name", "filename", "file", "path", "image", "image_path", "filepath", "uri", "url")

#: Names that the store needs for itself, like every name that begins with "embedding".
RESERVED = ("id", "uri", "content_hash", "source_root", "source_size", "source_modified", "label", "split")


@dataclass
class _Roles:
    """Which column of a table means what. Columns of types that no store holds are in ``left_out``."""

    image: str
    id: str | None
    label: str | None
    split: str | None
    metadata: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)


def list_table(location: str, options: SourceOptions) -> Listing:
    """List the rows of a CSV, TSV, Parquet or JSON-lines file.

    Paths are relative to the file's folder. Image bytes in a Parquet file are read when they are asked
    for, a row group at a time. All columns without a role are carried as metadata, but for binary and
    nested ones and durations, which are left out and counted in `Listing.skipped`. A row without an id is a
    failure, numbered from 1; a row without an image is listed, and cannot be read.

    Raises
    ------
    SourceError
        The file cannot be read, a column is missing, or a column's name is one that the store needs.
    """
    folder, name = split(location)
    if suffix_of(name) != ".parquet":
        roles_of = (options.id or "id", options.image or "", *IMAGE_COLUMNS)
        table = read_table(location, text=[name for name in roles_of if name])
        return _list(table, _roles(table.schema, options, name), folder, name, location)
    try:
        with open_file(location) as file:
            schema = pq.ParquetFile(file).schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"cannot read the table {location!r}: {error}") from error
    refuse_doubled_names(schema, name)
    roles = _roles(schema, options, name)
    wanted = [*roles.metadata, *(role for role in (roles.id, roles.label, roles.split) if role)]
    image = schema.field(roles.image).type
    if _is_text(image):
        table = read_table(location, [*wanted, roles.image])
        return _list(table, roles, folder, name, location)
    if _path_field(image):
        wanted.append(f"{roles.image}.path")
    table = read_table(location, wanted)
    return _list(table, roles, folder, name, location, ParquetCells(location, roles.image))


def list_frame(frame: Any, options: SourceOptions) -> Listing:
    """List the rows of a pyarrow table, pandas or polars frame, or whatever exports an Arrow stream.

    Paths are relative to the working folder; all else is as in `list_table`.
    """
    table = pa.RecordBatchReader.from_stream(frame).read_all()
    refuse_doubled_names(table.schema, "the table")
    return _list(table, _roles(table.schema, options, "the table"), str(Path.cwd()), "the table", "memory")


@dataclass
class _Images:
    """The images of a table's rows: what their ids are if no column says, where they are, how to read one."""

    ids: pa.ChunkedArray
    uris: pa.ChunkedArray
    sizes: Any
    times: Any
    read: Callable[[int], Any]


def _list(
    table: pa.Table, roles: _Roles, folder: str, name: str, root: str, cells: ParquetCells | None = None
) -> Listing:
    column: Any = table.column(roles.image) if roles.image in table.column_names else None
    if cells:
        images = _stored_cells(column, table.num_rows, roles.image, root, cells)
    elif _is_text(_plain(column.type)):
        images = _paths(_decoded(column), folder)
    else:
        images = _loaded_cells(column, folder)
    ids = empty_to_null(_decoded(table.column(roles.id)).cast(pa.string()) if roles.id else images.ids)
    nothing = pa.nulls(len(ids), pa.string())
    columns = {
        "id": ids,
        "uri": images.uris,
        "source_size": images.sizes,
        "source_modified": images.times,
        "label": _decoded(table.column(roles.label)) if roles.label else nothing,
        "split": _decoded(table.column(roles.split)).cast(pa.string()) if roles.split else nothing,
    }
    listed = pa.table(columns | {name: _decoded(table.column(name)) for name in roles.metadata})
    if not ids.null_count:
        return Listing(listed, root, images.read, skipped=roles.left_out)
    kept, lost = np.flatnonzero(ids.is_valid()), np.flatnonzero(ids.is_null())
    reason = SourceError(f"no id: column {roles.id or roles.image!r} is empty")
    failures = tuple(
        Failure.of(f"row {row + 1} of {name}", images.uris[int(row)].as_py(), reason, "list") for row in lost
    )
    return Listing(listed.take(pa.array(kept)), root, lambda row: images.read(int(kept[row])), failures, roles.left_out)


def _paths(paths: pa.ChunkedArray, folder: str) -> _Images:
    """Images in files that the table names."""
    count = len(paths)

    def about(row: int) -> tuple[int | None, int | None]:
        uri = uris[row].as_py()
        return size_and_time(uri) if uri else (None, None)

    def read(row: int) -> bytes:
        if uri := uris[row].as_py():
            return read_bytes(uri)
        raise ReadError("the row has no image: its path is empty")

    uris = in_chunks(count, lambda row: _joined(folder, paths[row].as_py()), pa.string())
    stats = in_chunks(count, about, pa.struct([("0", pa.int64()), ("1", pa.int64())]))
    return _Images(paths, uris, pc.struct_field(stats, "0"), pc.struct_field(stats, "1"), read)


def _stored_cells(column: pa.ChunkedArray | None, count: int, name: str, location: str, cells: ParquetCells) -> _Images:
    """Images in the cells of a Parquet file; ``column`` has at most their paths."""
    uris = in_chunks(count, lambda row: cell_uri(name, row, location), pa.string())
    times = pa.repeat(pa.scalar(modified(location), pa.int64()), count)
    return _Images(_cell_ids(column, count), uris, pa.nulls(count, pa.int64()), times, cells)


def _loaded_cells(column: pa.ChunkedArray, folder: str) -> _Images:
    """Images in the cells of a table in memory."""
    count = len(column)
    uris, unknown = in_chunks(count, lambda row: None, pa.string()), pa.nulls(count, pa.int64())
    return _Images(
        _cell_ids(column, count), uris, unknown, unknown, lambda row: payload_of(column[row].as_py(), folder)
    )


def _cell_ids(column: pa.ChunkedArray | None, count: int) -> pa.ChunkedArray:
    rows = in_chunks(count, lambda row: f"row-{row:08d}", pa.string())
    if column is None or not _path_field(column.type):
        return rows
    return pc.coalesce(pc.struct_field(column, "path").cast(pa.string()), rows)


def _roles(schema: pa.Schema, options: SourceOptions, name: str) -> _Roles:
    image = options.image or next((column for column in IMAGE_COLUMNS if column in schema.names), None)
    if image is None:
        raise SourceError(f"{name!r} has no image column among {schema.names}; name one (--image COLUMN)")
    wanted = {"image": image, "id": options.id, "label": options.label, "split": options.split}
    for role, column in wanted.items():
        if column and column not in schema.names:
            raise SourceError(
                f"{name!r} has no column {column!r} (--{role}){nearest(column, schema.names)}; it has {schema.names}"
            )
    found = {role: wanted[role] or (role if role in schema.names else None) for role in ("id", "label", "split")}
    type_ = _plain(schema.field(image).type)
    if not (_is_text(type_) or _is_bytes(type_) or _has_bytes(type_)):
        raise SourceError(f"image column {image!r} of {name!r} holds {type_}, not paths, bytes or structs with bytes")
    for role, column in found.items():
        if column and not _is_storable(schema.field(column).type):
            raise SourceError(
                f"{role} column {column!r} of {name!r} holds {schema.field(column).type}, not plain values"
            )
    roles = _Roles(image, found["id"], found["label"], found["split"])
    for column in schema:
        if column.name in {image, *found.values()}:
            continue
        # Delta does not tell names apart by letter case.
        lower = column.name.lower()
        if lower in RESERVED or lower.startswith("embedding"):
            raise SourceError(f"column {column.name!r} of {name!r} has a name that the store needs; rename it")
        if same := [other for other in roles.metadata if other.lower() == lower]:
            raise SourceError(f"columns {same[0]!r} and {column.name!r} of {name!r} differ in case only; rename one")
        if _is_storable(column.type):
            roles.metadata.append(column.name)
        else:
            roles.left_out[f"column {column.name!r} ({column.type})"] = 1
    return roles


def _plain(type: pa.DataType) -> pa.DataType:
    return type.value_type if pa.types.is_dictionary(type) else type


def _is_text(type: pa.DataType) -> bool:
    return any(test(type) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _is_bytes(type: pa.DataType) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(type) for test in tests)


def _has_bytes(type: pa.DataType) -> bool:
    return _has_field(type, "bytes")


def _path_field(type: pa.DataType) -> bool:
    return _has_field(type, "path")


def _has_field(type: pa.DataType, name: str) -> bool:
    return bool(pa.types.is_struct(type) and type.get_field_index(name) >= 0)


def _is_storable(type: pa.DataType) -> bool:
    type = _plain(type)
    refused = (pa.types.is_nested, pa.types.is_duration, pa.types.is_interval, pa.types.is_decimal256, _is_bytes)
    return not any(test(type) for test in refused)


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    plain = _plain(column.type)
    plain = pa.string() if _is_text(plain) or pa.types.is_null(plain) else plain
    return column if column.type == plain else column.cast(plain)


def _joined(folder: str, path: str | None) -> str | None:
    return join(folder, path) if path else None
