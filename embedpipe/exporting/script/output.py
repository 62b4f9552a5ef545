"""The table that an exported script writes."""

from __future__ import annotations

import codecs
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from embedpipe._utils.messages.counting import counted

#: Text that spreadsheet programs run as a formula, and text that is a number.
FORMULA, NUMBER = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]."), re.compile(r"[+-]?[\d.,]+([eE][+-]?\d+)?$")


def require_writable(to: str | None) -> None:
    """End the script, before it predicts anything, if the table cannot be written."""
    if to is None:
        if sys.stdout is None:
            sys.exit("standard output is closed: name the table to write (--to FILE.csv)")
        return
    path = Path(to)
    if path.suffix.lower() != ".csv":
        sys.exit(f"the table is written as CSV, and its name must end in .csv, got {to!r}")
    if path.is_dir():
        sys.exit(f"cannot write {to}: it is a folder. Name a file")
    folder = path.absolute().parent
    if not folder.is_dir():
        sys.exit(f"cannot write {to}: the folder {folder} does not exist. Make it, or name another")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        sys.exit(f"cannot write {to}: {error}. Name another place")


def write_rows(rows: Iterable[dict[str, Any]], columns: Sequence[str], to: str | None) -> None:
    """Write the table as CSV to a file, or to standard output. Say how many cells might have been run as formulas."""
    table: list[list[Any]] = [[*columns], *([row.get(name) for name in columns] for row in rows)]
    text = "".join(",".join(map(_cell, values)) + "\n" for values in table)
    data = text.encode("utf-8", "backslashreplace")  # names of files may hold bytes that are no UTF-8
    if to is None:
        _print(data)
    else:
        _write(data, Path(to))
    if formulas := sum(_is_formula(value) for values in table for value in values):
        cells = counted(formulas, "cell that a spreadsheet would run", "cells that a spreadsheet would run")
        print(f"{cells} as a formula got ' in front", file=sys.stderr)


def _print(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    except OSError as error:
        # what is left in the buffer would fail once more at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # the reader, such as head, wants no more
            sys.exit(f"cannot write the table to standard output: {error}. Name a file to write (--to FILE.csv)")


def _write(data: bytes, path: Path) -> None:
    mark = b"" if data.isascii() else codecs.BOM_UTF8  # for spreadsheets
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(mark + data)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        sys.exit(f"cannot write {path}: {error}. Make room, or name another place, and run this again")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    text = f"'{value}" if _is_formula(value) else str(value)
    return '"' + text.replace('"', '""') + '"'


def _is_formula(value: Any) -> bool:
    return isinstance(value, str) and bool(FORMULA.match(value)) and not NUMBER.match(value)
