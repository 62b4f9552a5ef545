"""Labels that are set on the page: written to the store at once, refused where somebody else was first."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from embedpipe.errors import UsageError
from embedpipe.report.tables import without_formulas
from embedpipe.serving.viewing.collection import Collection, as_json_value
from embedpipe.store import FeatureStore
from embedpipe.store.editing.labelling import from_text, read_marks, set_column, write_column
from embedpipe.store.schema import BY_HAND, EXCLUDED


class Edit(NamedTuple):
    """A new value of a row, and the one that the editor saw; None for none."""

    row: int
    value: str | None
    was: str | None


def write_values(store: FeatureStore, collection: Collection, column: str, edits: Sequence[Edit]) -> int:
    """Write labels, or why rows are excluded, into a store, all or none, and take them over into a collection.

    The rows are marked as set by hand, so that the next `embed` keeps them. Returns the version of the store.

    Raises
    ------
    ConcurrentWriteError
        A row has another label by now than the one that its editor saw.
    UsageError
        A row occurs twice, or a label does not fit the column.
    """
    ids = collection.table.column("id").take(pa.array([edit.row for edit in edits], pa.int64()))
    known = column in collection.table.column_names
    kind = collection.table.schema.field(column).type if known else pa.string()
    try:
        held = collection.table.column(column) if known else None
        seen = [edit.was if held is None else _seen(held[edit.row].as_py(), edit.was) for edit in edits]
        value, was = (from_text(pa.array(each, pa.string()), kind) for each in ([edit.value for edit in edits], seen))
    except ValueError as error:  # that of Arrow too
        raise UsageError(f"a label must fit column {column!r}, which holds {kind}: {error}") from error
    current = store.version == collection.version
    write = write_column if column == EXCLUDED else set_column
    write(store.table, pa.table({"id": ids, "value": value, "was": was}), "id", "value", column, "was")
    rows = np.array([edit.row for edit in edits])
    before = collection.table.column(column).combine_chunks() if known else pa.nulls(len(collection), kind)
    place = np.full(len(collection), -1)
    place[rows] = np.arange(len(rows))
    given = value.take(pa.array(place, mask=place < 0))
    collection.add_columns({column: pc.if_else(pa.array(place >= 0), given, before)})
    if current:  # what others have written meanwhile is taken over when the page is opened again
        collection.version = store.version
    return store.version


def _seen(held: Any, was: str | None) -> str | None:
    """Return the label that an editor saw: pages show � for control characters, and cut what is long."""
    return held if isinstance(held, str) and as_json_value(held) == was else was


def labels_csv(store: FeatureStore, column: str) -> bytes:
    """Return the labels that were set by hand as a CSV file of ids and labels, which `embedpipe label` reads."""
    names = [name for name in ("id", column, BY_HAND) if name in store.data_columns]
    rows = store.to_arrow(names)
    marks = read_marks(rows.column(BY_HAND)) if BY_HAND in names else {}
    chosen = marks[column][0] if column in marks else np.zeros(len(rows), bool)
    labels = rows.filter(pa.array(chosen)).select([name for name in names if name != BY_HAND])
    file = io.BytesIO()
    csv.write_csv(without_formulas(labels)[0], file)
    return file.getvalue()
