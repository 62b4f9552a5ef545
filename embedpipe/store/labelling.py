"""Labels and other columns that are set from a table, without embedding again."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.errors import UsageError, suggest
from embedpipe.store.keyed_table import Change, KeyedTable
from embedpipe.store.schema import refuse_column_name


def set_column(table: KeyedTable, values: pa.Table, id: str, column: str, into: str) -> Change:
    """Write a column of ``values`` into the column ``into`` of the rows with the same ids, in one commit.

    Parameters
    ----------
    table : KeyedTable
    values : pyarrow.Table
        One row an item. Rows with unknown ids are left out.
    id, column : str
        Columns of ``values``: the ids, and the values to write.
    into : str
        Column of ``table``, added if it is new.

    Raises
    ------
    UsageError
        A column is missing, an id occurs twice, no id is in the table, or ``into`` is reserved.
    """
    for name in (id, column):
        if name not in values.column_names:
            raise UsageError(f"the table has no column {name!r}{suggest(name, values.column_names)}")
    refuse_column_name(into, table.schema)
    keys = values.column(id).cast(pa.string()).combine_chunks()
    if len(pc.unique(keys)) != len(keys):
        raise UsageError(f"ids in column {id!r} must be unique: give each item one row")
    if len(keys) and not table.rows(keys, ["id"]).num_rows:
        known = f"whose ids are like {_first_id(table)!r}" if len(table) else "which is empty"
        raise UsageError(f"none of the {len(keys)} ids, such as {keys[0].as_py()!r}, is in {table.path!r}, {known}")
    return table.set_values(keys, into, values.column(column).combine_chunks())


def _first_id(table: KeyedTable) -> str:
    return min(file.first for file in table.files)
