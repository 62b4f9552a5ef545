"""The tables that the command line writes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from embedpipe._utils.option_names import option
from embedpipe.cli.running.plain_text import escaped
from embedpipe.errors import UsageError
from embedpipe.report import tables
from embedpipe.report.tables import PAGE_SUFFIXES, TABLE_SUFFIXES
from embedpipe.report.tables import check_table as check_table

#: For the help of options that name a table.
FORMATS = ".csv, .tsv, .parquet, .jsonl or .xlsx"


def new_file(name: str) -> Path:
    """Return the name of a file that nobody named. Raises UsageError if the file exists: it is not overwritten."""
    if Path(name).exists():
        raise UsageError(f"{name} exists and is overwritten only if it is named: give --to {name}, or another name")
    return Path(name)


def check_table_beside_page(to: Path, suffixes: Sequence[str] = TABLE_SUFFIXES) -> None:
    """Check the path of a table as `check_table` does; if it is that of a page, the error names the option for it."""
    try:
        check_table(to, suffixes)
    except UsageError as error:
        if to.suffix.lower() not in PAGE_SUFFIXES:
            raise
        raise UsageError(f"{error}. A page: {option('page', str(to))}") from error


def write_table(table: pa.Table, to: Path) -> None:
    """Write a table in the format of its suffix, and say on standard error which cells were changed."""
    print_notes(to, tables.write_table(table, to))


def print_notes(to: Path, notes: Sequence[str]) -> None:
    """Print remarks on a written file on standard error."""
    for note in notes:
        print(f"embedpipe: {escaped(str(to))}: {note}", file=sys.stderr)
