"""The ids, labels, splits and metadata of imported vectors, as the table of a listing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.option_names import option
from embedpipe.errors import DuplicateIdError, SourceError, nearest
from embedpipe.sources.column_roles import find_column_roles
from embedpipe.sources.columns.conversion import plain_column, type_notes
from embedpipe.sources.columns.ids import id_texts
from embedpipe.sources.columns.labels import clean_labels
from embedpipe.sources.file_types import TABLE_SUFFIXES, suffix_of
from embedpipe.sources.listing import SCHEMA
from embedpipe.sources.options import SourceOptions
from embedpipe.sources.tables.table_files import load_table
from embedpipe.sources.vectors.npy_files import read_npy
from embedpipe.sources.vectors.vector_source import VectorSource

Columns = dict[str, pa.ChunkedArray]

#: Suffixes of files with one id or label for each vector.
FILES_OF_VALUES = (".npy", ".txt", *TABLE_SUFFIXES)


class VectorRows(NamedTuple):
    """The table of a listing (see `embedpipe.sources.listing.COLUMNS`), what was left out, and notes for the user."""

    table: pa.Table
    notes: tuple[str, ...]


def list_vectors(
    source: VectorSource,
    ids: Any = None,
    labels: Any = None,
    split: str | None = None,
    names: tuple[str, str] = ("ids", "labels"),
) -> VectorRows:
    """Return the rows of vectors.

    Parameters
    ----------
    source : VectorSource
    ids, labels : str, path-like or sequence, optional
        A column of the table; a file with one row for each vector, in their order: a table, ``.npy`` or a ``.txt`` of
        lines; or a value for each vector. Default: the columns ``id`` and ``label`` of the table. Of a table of ids,
        the other columns are taken too.
    split : str, optional
        The column of splits. Default: ``split``.
    names : tuple of str, default: ('ids', 'labels')
        What the verb calls its options of ids and labels, for messages.

    Raises
    ------
    DuplicateIdError
        An id occurs twice.
    SourceError
        An id is missing or empty, or there is another number of them.
    """
    columns: Columns = dict(source.columns)
    notes = list(source.notes)
    id_column = _choose(columns, source, ids, "id", names[0], notes)
    if id_column is None:
        raise SourceError(
            f"vectors need ids, and {source.name} has no column 'id': give one for each "
            f"({option(names[0], ...)}), as a file or as the name of a column. Columns: {list(columns) or 'none'}"
        )
    columns[id_column] = _checked_ids(columns[id_column], id_column, source)
    label_column = _choose(columns, source, labels, "label", names[1], notes)
    table = pa.table(columns)
    options = SourceOptions(image=id_column, id=id_column, label=label_column, split=split)
    roles = find_column_roles(table.schema, options, source.name, "image")
    listed: Columns = {field.name: pa.chunked_array([pa.nulls(source.count, field.type)]) for field in SCHEMA}
    listed["id"] = table.column(id_column)
    for role, column in (("label", roles.label), ("split", roles.split)):
        if column:
            values = table.column(column)
            values = plain_column(values, column).cast(pa.string()) if role == "split" else values
            listed[role], remarks = clean_labels(values, column)
            notes += remarks
    notes += [f"{name} is left out" for name in roles.left_out]
    notes += type_notes(table.schema, roles.metadata)
    listed |= {name: plain_column(table.column(name), name) for name in roles.metadata}
    return VectorRows(pa.table(listed), tuple(notes))


def _choose(
    columns: Columns, source: VectorSource, given: Any, role: str, parameter: str, notes: list[str]
) -> str | None:
    """Return the column of a role, which is added to the columns if it is given as values or in a file."""
    if given is None:
        return role if role in columns else next((name for name in columns if name.strip().lower() == role), None)
    if isinstance(given, str) and given in columns:
        return given
    if isinstance(given, str | os.PathLike):
        added = _read(given, columns, role, parameter, notes)
    else:
        added = {role: _as_column(given, parameter)}
    for name, column in added.items():
        if len(column) != source.count:
            raise SourceError(
                f"there must be one value for each vector, and {option(parameter, ...)} has {len(column):,} for the "
                f"{source.count:,} vectors of {source.name}"
            )
        if role == "label" and name == "id" and "id" in columns:
            _refuse_other_order(column, columns["id"])
    for name, column in added.items():
        if name == role or name not in columns:
            columns[name] = column
    return role


def _read(
    path: str | os.PathLike[str], columns: Mapping[str, Any], role: str, parameter: str, notes: list[str]
) -> Columns:
    """Read the file of a role: the column of that name or the only one, and of ids all others."""
    name = os.fspath(path)
    suffix = suffix_of(name)
    if suffix not in FILES_OF_VALUES:
        raise SourceError(
            f"{option(parameter, name)} must be a column of the table or a file with a suffix in "
            f"{', '.join(FILES_OF_VALUES)}{nearest(name, list(columns)) or '.'} "
            f"Columns: {list(columns) or 'none'}"
        )
    try:
        if suffix == ".npy":
            return {role: _as_column(read_npy(name), parameter)}
        if suffix == ".txt":
            with Path(name).open(encoding="utf-8-sig") as file:
                # str.splitlines knows more ends of lines, such as U+2028.
                lines = [line.removesuffix("\n") for line in file]
            return {role: pa.chunked_array([pa.array(lines, pa.string())])}
    except (OSError, ValueError, EOFError) as error:
        raise SourceError(f"cannot read {option(parameter, name)}: {error}") from error
    table, remarks = load_table(name, text=("id",) if role == "id" else ("id", role))
    notes += remarks
    found = dict(zip(table.column_names, table.columns, strict=True))
    if len(found) == 1:
        return {role: table.column(0)}
    if role not in found:
        raise SourceError(
            f"{name!r} must have a column {role!r} or one column only, and has {table.column_names}: "
            f"rename the column with the {role}s to {role!r}"
        )
    return found if role == "id" else {each: found[each] for each in ("id", role) if each in found}


def _as_column(values: Any, parameter: str) -> pa.ChunkedArray:
    try:
        if isinstance(values, pa.ChunkedArray | pa.Array):
            array = values
        else:  # not a list by NumPy, which makes text of NaN, and of numbers among texts
            plain = values.to_numpy() if hasattr(values, "to_numpy") else values
            array = pa.array(plain if isinstance(plain, list | tuple) else np.asarray(plain), from_pandas=True)
        return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise SourceError(f"{option(parameter)} must have one text or number for each vector: {error}") from error


def _refuse_other_order(given: pa.ChunkedArray, ids: pa.ChunkedArray) -> None:
    """Raise SourceError if a file of labels names other items than the vectors, or in another order."""
    given = id_texts(given, "id")
    if not given.equals(ids):
        row = int(np.argmin(np.asarray(pc.fill_null(pc.equal(given, ids), False))))
        raise SourceError(
            f"labels must be in the order of the vectors, and row {row + 1} is of {given[row].as_py()!r}, the vector "
            f"of {ids[row].as_py()!r}: sort the file, or import without labels and use `embedpipe label`"
        )


def _checked_ids(column: pa.ChunkedArray, name: str, source: VectorSource) -> pa.ChunkedArray:
    """Return ids as texts. Raises an error, naming the rows, for empty ones and for one that occurs twice."""
    ids = column if pa.types.is_integer(column.type) else plain_column(column, name)
    if not pa.types.is_integer(ids.type) and ids.type != pa.string():
        raise SourceError(f"ids must be texts or integers, and column {name!r} holds {ids.type}")
    ids = pa.chunked_array([ids.cast(pa.string()).combine_chunks()])
    empty = np.flatnonzero(np.asarray(pc.fill_null(pc.equal(ids, ""), True)))
    if len(empty):
        raise SourceError(f"every vector must have an id, and that of row {empty[0] + 1} of {source.name} is empty")
    if pc.all(pc.less(ids[:-1], ids[1:])).as_py() is not False or len(ids.unique()) == len(ids):
        return ids
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(pc.struct_field(counts, "counts"), 1))
    first = pc.struct_field(twice, "values")[0]
    rows = np.flatnonzero(np.asarray(pc.equal(ids, first)))
    raise DuplicateIdError(
        f"ids must be unique, and {source.name} has {len(twice):,} more than once, such as {first.as_py()!r} in rows "
        f"{rows[0] + 1} and {rows[1] + 1}: leave one of them out"
    )
