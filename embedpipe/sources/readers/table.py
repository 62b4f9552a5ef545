"""Listing of a table whose rows are images or texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedpipe._utils.option_names import option
from embedpipe.errors import SourceError
from embedpipe.sources.access.roots import access_of, access_of_memory
from embedpipe.sources.column_roles import find_column_roles, verbatim_columns
from embedpipe.sources.column_types import has_field, is_string, value_type
from embedpipe.sources.columns.conversion import plain_column
from embedpipe.sources.columns.frames import arrow_table
from embedpipe.sources.file_types import suffix_of
from embedpipe.sources.listing import Listing, constant
from embedpipe.sources.locations import modified, open_file, split_location
from embedpipe.sources.options import Modality, SourceOptions
from embedpipe.sources.tables.cell_uris import cell_uris, table_cell_uris
from embedpipe.sources.tables.cells import ArrowCells
from embedpipe.sources.tables.parquet_cells import ParquetCells
from embedpipe.sources.tables.rows import cells, image_paths, images, join_listings, list_in_memory, list_rows, texts
from embedpipe.sources.tables.shards import Shard
from embedpipe.sources.tables.table_files import load_table, refuse_doubled_names


def list_tables(root: str, shards: Sequence[Shard], options: SourceOptions, modality: Modality) -> Listing:
    """List the rows of several tables as one source, named ``root``.

    Ids that are numbers of rows get the name of the file before them.

    Raises
    ------
    SourceError
        A file cannot be read, or the types of a column differ.
    """
    return join_listings([list_table(shard, options, modality) for shard in shards], root)


def list_table(shard: Shard, options: SourceOptions, modality: Modality) -> Listing:
    """List the rows of a CSV, TSV, Parquet, Arrow or JSON-lines file.

    Paths are relative to the folder of the file. Images and texts in a Parquet file are read on demand. Numbers of
    classes become their names where the file has them, as those of Hugging Face do. Columns without a role become
    metadata, except binary columns, nested columns and durations, which are counted in `Listing.skipped`. A row without
    an id is a failure, numbered from 1. A row without an image or text is listed, and fails when it is read.

    Raises
    ------
    SourceError
        The file cannot be read, a column is missing, or a column name is reserved for the store.
    """
    location = shard.location
    folder, name = split_location(location)
    access = access_of(folder, options.allow_root)
    time = modified(location)  # taken before reading, so that a later change is noticed
    if suffix_of(name) == ".parquet":
        return _list_parquet(shard, options, modality, time)
    table, notes = load_table(location, text=verbatim_columns(options, modality), names=options.header)
    roles = find_column_roles(table.schema, options, name, modality)
    column = table.column(roles.payload)
    uris = table_cell_uris(roles.payload, len(column), location, options.header)
    times = constant(time, len(column), pa.int64())
    if modality == "text":
        payloads = texts(column, roles.payload, uris, time)
    elif suffix_of(name) == ".arrow" and not is_string(value_type(column.type)):
        payloads = cells(column, len(column), ArrowCells(location, roles.payload, time, access), uris, times)
    else:
        payloads = images(column, folder, access, name)
    return list_rows(table, roles, payloads, name, shard, notes)


def _list_parquet(shard: Shard, options: SourceOptions, modality: Modality, time: int | None) -> Listing:
    location = shard.location
    folder, name = split_location(location)
    access = access_of(folder, options.allow_root)
    if options.header is not None:
        raise SourceError(f"{option('header')} is for CSV and TSV files, and the columns of {name!r} have names")
    try:
        with open_file(location) as file:
            schema = pq.ParquetFile(file).schema_arrow
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise SourceError(f"cannot read the table {location!r}: {error}") from error
    refuse_doubled_names(schema, name)
    roles = find_column_roles(schema, options, name, modality)
    wanted = roles.beside_payload
    type = schema.field(roles.payload).type
    if modality == "image" and is_string(type):
        table = load_table(location, [*wanted, roles.payload]).table
        payloads = image_paths(plain_column(table.column(roles.payload), roles.payload), folder, access, name)
    else:
        has_paths = modality == "image" and has_field(type, "path")
        table = load_table(location, [*wanted, f"{roles.payload}.path"] if has_paths else wanted).table
        count = table.num_rows
        payloads = cells(
            table.column(roles.payload) if has_paths else None,
            count,
            ParquetCells(location, roles.payload, modality, time, access),
            cell_uris(roles.payload, count, location),
            constant(time, count, pa.int64()),
        )
    return list_rows(table, roles, payloads, name, shard)


def list_frame(frame: Any, options: SourceOptions, modality: Modality) -> Listing:
    """List the rows of a pyarrow table, pandas or polars frame, or another object with an Arrow stream.

    Paths are relative to the working folder. Everything else is as in `list_table`.
    """
    return list_in_memory(arrow_table(frame), options, modality, access_of_memory(options.allow_root))
