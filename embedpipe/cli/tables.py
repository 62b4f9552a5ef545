"""The tables that the command line writes: CSV, in which no spreadsheet runs a formula, and Parquet."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.atomic import whole_file
from embedpipe.errors import UsageError

TABLE_SUFFIXES = (".csv", ".parquet")
#: Text that spreadsheets run as a formula (OWASP, CSV injection), and text that is a number.
FORMULA = r"^[=+\-@\t\r\n\x{FF1D}\x{FF0B}\x{FF0D}\x{FF20}]."
NUMBER = r"^[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?$"


def check_table_name(to: Path, suffixes: tuple[str, ...] = TABLE_SUFFIXES) -> None:
    """Raise UsageError for a name with an unknown suffix, or one that cannot be a file."""
    if to.suffix.lower() not in suffixes:
        raise UsageError(f"the name of the table must end in {' or '.join(suffixes)}, got {str(to)!r}")
    if to.is_dir() or any(parent.is_file() for parent in to.absolute().parents):
        raise UsageError(f"{str(to)!r} must not be a folder, nor lie below a file")


def write_table(table: pa.Table, to: Path) -> None:
    """Write a table atomically, in the format of its suffix. Parquet holds the values as they are.

    In CSV, text that a spreadsheet would run as a formula gets an apostrophe in front, and standard error says how
    often. Numbers stay numbers.
    """
    from pyarrow import csv, parquet

    if to.suffix.lower() != ".csv":
        with whole_file(to) as part:
            parquet.write_table(table, part)
        return
    table, count = without_formulas(table)
    with whole_file(to) as part:
        csv.write_csv(table, part)
    if count:
        print(
            f"embedpipe: {to}: {count:,} cells that a spreadsheet would run as formulas got ' in front; for the values "
            "as they are, write a .parquet file",
            file=sys.stderr,
        )


def without_formulas(table: pa.Table) -> tuple[pa.Table, int]:
    """Return a table with an apostrophe before text that spreadsheets take for formulas, and how many cells changed."""
    columns, count = [], 0
    for name in table.column_names:
        column = table.column(name)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = column.cast(pa.string())
            runs = pc.match_substring_regex(column, FORMULA)
            runs = pc.fill_null(pc.and_not(runs, pc.match_substring_regex(column, NUMBER)), False)
            count += pc.sum(runs).as_py() or 0
            column = pc.if_else(runs, pc.binary_join_element_wise("'", column, ""), column)
        columns.append(column)
    names = pa.array(table.column_names, pa.string())
    bad = pc.match_substring_regex(names, FORMULA)
    renamed = pc.if_else(bad, pc.binary_join_element_wise("'", names, ""), names).to_pylist()
    return pa.table(columns, names=renamed), count + (pc.sum(bad).as_py() or 0)
