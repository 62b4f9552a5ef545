"""Atomic writes of result tables as CSV or Parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embedpipe._utils.atomic import whole_file
from embedpipe.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".parquet")


def check_table_name(to: Path, suffixes: tuple[str, ...] = SUFFIXES) -> None:
    """Raise UsageError for a name with an unknown suffix, or one that cannot be a file."""
    if to.suffix.lower() not in suffixes:
        raise UsageError(f"the name of the table must end in {' or '.join(suffixes)}, got {str(to)!r}")
    if to.is_dir() or any(parent.is_file() for parent in to.absolute().parents):
        raise UsageError(f"{str(to)!r} must not be a folder, nor lie below a file")


def write_table(table: pa.Table, to: Path) -> None:
    """Write a table in the format of its suffix."""
    from pyarrow import csv, parquet

    with whole_file(to) as part:
        (csv.write_csv if to.suffix.lower() == ".csv" else parquet.write_table)(table, part)
