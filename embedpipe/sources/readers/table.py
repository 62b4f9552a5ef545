"""Listing of a table whose rows are images or texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedpipe._utils.option_names import option
from embedpipe.errors import Failure, SourceError
from embedpipe.sources.access.roots import Access, access_of, access_of_memory, refuse_foreign
from embedpipe.sources.cells import Cells, ParquetCells, cell_uris, table_cell_uris
from embedpipe.sources.column_roles import ColumnRoles, find_column_roles, verbatim_columns
from embedpipe.sources.column_types import has_field, is_string, value_type
from embedpipe.sources.columns.conversion import plain_column, type_notes
from embedpipe.sources.columns.frames import arrow_table
from embedpipe.sources.columns.labels import clean_labels
from embedpipe.sources.file_types import suffix_of
from embedpipe.sources.listing import Listing, constant, in_chunks, numbered
from embedpipe.sources.locations import join, modified, open_file, size_and_time, split_location
from embedpipe.sources.options import Modality, SourceOptions
from embedpipe.sources.reading import Files, Joined, Reader, Selected
from embedpipe.sources.table_files import empty_to_null, load_table, refuse_doubled_names


def list_tables(root: str, locations: Sequence[str], options: SourceOptions, modality: Modality) -> Listing:
    """List the rows of several tables as one source, named ``root``.

    Ids that are numbers of rows get the name of the file before them.

    Raises
    ------
    SourceError
        A file cannot be read, or the types of a column differ.
    """
    parts = [list_table(location, options, modality, in_shards=True) for location in locations]
    try:
        table = pa.concat_tables([part.table for part in parts], promote_options="default")
    except pa.ArrowException as error:
        raise SourceError(f"the tables of {root!r} must have columns of the same types: {error}") from error
    return Listing(
        table,
        root,
        Joined([part.read for part in parts], [len(part) for part in parts]),
        tuple(failure for part in parts for failure in part.failures),
        {name: 1 for part in parts for name in part.skipped},
        tuple(note for part in parts for note in part.notes),
    )


def list_table(location: str, options: SourceOptions, modality: Modality, in_shards: bool = False) -> Listing:
    """List the rows of a CSV, TSV, Parquet or JSON-lines file; ``in_shards`` as one of several.

    Paths are relative to the folder of the file. Images and texts in a Parquet file are read on demand by row group.
    Columns without a role become metadata, except binary columns, nested columns and durations, which are counted in
    `Listing.skipped`. A row without an id is a failure, numbered from 1. A row without an image or text is listed, and
    fails when it is read.

    Raises
    ------
    SourceError
        The file cannot be read, a column is missing, or a column name is reserved for the store.
    """
    folder, name = split_location(location)
    prefix = f"{name.rpartition('.')[0]}/" if in_shards else ""
    access = access_of(folder, options.allow_root)
    time = modified(location)  # taken before reading, so that a later change is noticed
    if suffix_of(name) != ".parquet":
        table, notes = load_table(location, text=verbatim_columns(options, modality), names=options.header)
        roles = find_column_roles(table.schema, options, name, modality)
        column = table.column(roles.payload)
        if modality == "text":
            payloads = _texts(
                column, roles.payload, table_cell_uris(roles.payload, len(column), location, options.header), time
            )
        else:
            payloads = _images(column, folder, access, name)
        return _list(table, roles, payloads, name, location, notes, prefix)
    if options.header is not None:
        raise SourceError(f"{option('header')} is for CSV and TSV files, and the columns of {name!r} have names")
    try:
        with open_file(location) as file:
            schema = pq.ParquetFile(file).schema_arrow
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot read the table {location!r}: {error}") from error
    refuse_doubled_names(schema, name)
    roles = find_column_roles(schema, options, name, modality)
    wanted = [*roles.metadata, *(role for role in (roles.id, roles.label, roles.split) if role)]
    type = schema.field(roles.payload).type
    if modality == "image" and is_string(type):
        table = load_table(location, [*wanted, roles.payload]).table
        return _list(
            table,
            roles,
            _paths(plain_column(table.column(roles.payload), roles.payload), folder, access, name),
            name,
            location,
        )
    paths = modality == "image" and has_field(type, "path")
    table = load_table(location, [*wanted, f"{roles.payload}.path"] if paths else wanted).table
    payloads = _stored_cells(
        table.column(roles.payload) if paths else None, table.num_rows, roles.payload, location, modality, time, access
    )
    return _list(table, roles, payloads, name, location, prefix=prefix)


def list_frame(frame: Any, options: SourceOptions, modality: Modality) -> Listing:
    """List the rows of a pyarrow table, pandas or polars frame, or another object with an Arrow stream.

    Paths are relative to the working folder. Everything else is as in `list_table`.
    """
    if options.header is not None:
        raise SourceError(
            f"{option('header')} is for CSV and TSV files, and the columns of a table in memory have names"
        )
    name = "the table"
    table = arrow_table(frame)
    refuse_doubled_names(table.schema, name)
    roles = find_column_roles(table.schema, options, name, modality)
    column = table.column(roles.payload)
    access = access_of_memory(options.allow_root)
    payloads = _texts(column, roles.payload) if modality == "text" else _images(column, str(Path.cwd()), access, name)
    return _list(table, roles, payloads, name, "memory")


@dataclass
class _Payloads:
    """The payloads of the rows of a table: default ids, URIs, sizes, times, and what reads one.

    ``in_cells``: they are in the table itself, so that ids are unique in it alone.
    """

    ids: pa.ChunkedArray
    uris: Any
    sizes: Any
    times: Any
    read: Reader
    in_cells: bool = True


def _list(
    table: pa.Table,
    roles: ColumnRoles,
    payloads: _Payloads,
    name: str,
    root: str,
    notes: tuple[str, ...] = (),
    prefix: str = "",
) -> Listing:
    if roles.id is not None:
        ids = empty_to_null(_text_of(table.column(roles.id), roles.id))
    else:
        ids = pc.binary_join_element_wise(prefix if payloads.in_cells else "", empty_to_null(payloads.ids), "")
    columns = {
        "id": ids,
        "uri": payloads.uris,
        "source_size": payloads.sizes,
        "source_modified": payloads.times,
        "label": constant(None, len(ids), pa.string()),
        "split": constant(None, len(ids), pa.string()),
    }
    if roles.label:
        columns["label"], remarks = clean_labels(table.column(roles.label), roles.label)
        notes += tuple(f"{name}: {remark}" for remark in remarks)
    if roles.split:
        columns["split"], remarks = clean_labels(_text_of(table.column(roles.split), roles.split), roles.split)
        notes += tuple(f"{name}: {remark}" for remark in remarks)
    notes += tuple(f"{name}: {remark}" for remark in type_notes(table.schema, roles.metadata))
    listed = pa.table(columns | {name: plain_column(table.column(name), name) for name in roles.metadata})
    if not ids.null_count:
        return Listing(listed, root, payloads.read, skipped=roles.left_out, notes=notes)
    kept, lost = np.flatnonzero(ids.is_valid()), np.flatnonzero(ids.is_null())
    reason = SourceError(f"column {roles.id or roles.payload!r} must hold an id, and is empty")
    failures = tuple(
        Failure.of(f"row {row + 1} of {name}", payloads.uris[int(row)].as_py(), reason, "list") for row in lost
    )
    kept_rows = listed.take(pa.array(kept))
    return Listing(kept_rows, root, Selected(payloads.read, kept), failures, roles.left_out, notes)


def _text_of(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    column = column if pa.types.is_integer(column.type) else plain_column(column, name)
    return column.cast(pa.string())


def _images(column: pa.ChunkedArray, folder: str, access: Access, name: str) -> _Payloads:
    """Images as paths or in the cells of a table in memory."""
    if is_string(value_type(column.type)):
        return _paths(plain_column(column, name), folder, access, name)
    return _loaded_cells(column, folder, access)


def _paths(paths: pa.ChunkedArray, folder: str, access: Access, name: str) -> _Payloads:
    """Images as paths in a table."""

    def size_and_time_of(uri: str | None) -> tuple[int | None, int | None]:
        return size_and_time(uri) if uri else (None, None)

    uris = in_chunks(paths, lambda path: _joined(folder, path), pa.string())
    refuse_foreign(uris, access, name)
    stats = in_chunks(uris, size_and_time_of, pa.struct([("0", pa.int64()), ("1", pa.int64())]))
    reader = Files(uris, "image", access)
    return _Payloads(paths, uris, pc.struct_field(stats, "0"), pc.struct_field(stats, "1"), reader, in_cells=False)


def _stored_cells(
    paths: pa.ChunkedArray | None,
    count: int,
    name: str,
    location: str,
    modality: Modality,
    time: int | None,
    access: Access,
) -> _Payloads:
    """Images or texts in the cells of a Parquet file. ``paths`` are structs with the paths of images."""
    times = constant(time, count, pa.int64())
    cells = ParquetCells(location, name, modality, time, access)
    return _Payloads(
        _cell_ids(paths, count), cell_uris(name, count, location), constant(None, count, pa.int64()), times, cells
    )


def _loaded_cells(column: pa.ChunkedArray, folder: str, access: Access) -> _Payloads:
    """Images in the cells of a table in memory."""
    count = len(column)
    unknown = constant(None, count, pa.int64())
    return _Payloads(
        _cell_ids(column, count),
        constant(None, count, pa.string()),
        unknown,
        unknown,
        Cells(column, folder, "image", access),
    )


def _texts(
    column: pa.ChunkedArray, name: str, uris: pa.ChunkedArray | None = None, time: int | None = None
) -> _Payloads:
    """Texts in the cells of a table in memory, or of a file of that time that was read whole."""
    count = len(column)
    if is_string(value_type(column.type)):
        column = plain_column(column, name)
    unknown = constant(None, count, pa.int64())
    return _Payloads(
        numbered("row-", count),
        constant(None, count, pa.string()) if uris is None else uris,
        unknown if uris is None else pc.binary_length(column.cast(pa.large_string())),
        constant(time, count, pa.int64()),
        Cells(column, "", "text", access_of_memory()),
    )


def _cell_ids(column: pa.ChunkedArray | None, count: int) -> pa.ChunkedArray:
    """Return the paths in structs as ids if they are unique, as base names need not be, else the numbers of rows."""
    rows = numbered("row-", count)
    if column is None or not has_field(column.type, "path"):
        return rows
    paths = empty_to_null(pc.struct_field(column, "path").cast(pa.string()))
    if pc.count_distinct(paths).as_py() < count - paths.null_count:
        return rows
    return pc.coalesce(paths, rows)


def _joined(folder: str, path: str | None) -> str | None:
    return join(folder, path) if path else None
