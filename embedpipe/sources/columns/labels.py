"""Labels and splits as tables give them: without spaces around them, and missing where they are empty."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.sources.columns.conversion import plain_column

#: Distinct labels up to which letter case is compared. More are names of items rather than classes.
_MOST_CLASSES = 10_000


def clean_labels(column: pa.ChunkedArray, name: str) -> tuple[pa.ChunkedArray, list[str]]:
    """Return a column of labels or splits, and remarks on what was changed or may be a mistake.

    Text loses the spaces around it, and text that is empty then is null, in every kind of table. Other types are
    returned as they are.
    """
    column = plain_column(column, name)
    if column.type != pa.string():
        return column, []
    trimmed = pc.utf8_trim_whitespace(column)
    spaces = pc.sum(pc.not_equal(trimmed, column)).as_py() or 0
    empty = pc.sum(pc.equal(trimmed, "")).as_py() or 0
    remarks = [f"spaces around {spaces:,} values of column {name!r} are removed"] if spaces else []
    if empty:
        remarks.append(f"{empty:,} empty values of column {name!r} are missing ones")
        trimmed = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)
    if pair := _differ_in_case(trimmed):
        remarks.append(f"{pair[0]!r} and {pair[1]!r} of column {name!r} differ in letter case only, and are kept apart")
    return (trimmed if spaces or empty else column), remarks


def _differ_in_case(column: pa.ChunkedArray) -> tuple[str, str] | None:
    classes = pc.drop_null(pc.unique(column))
    if len(classes) > _MOST_CLASSES or pc.count_distinct(pc.utf8_lower(classes)).as_py() == len(classes):
        return None
    known: dict[str, str] = {}
    for label in classes.to_pylist():
        if (other := known.setdefault(label.lower(), label)) != label:
            return other, label
    return None
