"""Rows of a table as a listing: from the columns with a role, and the payloads that they hold or name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.option_names import option
from embedpipe.errors import Failure, SourceError
from embedpipe.sources.access.roots import Access, access_of_memory, refuse_foreign
from embedpipe.sources.column_roles import ColumnRoles, find_column_roles
from embedpipe.sources.column_types import has_field, is_string, value_type
from embedpipe.sources.columns.box_lists import list_of_boxes
from embedpipe.sources.columns.class_names import with_class_names
from embedpipe.sources.columns.conversion import plain_column, type_notes
from embedpipe.sources.columns.ids import id_texts
from embedpipe.sources.columns.labels import clean_labels
from embedpipe.sources.listing import ROOT, Listing, constant, in_chunks, numbered
from embedpipe.sources.locations import join, size_and_time
from embedpipe.sources.options import Modality, SourceOptions
from embedpipe.sources.parts import PICTURE, WITHOUT_BOXES
from embedpipe.sources.reading import Files, Joined, Reader, Selected
from embedpipe.sources.tables.box_columns import with_boxes
from embedpipe.sources.tables.cells import Cells
from embedpipe.sources.tables.shards import Shard
from embedpipe.sources.tables.table_files import empty_to_null, refuse_doubled_names


def join_listings(parts: Sequence[Listing], root: str) -> Listing:
    """Return the listings of several tables as one.

    Integers become floats where another table has those, and a column without a value has the type of the others: the
    rows of a test split may have no labels. Raises SourceError if the types of a column differ otherwise.
    """
    try:
        table = _concatenated([part.table for part in parts])
    except pa.ArrowException as error:
        raise SourceError(f"the tables of {root!r} must have columns of the same types: {error}") from error
    return Listing(
        table,
        root,
        Joined([part.read for part in parts], [len(part) for part in parts]),
        tuple(failure for part in parts for failure in part.failures),
        _skipped(parts),
        tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )


def _concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of all tables, without a type for a column of which a table has no value."""
    names = dict.fromkeys(name for table in tables for name in table.column_names)
    known = {name for table in tables for name in table.column_names if table[name].null_count < len(table)}
    without_nulls = [
        table.drop_columns(
            [name for name in table.column_names if name in known and table[name].null_count == len(table)]
        )
        for table in tables
    ]
    return pa.concat_tables(without_nulls, promote_options="permissive").select([*names])


def _skipped(parts: Sequence[Listing]) -> dict[str, int]:
    """Return what all parts left out: the columns are the same in each."""
    without = sum(part.skipped.get(WITHOUT_BOXES, 0) for part in parts)
    names = {name: 1 for part in parts for name in part.skipped}
    return names | ({WITHOUT_BOXES: without} if without else {})


@dataclass
class Payloads:
    """The payloads of the rows of a table: default ids, URIs, sizes, times, and what reads one.

    ``in_cells``: they are in the table itself, so that ids are unique in it alone.
    """

    ids: pa.ChunkedArray
    uris: Any
    sizes: Any
    times: Any
    read: Reader
    in_cells: bool = True


def list_rows(
    table: pa.Table, roles: ColumnRoles, payloads: Payloads, name: str, shard: Shard, notes: tuple[str, ...] = ()
) -> Listing:
    """List the rows of a table.

    Parameters
    ----------
    table : pyarrow.Table
        At least the columns of ``roles`` but the payloads.
    roles : ColumnRoles
    payloads : Payloads
    name : str
        Name of the table in messages.
    shard : Shard
        Where it is.
    notes : tuple of str
        Remarks on how the table was read.

    Raises
    ------
    SourceError
        A value cannot be stored.
    """
    table = with_class_names(table, name)
    notes += tuple(f"{name}: {note}" for note in roles.notes)
    if roles.id is not None:
        ids = empty_to_null(id_texts(table.column(roles.id), roles.id))
    else:
        ids = pc.binary_join_element_wise(shard.prefix if payloads.in_cells else "", empty_to_null(payloads.ids), "")
    columns = {
        "id": ids,
        "uri": payloads.uris,
        "source_size": payloads.sizes,
        "source_modified": payloads.times,
        "label": constant(None, len(ids), pa.string()),
        "split": constant(shard.split, len(ids), pa.string()),
    }
    if roles.label:
        columns["label"], remarks = clean_labels(table.column(roles.label), roles.label)
        notes += tuple(f"{name}: {remark}" for remark in remarks)
    if roles.split:
        columns["split"], remarks = clean_labels(_text_of(table.column(roles.split), roles.split), roles.split)
        notes += tuple(f"{name}: {remark}" for remark in remarks)
    notes += tuple(f"{name}: {remark}" for remark in type_notes(table.schema, roles.metadata))
    columns |= {name: plain_column(table.column(name), name) for name in roles.metadata}
    if roles.boxes:
        if PICTURE in columns:
            raise SourceError(
                f"column name {PICTURE!r} of {name!r} is reserved for the images of boxes: rename the column"
            )
        column = list_of_boxes(roles.boxes)
        columns[PICTURE] = payloads.ids if roles.id is not None and column is None else ids
        columns |= {column: table.column(column)} if column else {}
    listing = _with_ids(pa.table(columns), roles, payloads, name, shard.location, notes)
    if not roles.boxes:
        return listing
    return with_boxes(listing, roles.boxes, roles.margin, roles.id is not None, table.schema)


def _with_ids(
    listed: pa.Table, roles: ColumnRoles, payloads: Payloads, name: str, root: str, notes: tuple[str, ...]
) -> Listing:
    """Return the listing of the rows that have an id; the others are failures."""
    ids = listed.column("id")
    if not ids.null_count:
        return Listing(listed, root, payloads.read, skipped=roles.left_out, notes=notes)
    kept, lost = np.flatnonzero(ids.is_valid()), np.flatnonzero(ids.is_null())
    reason = SourceError(f"column {roles.id or roles.payload!r} must hold an id, and is empty")
    failures = tuple(
        Failure.of(f"row {row + 1} of {name}", payloads.uris[int(row)].as_py(), reason, "list") for row in lost
    )
    kept_rows = listed.take(pa.array(kept))
    return Listing(kept_rows, root, Selected(payloads.read, kept), failures, roles.left_out, notes)


def list_in_memory(table: pa.Table, options: SourceOptions, modality: Modality, access: Access) -> Listing:
    """List the rows of a table in memory. Paths are relative to the working folder."""
    if options.header is not None:
        raise SourceError(
            f"{option('header')} is for CSV and TSV files, and the columns of a table in memory have names"
        )
    name = "the table"
    refuse_doubled_names(table.schema, name)
    roles = find_column_roles(table.schema, options, name, modality)
    column = table.column(roles.payload)
    payloads = texts(column, roles.payload) if modality == "text" else images(column, str(Path.cwd()), access, name)
    return list_rows(table, roles, payloads, name, Shard(ROOT))


def _text_of(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    column = column if pa.types.is_integer(column.type) else plain_column(column, name)
    return column.cast(pa.string())


def images(column: pa.ChunkedArray, folder: str, access: Access, name: str) -> Payloads:
    """Images as paths or in the cells of a table in memory."""
    if is_string(value_type(column.type)):
        return image_paths(plain_column(column, name), folder, access, name)
    return cells(column, len(column), Cells(column, folder, "image", access))


def image_paths(paths: pa.ChunkedArray, folder: str, access: Access, name: str) -> Payloads:
    """Images as paths in a table."""

    def size_and_time_of(uri: str | None) -> tuple[int | None, int | None]:
        return size_and_time(uri) if uri else (None, None)

    uris = in_chunks(paths, lambda path: _joined(folder, path), pa.string())
    refuse_foreign(uris, access, name)
    stats = in_chunks(uris, size_and_time_of, pa.struct([("0", pa.int64()), ("1", pa.int64())]))
    reader = Files(uris, "image", access)
    return Payloads(paths, uris, pc.struct_field(stats, "0"), pc.struct_field(stats, "1"), reader, in_cells=False)


def cells(
    column: pa.ChunkedArray | None,
    count: int,
    read: Reader,
    uris: pa.ChunkedArray | None = None,
    times: pa.ChunkedArray | None = None,
) -> Payloads:
    """Images or texts in the cells of a table, or of files of these times. Paths in structs of ``column`` are ids."""
    unknown = constant(None, count, pa.int64())
    uris = constant(None, count, pa.string()) if uris is None else uris
    return Payloads(_cell_ids(column, count), uris, unknown, unknown if times is None else times, read)


def texts(column: pa.ChunkedArray, name: str, uris: pa.ChunkedArray | None = None, time: int | None = None) -> Payloads:
    """Texts in the cells of a table in memory, or of a file of that time that was read whole."""
    count = len(column)
    if is_string(value_type(column.type)):
        column = plain_column(column, name)
    unknown = constant(None, count, pa.int64())
    return Payloads(
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
