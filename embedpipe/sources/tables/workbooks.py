"""Reading the table of an ``.xlsx`` workbook, by openpyxl: of formulas the values that they had; nothing runs."""

from __future__ import annotations

import datetime
import io
import re
import warnings
import zipfile
from typing import Any

import pyarrow as pa

from embedpipe._utils.importing import import_extra
from embedpipe.errors import MissingExtraError, SourceError
from embedpipe.sources.column_roles import refuse_wide

#: Most bytes that a workbook may unpack to, and most rows of a sheet.
MAX_BYTES, MAX_ROWS = 1 << 30, 1 << 20
#: Most bytes that one of a large workbook may unpack to, and what any workbook may. Sheets have 5 to 30.
MAX_RATIO, FREE_BYTES = 100, 1 << 25

#: A cell with a formula and no value, and its place. An empty text, of the type "str", is a value.
FORMULA = re.compile(
    rb"<(?:\w+:)?c [^>]*>\s*<(?:\w+:)?f\b(?:[^>]*/>|[^>]*>[^<]*</(?:\w+:)?f>)\s*"
    rb"(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v></(?:\w+:)?v>)?\s*</(?:\w+:)?c>"
)
CELL = re.compile(rb'\br="([A-Z]+[0-9]+)"')


def read_workbook(data: bytes) -> tuple[pa.Table, list[str]]:
    """Read the first sheet, and those after it with the same header, as a table of text.

    Returns
    -------
    table : pyarrow.Table
        Numbers and dates are written as text, as in a CSV file; empty cells are null, and empty rows are left out.
    notes : list of str
        The sheets that were not read.

    Raises
    ------
    MissingExtraError
        If openpyxl is not installed.
    SourceError
        If the bytes are not a workbook, or are too many once unpacked.
    """
    try:
        openpyxl = import_extra("openpyxl", "xlsx")
    except MissingExtraError as error:
        raise MissingExtraError(f"a workbook: {error}") from error
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(part.file_size for part in archive.infolist())
        if size > (limit := min(MAX_BYTES, max(FREE_BYTES, MAX_RATIO * len(data)))):
            raise SourceError(
                f"a workbook of this size must unpack to at most {limit:,} bytes, got {size:,}: write a .csv"
            )
        _refuse_unknown_values(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles and other parts that hold no values
            book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
            sheets = [(sheet.title, _rows(sheet)) for sheet in book.worksheets]
        book.close()
    except (SourceError, MemoryError):
        raise
    except Exception as error:  # damaged files raise anything
        raise SourceError(f"it is not a workbook that openpyxl reads ({type(error).__name__}: {error})") from error
    if not sheets or not sheets[0][1]:
        raise SourceError("its first sheet must have a header and rows, and is empty")
    header = _header(sheets[0][1][0])
    rows, others = [], []
    for title, (first, *rest) in ((title, found or [[]]) for title, found in sheets):
        if _header(first) == header:
            rows += rest
        else:
            others.append(title)
    if long := next((row for row in rows if len(row) > len(header)), None):
        raise SourceError(f"rows must have at most {len(header)} cells, as the header, got {len(long)}: {long[:3]}...")
    columns = [[row[i] if i < len(row) else None for row in rows] for i in range(len(header))]
    table = pa.table([pa.array(column, pa.string()) for column in columns], names=header)
    return table, [f"sheets with another header than the first were not read: {', '.join(others)}"] * bool(others)


def _refuse_unknown_values(data: bytes) -> None:
    """Raise SourceError for formulas without a value: programs that do not calculate leave it to others."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            if not name.startswith("xl/worksheets/"):
                continue
            unknown = [cell for cell in FORMULA.finditer(archive.read(name)) if b't="str"' not in cell[0]]
            if unknown:
                cells = [at[1].decode() for cell in unknown[:5] if (at := CELL.search(cell[0]))]
                more = f" and {len(unknown) - 5:,} more" if len(unknown) > 5 else ""
                raise SourceError(
                    f"formulas must have the values that they gave, and those in {', '.join(cells)}{more} have none: "
                    "open the workbook in a spreadsheet program and save it"
                )


def _rows(sheet: Any) -> list[list[str | None]]:
    """Return the rows that are not empty, without empty cells at their ends."""
    sheet.reset_dimensions()  # a file may declare any size
    rows = []
    for number, cells in enumerate(sheet.iter_rows(values_only=True), 1):
        if number > MAX_ROWS:
            raise SourceError(f"a sheet must have at most {MAX_ROWS:,} rows")
        row = [_as_text(cell) for cell in cells]
        while row and row[-1] is None:
            row.pop()
        if row:
            rows.append(row)
    return rows


def _header(row: Any) -> list[str]:
    refuse_wide(len(row), "the file")
    return [f"column {number}" if name is None else name for number, name in enumerate(row, 1)]


def _as_text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ") if value.time() != datetime.time() else value.date().isoformat()
    return str(value)
