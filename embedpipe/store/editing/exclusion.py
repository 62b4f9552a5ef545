"""Rows that are excluded: marked in one column of the store, kept there, and left out wherever rows are used."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.messages.counting import counted
from embedpipe.errors import UsageError, suggest
from embedpipe.store.delta_log import Change
from embedpipe.store.editing.labelling import write_column
from embedpipe.store.keyed_table import KeyedTable
from embedpipe.store.scan import has_label
from embedpipe.store.schema import EXCLUDED

#: Why rows are left out, as heads and evaluations record it.
LEFT_OUT = "marked as excluded"
#: Values that give no reason, as spreadsheets and pandas write them: the row is used, or excluded by hand.
USED = ("", "no", "n", "false", "f", "0", "0.0", "none", "null", "nan", "na", "n/a", "-")
NO_REASON = ("yes", "y", "true", "t", "1", "1.0", "x")
BY_HAND_REASON = "by hand"


def used_rows(table: KeyedTable, columns: Sequence[str]) -> tuple[pa.Table, int]:
    """Return columns of the rows that are not excluded, in id order, and the number of those that are.

    Raises UsageError if all are.
    """
    if EXCLUDED not in table.schema.names:
        return table.read(columns), 0
    rows = table.read([*dict.fromkeys([*columns, EXCLUDED])])
    used = rows.filter(pc.is_null(rows.column(EXCLUDED)))
    require_some_used(table, used.num_rows)
    return used.select([*columns]), rows.num_rows - used.num_rows


def require_some_used(table: KeyedTable, used: int) -> None:
    """Raise UsageError if no row is used, and the store has rows."""
    if not used and (count := sum(file.rows for file in table.files)):
        raise UsageError(
            f"all {count:,} rows of {table.path!r} are {LEFT_OUT}: use some again, by `embedpipe label` and a table "
            f"whose column {EXCLUDED!r} is empty there"
        )


def and_excluded(excluded: int) -> str:
    """Return how many excluded rows there are besides, for a message on too few rows; empty without any."""
    return f", and {excluded:,} {LEFT_OUT}" if excluded else ""


def left_out_notes(excluded: int, store: str | None = None) -> list[str]:
    """Return the note that counts excluded rows, of one of several stores if it is named; empty without any."""
    of_store = "" if store is None else f" of {store!r}"
    return [f"left out{of_store}: {counted(excluded, 'row')} {LEFT_OUT}"] if excluded else []


def choose_rows(rows: pa.Table, label: str | None, split: str | None, path: str) -> pa.Table:
    """Return the rows of a split that have a label and are not excluded, and warn of those that are left out.

    Raises UsageError if no row is of the split.
    """
    if split is not None:
        names = rows.column("split").cast(pa.string())
        splits = pc.unique(names.drop_null()).to_pylist()
        if split not in splits:
            raise UsageError(f"{path!r} has no split {split!r}{suggest(str(split), splits)}")
        rows = rows.filter(pc.equal(names, split))
    for name, kept, words in ((label, has_label, f"have no {label!r}"), (EXCLUDED, pc.is_null, "are excluded")):
        if name in rows.column_names:
            chosen = rows.filter(pa.array(np.asarray(kept(rows.column(name)), bool)))
            if missing := rows.num_rows - chosen.num_rows:
                warnings.warn(f"{missing} of {rows.num_rows} rows {words} and are left out", stacklevel=3)
            rows = chosen
    return rows


def excluded_rows(table: KeyedTable) -> npt.NDArray[np.int64]:
    """Return the positions in id order of the rows that are excluded."""
    if EXCLUDED not in table.schema.names:
        return np.empty(0, np.int64)
    return np.flatnonzero(np.asarray(pc.is_valid(table.read([EXCLUDED]).column(0)), bool))


def set_excluded(table: KeyedTable, reasons: pa.Table, id: str, reason: str) -> Change:
    """Exclude the rows for which a table gives a reason, and use those again for which it gives none.

    The rows are marked as set by hand, so that the next `embed` leaves them excluded.

    Parameters
    ----------
    table : KeyedTable
    reasons : pyarrow.Table
        One row an item. Rows with unknown ids are left out.
    id, reason : str
        Columns of ``reasons``: the ids, and the reasons as `as_reasons` reads them.

    Raises
    ------
    UsageError
        A column is missing, an id occurs twice, no id is in the table, or values are no reasons.
    """
    if reason not in reasons.column_names:
        raise UsageError(f"the table has no column {reason!r}{suggest(reason, reasons.column_names)}")
    at = reasons.column_names.index(reason)
    values = reasons.set_column(at, reason, as_reasons(reasons.column(reason), reason))
    return write_column(table, values, id, reason, EXCLUDED)


def as_reasons(column: pa.ChunkedArray, name: str) -> pa.Array:
    """Return why each row is excluded, null for rows that are used.

    Texts are the reasons. `NO_REASON` excludes a row without a reason of its own; `USED` and nothing use it. Raises
    UsageError for other numbers and values of other types.
    """
    values = column.to_pylist()
    others = [value for value in values if not (value is None or value != value or isinstance(value, str))]
    if wrong := [value for value in others if isinstance(value, bytes) or value not in (0, 1)]:
        raise UsageError(f"column {name!r} must hold reasons as text, or 1 and 0, got {wrong[0]!r}")
    texts = [None if value is None else str(value).strip() for value in values]
    reasons = [
        None if text is None or text.lower() in USED else BY_HAND_REASON if text.lower() in NO_REASON else text
        for text in texts
    ]
    return pa.array(reasons)  # of nulls only it has no type, and adds no column
