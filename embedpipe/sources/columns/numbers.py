"""Columns of CSV and TSV files whose values are numbers and are written as numbers are printed."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.messages.counting import counted

#: What R, pandas and databases write for a missing number. In a column of text, they are text.
MISSING = ("NA", "N/A", "n/a", "#N/A", "NaN", "nan", "-nan", "NULL", "null", "None", "<NA>")

#: Columns that a remark names, as a table may have hundreds.
_MOST_NAMED = 8


class _Column(NamedTuple):
    """A column of numbers and the words that were read as missing; or the value for which it stays text."""

    numbers: pa.ChunkedArray | None = None
    missing: tuple[str, int] | None = None
    text_for: str | None = None


def read_numbers(table: pa.Table, text: Collection[str], decimal_comma: bool = False) -> tuple[pa.Table, list[str]]:
    """Return a table of strings with columns of numbers as int64 or float64, and remarks on what was inferred.

    A column becomes numbers only if each of its values would be printed as it is written: ``001``, ``1.10``, ``1E5``,
    or an integer beyond 64 bits keep it text, and so do dates, times, ``true`` and ``yes``.

    Parameters
    ----------
    table : pyarrow.Table
        All columns are strings; empty cells are null.
    text : collection of str
        Columns that stay text.
    decimal_comma : bool
        Whether ``3,5`` is a number, as in files with semicolons.
    """
    found: list[str] = []
    commas: list[str] = []
    kept: list[str] = []
    remarks: list[str] = []
    lower = {name.lower() for name in text}
    for i, name in enumerate(table.column_names):
        if name.lower() in lower:
            continue
        column = _numbers(table.column(i))
        if decimal_comma and column == _Column():
            column = _numbers(_with_points(table.column(i)))
            commas += [name] if column.numbers is not None else []
        if column.text_for is not None:
            kept.append(f"{name!r} ({column.text_for!r})")
        if column.numbers is None:
            continue
        table = table.set_column(i, name, column.numbers)
        found.append(repr(name))
        if column.missing is not None:
            word, count = column.missing
            remarks.append(f"read as missing: {counted(count, 'value')} of column {name!r}, such as {word!r}")
    if found:
        remarks.insert(0, f"read as numbers: {_listed(found)}")
    if commas:
        remarks.append(f"commas are read as decimal signs: {_listed(list(map(repr, commas)))}")
    if kept:
        remarks.append(f"numbers that would not be printed as they are written stay text: {_listed(kept)}")
    return table, remarks


def _numbers(column: pa.ChunkedArray) -> _Column:
    first = next((value for value in column.slice(0, 100).to_pylist() if value is not None), None)
    if first is not None and not _may_be_number(first):
        return _Column()  # a column of text is not scanned
    trimmed = pc.utf8_trim_whitespace(column)
    is_missing = pc.is_in(trimmed, value_set=pa.array(["", *MISSING]))
    values = pc.if_else(is_missing, pa.scalar(None, pa.string()), trimmed) if pc.any(is_missing).as_py() else trimmed
    if values.null_count == len(values):
        return _Column()
    try:
        floats = values.cast(pa.float64())
    except pa.ArrowInvalid:
        return _Column()
    if not pc.all(pc.is_finite(floats)).as_py():
        return _Column()
    numbers, text_for = _exact(values, floats)
    if numbers is None:
        return _Column(text_for=text_for)
    words = pc.drop_null(trimmed.filter(pc.and_(is_missing, pc.not_equal(trimmed, ""))))
    return _Column(numbers, (words[0].as_py(), len(words)) if len(words) else None)


def _exact(values: pa.ChunkedArray, floats: pa.ChunkedArray) -> tuple[pa.ChunkedArray | None, str | None]:
    """Return the values as numbers, or None and the first value that is printed in another way than it is written."""
    try:
        integers = values.cast(pa.int64())
    except pa.ArrowInvalid:  # decimals, or an integer beyond 64 bits
        integers = None
    if integers is not None:
        differs = pc.not_equal(integers.cast(pa.string()), values)
        other = values.filter(differs)
        return (None, other[0].as_py()) if len(other) else (integers, None)
    # Python prints 1.0 and 1e-05, Arrow 1 and 0.00001. All of these are numbers as programs write them.
    zeros = pc.ends_with(values, ".0")
    has_zeros = pc.any(zeros).as_py()
    written = pc.replace_substring_regex(values, r"\.0$", "") if has_zeros else values
    other = values.filter(pc.not_equal(floats.cast(pa.string()), written))
    for value in pc.unique(other).to_pylist():
        if repr(float(value)) != value:
            return None, value
    # One number must not be written in two ways, such as 1 and 1.0.
    twice = values.filter(pc.and_(pc.equal(pc.floor(floats), floats), pc.invert(zeros))) if has_zeros else other
    if len(twice) and pc.count_distinct(values).as_py() != pc.count_distinct(floats).as_py():
        return None, (values.filter(zeros) if has_zeros else twice)[0].as_py()
    return floats, None


def _may_be_number(text: str) -> bool:
    text = text.strip()
    return not text or text in MISSING or text[0] in "+-.0123456789"


def _with_points(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the decimal commas of a column as points, and any other value as it is."""
    return pc.replace_substring_regex(column, r"^(\s*-?\d+),(\d+\s*)$", r"\1.\2")


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
