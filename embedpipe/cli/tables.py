"""Result tables as CSV or Parquet files, written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embedpipe._utils.atomic import whole_file
from embedpipe.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".parquet")


def check_table_name(to: Path, suffixes: tuple[str, ...] = SUFFIXES) -> None:
    """Raise UsageError for a name that is of no known kind."""
    if to.suffix.lower() not in suffixes:
        raise UsageError(f"{str(to)!r}: the table's name must end in {' or '.join(suffixes)}")
    if to.is_dir() or any(parent.is_file() for parent in to.absolute().parents):
        raise UsageError(f"{str(to)!r}: a folder is where the file should be, or a file where its folder should be")


def write_table(table: pa.Table, to: Path) -> None:
    """Write a table in the format that the name says."""
    from pyarrow import csv, parquet

    with whole_file(to) as part:
        (csv.write_csv if to.suffix.lower() == ".csv" else parquet.write_table)(table, part)
