"""Labels and splits as tables give them: without spaces around them, and missing where they are empty."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.messages.counting import counted
from embedpipe.errors import SourceError
from embedpipe.sources.column_types import is_list
from embedpipe.sources.columns.conversion import plain_column
from embedpipe.sources.listing import in_chunks

#: What separates several labels of an item in a store; alone it is an item without labels.
SEPARATOR = ";"

#: Distinct labels up to which letter case is compared. More are names of items rather than classes.
_MOST_CLASSES = 10_000


def clean_labels(column: pa.ChunkedArray, name: str) -> tuple[pa.ChunkedArray, list[str]]:
    """Return a column of labels or splits, and remarks on what was changed or may be a mistake.

    Text loses the spaces around it, and text that is empty then is null, in every kind of table. Lists of labels become
    text (`joined_labels`). Other types are returned as they are.
    """
    if is_list(column.type):
        joined = in_chunks(column, lambda labels: joined_labels(labels, name), pa.string())
        return joined, [f"lists of column {name!r} are stored as text with {SEPARATOR!r} between labels"]
    column = plain_column(column, name)
    if column.type != pa.string():
        return column, []
    trimmed = pc.utf8_trim_whitespace(column)
    spaces = pc.sum(pc.not_equal(trimmed, column)).as_py() or 0
    empty = pc.sum(pc.equal(trimmed, "")).as_py() or 0
    remarks = [f"spaces around {counted(spaces, 'value')} of column {name!r} are removed"] if spaces else []
    if empty:
        remarks.append(f"read as missing: {counted(empty, 'empty value')} of column {name!r}")
        trimmed = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)
    if pair := _differ_in_case(trimmed):
        remarks.append(f"{pair[0]!r} and {pair[1]!r} of column {name!r} differ in letter case only, and are kept apart")
    return (trimmed if spaces or empty else column), remarks


def with_clean_labels(table: pa.Table, name: str) -> tuple[pa.Table, list[str]]:
    """Return a table with one of its columns as `clean_labels` returns it, and the remarks; or without that column."""
    if name not in table.column_names:
        return table, []
    column, remarks = clean_labels(table.column(name), name)
    return table.set_column(table.column_names.index(name), name, column), remarks


def joined_labels(labels: Iterable[Any] | None, name: str) -> str | None:
    """Return several labels of an item as text such as ``red;round``; ``;`` for no labels, and None for None.

    Raises SourceError for a label with a semicolon. ``name`` is the column.
    """
    if labels is None:
        return None
    names = dict.fromkeys(str(label).strip() for label in labels if label is not None)
    for label in names:
        if SEPARATOR in label:
            raise SourceError(
                f"a label in a list must not hold {SEPARATOR!r}, which separates labels in a store, and column "
                f"{name!r} has {label!r}: rename the label"
            )
    return SEPARATOR.join(filter(None, names)) or SEPARATOR


def _differ_in_case(column: pa.ChunkedArray) -> tuple[str, str] | None:
    classes = pc.drop_null(pc.unique(column))
    if len(classes) > _MOST_CLASSES or pc.count_distinct(pc.utf8_lower(classes)).as_py() == len(classes):
        return None
    known: dict[str, str] = {}
    for label in classes.to_pylist():
        if (other := known.setdefault(label.lower(), label)) != label:
            return other, label
    return None
