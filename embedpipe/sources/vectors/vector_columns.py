"""Which columns of a table hold the vectors."""

from __future__ import annotations

import re
from collections import defaultdict

import pyarrow as pa

from embedpipe._utils.option_names import option
from embedpipe.errors import SourceError, nearest
from embedpipe.sources.column_types import is_list, is_string

#: Names of columns of CSV files whose cells are vectors, such as ``[0.1, 0.2]``.
CELL_NAMES = ("embedding", "embeddings", "vector", "vectors")


def is_vector(type: pa.DataType) -> bool:
    """Return whether a column holds lists of numbers."""
    return is_list(type) and _is_number(type.value_type)


def find_vector_columns(schema: pa.Schema, name: str, vector: str | None, in_cells: bool = False) -> list[str]:
    """Return the column of lists, or the columns with one number each, in the order of the values.

    Parameters
    ----------
    schema : pyarrow.Schema
    name : str
        Of the table, for messages.
    vector : str, optional
        The column, or the beginning of the names of the columns.
    in_cells : bool
        Whether vectors may be texts in cells, as in CSV files.

    Raises
    ------
    SourceError
        There is none, or there are several.
    """
    lists = [field.name for field in schema if is_vector(field.type)]
    if in_cells:
        lists = [f.name for f in schema if is_string(f.type) and f.name in (vector, *CELL_NAMES)]
    numbered = _numbered(schema)
    if vector is not None:
        if vector in lists:
            return [vector]
        if vector in numbered:
            return numbered[vector]
        known = [*lists, *numbered]
        raise SourceError(
            f"{name} has no column of lists of numbers {vector!r}, and no columns {vector}0, {vector}1, ... "
            f"({option('vector', ...)}){nearest(vector, known) or '.'} Available: {known or 'none'}"
        )
    found = [[column] for column in lists] or list(numbered.values())
    if len(found) == 1:
        return found[0]
    if not found:
        raise SourceError(
            f"{name} must have a column of lists of numbers, or columns such as 0, 1, 2 or v0, v1, v2 with one number "
            f"each, and has {schema.names[:20]}: name them ({option('vector', 'COLUMN')})"
        )
    names = [columns[0] for columns in found]
    raise SourceError(
        f"{name} has several columns that may hold the vectors, {names}: name one ({option('vector', ...)})"
    )


def _numbered(schema: pa.Schema) -> dict[str, list[str]]:
    """Return by the beginning of their names the columns of numbers whose names end in 0 to n, or 1 to n."""
    groups: dict[str, dict[int, str]] = defaultdict(dict)
    for field in schema:
        match = re.fullmatch(r"(.*?)(0|[1-9][0-9]*)", field.name)
        if match and _is_number(field.type):
            groups[match[1]][int(match[2])] = field.name
    return {
        start: [columns[number] for number in sorted(columns)]
        for start, columns in groups.items()
        if len(columns) > 1 and max(columns) - min(columns) + 1 == len(columns) and min(columns) in (0, 1)
    }


def _is_number(type: pa.DataType) -> bool:
    return bool(pa.types.is_floating(type) or pa.types.is_integer(type))
