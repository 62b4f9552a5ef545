"""Tables as files: CSV, TSV and .xlsx, in which no cell is a formula; Parquet and JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.atomic import whole_file
from embedpipe._utils.folder_kinds import check_file
from embedpipe._utils.messages.json_values import without_nan
from embedpipe.errors import UsageError
from embedpipe.sources.file_types import FORMULA_SIGNS

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".xlsx")
PAGE_SUFFIXES = (".html", ".htm")
#: Those whose cells a spreadsheet program reads.
SPREADSHEETS = {".csv": ",", ".tsv": "\t", ".xlsx": ""}
#: Text that spreadsheets run as a formula, and text that is a number.
FORMULA = rf"(?s)^[{FORMULA_SIGNS}]."
NUMBER = r"^[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?$"
#: By this mark, spreadsheet programs know that a file is UTF-8.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
#: Rows that are converted at once.
BATCH = 10_000


def is_page(to: str | Path) -> bool:
    """Return whether a result is written as a page and not as a table; raise what `check_table` raises."""
    is_one = Path(to).suffix.lower() in PAGE_SUFFIXES
    check_table(to, PAGE_SUFFIXES if is_one else (PAGE_SUFFIXES[0], *TABLE_SUFFIXES))
    return is_one


def check_table(to: str | Path, suffixes: Sequence[str] = TABLE_SUFFIXES) -> Path:
    """Return the path of a table to write.

    Raises UsageError for an unknown suffix, what `check_file` raises, and MissingExtraError for ``.xlsx`` without
    openpyxl.
    """
    to = Path(to)
    suffix = to.suffix.lower()
    if suffix not in suffixes:
        *first, last = suffixes
        known = f"{', '.join(first)} or {last}" if first else last
        raise UsageError(f"the name of the table must end in {known}, got {str(to)!r}")
    check_file(to)
    if suffix == ".xlsx":
        from embedpipe.report import workbook

        workbook.require_openpyxl()
    return to


def write_table(table: pa.Table, to: str | Path) -> list[str]:
    """Write a table atomically, in the format of its suffix.

    Parquet and JSON lines hold the values as they are; JSON has null for numbers that are not finite. In ``.csv``,
    ``.tsv`` and ``.xlsx``, text that a spreadsheet program would run as a formula gets an apostrophe in front, numbers
    stay numbers, and lists are JSON. CSV and TSV are UTF-8, with a byte order mark if they have other characters than
    those of ASCII, without which spreadsheet programs show them wrong. Times are text but in Parquet.

    Parameters
    ----------
    table : pyarrow.Table
    to : str or path-like
        The file, whose name ends in ``.csv``, ``.tsv``, ``.parquet``, ``.jsonl`` or ``.xlsx``; it is replaced.

    Returns
    -------
    list of str
        Remarks for people: the number of cells that were changed.

    Raises
    ------
    UsageError
        If the name has another suffix, or cannot be that of a file.
    MissingExtraError
        If the name ends in ``.xlsx``, and openpyxl is not installed.
    WriteError
        If the file cannot be written.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from embedpipe.report import write_table
    >>> write_table(pa.table({"id": ["a.jpg", "=cmd"], "confidence": [0.9, 0.6]}), "predictions.csv")
    ["1 cell that a spreadsheet would run as a formula got ' in front; .parquet and .jsonl hold the values as they are"]
    """
    to = check_table(to)
    suffix, notes = to.suffix.lower(), []
    if suffix in SPREADSHEETS:
        table, count = without_formulas(_flat(table))
        if count:
            words = (
                "cell that a spreadsheet would run as a formula"
                if count == 1
                else "cells that a spreadsheet would run as formulas"
            )
            notes.append(f"{count:,} {words} got ' in front; .parquet and .jsonl hold the values as they are")
    with whole_file(to) as part:
        if suffix == ".parquet":
            from pyarrow import parquet

            parquet.write_table(table, part)
        elif suffix == ".jsonl":
            _write_json_lines(table, part)
        elif suffix == ".xlsx":
            from embedpipe.report import workbook

            notes += workbook.write_workbook(table, part)
        else:
            _write_csv(table, part, SPREADSHEETS[suffix])
    return notes


def without_formulas(table: pa.Table) -> tuple[pa.Table, int]:
    """Return a table with an apostrophe before text that spreadsheets take for formulas, and how many cells changed."""
    columns, count = [], 0
    for column in table.columns:
        if pa.types.is_string(column.type):
            runs = pc.match_substring_regex(column, FORMULA)
            runs = pc.fill_null(pc.and_not(runs, pc.match_substring_regex(column, NUMBER)), False)
            count += pc.sum(runs).as_py() or 0
            column = pc.if_else(runs, pc.binary_join_element_wise("'", column, ""), column)
        columns.append(column)
    names = pa.array(table.column_names, pa.string())
    bad = pc.match_substring_regex(names, FORMULA)
    renamed = pc.if_else(bad, pc.binary_join_element_wise("'", names, ""), names).to_pylist()
    return pa.table(columns, names=renamed), count + (pc.sum(bad).as_py() or 0)


def _flat(table: pa.Table) -> pa.Table:
    """Return a table with one number or text in each cell: lists and structs are JSON, bytes are hexadecimal."""
    return pa.table([_flat_column(column) for column in table.columns], names=table.column_names)


def _flat_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _flat_column(column.cast(kind.value_type))
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    if pa.types.is_nested(kind):
        return pa.chunked_array(
            [[None if value is None else as_json(value) for value in column.to_pylist()]], pa.string()
        )
    if any(test(kind) for test in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)):
        return pa.chunked_array([[None if value is None else value.hex() for value in column.to_pylist()]], pa.string())
    return column


def as_json(value: Any) -> str:
    """Return a value as JSON on one line: null for numbers that are not finite, text for what JSON has no word for."""
    return json.dumps(without_nan(value), ensure_ascii=False, default=str)


def _write_csv(table: pa.Table, to: Path, delimiter: str) -> None:
    from pyarrow import csv

    with to.open("wb") as file:
        if not _is_ascii(table):
            file.write(BYTE_ORDER_MARK)
        csv.write_csv(table, file, csv.WriteOptions(delimiter=delimiter))


def _is_ascii(table: pa.Table) -> bool:
    texts: Iterable[Any] = (column for column in table.columns if pa.types.is_string(column.type))
    return all(name.isascii() for name in table.column_names) and all(
        pc.all(pc.string_is_ascii(column)).as_py() is not False for column in texts
    )


def _write_json_lines(table: pa.Table, to: Path) -> None:
    # Python has no times after the year 9999.
    columns = [column.cast(pa.string()) if pa.types.is_temporal(column.type) else column for column in table.columns]
    table = pa.table(columns, names=table.column_names)
    with to.open("w", encoding="utf-8", newline="\n") as file:
        for batch in table.to_batches(BATCH):
            file.writelines(f"{as_json(row)}\n" for row in batch.to_pylist())
