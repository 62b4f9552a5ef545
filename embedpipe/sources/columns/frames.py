"""Tables in memory as Arrow tables, with errors that name the column and the row."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from typing import Any

import pyarrow as pa

from embedpipe.errors import SourceError

_FAILURES = (pa.ArrowException, UnicodeError, OverflowError, TypeError, ValueError)


def arrow_table(frame: Any) -> pa.Table:
    """Return a pyarrow table, pandas or polars frame, or another object with an Arrow stream as a pyarrow table.

    Raises
    ------
    SourceError
        A column has no type of Arrow: mixed types, text with half of a surrogate pair, or objects.
    """
    # pandas keeps an index of evenly spaced integers as a range, which it does not hand over; a name makes it a column.
    if type(getattr(frame, "index", None)).__name__ == "RangeIndex" and frame.index.name not in (None, *frame.columns):
        frame = frame.reset_index()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pandas, on names of columns that are no text
            return pa.RecordBatchReader.from_stream(frame).read_all()
    except _FAILURES as error:
        if not hasattr(frame, "columns") or not hasattr(frame, "dtypes"):
            raise SourceError(f"the table cannot be read as an Arrow table: {error}") from error
    names = [str(name) for name in frame.columns]
    if doubled := [name for name, count in Counter(names).items() if count > 1]:
        raise SourceError(
            f"column names of the table must be unique, and {doubled[0]!r} occurs more than once: rename it"
        )
    return pa.table({name: _column(frame, i, name) for i, name in enumerate(names)})


def _column(frame: Any, position: int, name: str) -> Any:
    column = frame.iloc[:, position] if hasattr(frame, "iloc") else frame.to_series(position)
    try:
        return pa.array(column) if hasattr(frame, "iloc") else column.to_arrow()
    except _FAILURES as error:
        reason = error
    values = [os.fspath(value) if isinstance(value, os.PathLike) else value for value in column.to_list()]
    try:
        return pa.array(values, from_pandas=True)
    except _FAILURES:
        pass
    types: dict[str, int] = {}
    for row, value in enumerate(values):
        try:
            alone = pa.array([value], from_pandas=True)
        except UnicodeError:
            raise SourceError(
                f"column {name!r} must hold text, and row {row + 1} has half of a surrogate pair ({value!r:.60}), from "
                "wrong decoding or cutting: decode it again, or replace the character"
            ) from reason
        except _FAILURES as error:
            raise SourceError(
                f"column {name!r} must hold text, numbers or times, and row {row + 1} holds {value!r:.60} of type "
                f"{type(value).__name__}: convert the column, or leave it out"
            ) from error
        if not alone.null_count:
            types.setdefault(type(value).__name__, row)
    found = ", ".join(f"{kind} in row {row + 1}" for kind, row in list(types.items())[:3])
    raise SourceError(
        f"column {name!r} must hold values of one type, and holds {found or reason}: convert it, such as by astype(str)"
    ) from reason
