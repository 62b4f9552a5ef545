"""A table as an ``.xlsx`` workbook, by openpyxl."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.importing import import_extra
from embedpipe._utils.messages.counting import counted
from embedpipe.report.links import link_to

#: Most rows of a sheet, below its header, and most characters of a cell.
MAX_ROWS, MAX_CHARACTERS = 1_048_575, 32_767
#: The column whose cells are linked to the files that they name, and most links of a sheet.
LINKED, MAX_LINKS = "uri", 65_000
#: Most characters of a link.
MAX_LINK = 2_000
#: Integers beyond it lose digits in a workbook.
LARGEST_INTEGER = 2**53
#: Characters that a column is wide, at least and at most.
NARROW, WIDE = 8, 60
BATCH = 10_000
#: Characters that XML cannot hold.
NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
#: Rows from which the widths of columns are taken.
SAMPLE = 200


def require_openpyxl() -> None:
    """Raise MissingExtraError, naming the extra, if openpyxl is not installed."""
    import_extra("openpyxl", "xlsx")


def write_workbook(table: pa.Table, to: Path) -> list[str]:
    """Write a table of numbers and texts, with a header that stays in view; return remarks for people.

    A table of more rows than a sheet has goes on in the next sheet.
    """
    openpyxl = import_extra("openpyxl", "xlsx")
    notes = []
    table, cut = _shortened(table)
    if cut:
        notes.append(
            f"{counted(cut, 'cell')} cut at {MAX_CHARACTERS:,} characters, the most that a cell of .xlsx holds"
        )
    book = openpyxl.Workbook(write_only=True)
    for first in range(0, max(1, table.num_rows), MAX_ROWS):
        rows = table.slice(first, MAX_ROWS)
        sheet = book.create_sheet(f"rows {first + 1}" if table.num_rows > MAX_ROWS else "table")
        sheet.freeze_panes = "A2"
        for position, width in enumerate(_widths(rows), 1):
            sheet.column_dimensions[openpyxl.utils.get_column_letter(position)].width = width
        sheet.append([_bold(openpyxl, sheet, name) for name in rows.column_names])
        links = {i for i, name in enumerate(rows.column_names) if name == LINKED}
        for number, row in enumerate(_rows(rows)):
            cells = [_cell(openpyxl, sheet, value) for value in row]
            for i in links if number < MAX_LINKS else ():
                cells[i] = _linked(openpyxl, sheet, row[i])
            sheet.append(cells)
    book.save(to)
    return notes


def _shortened(table: pa.Table) -> tuple[pa.Table, int]:
    """Return a table whose texts fit into cells, and how many were cut."""
    columns, count = [], 0
    for column in table.columns:
        if pa.types.is_temporal(column.type):
            column = column.cast(pa.string())
        if pa.types.is_string(column.type):
            count += pc.sum(pc.greater(pc.utf8_length(column), MAX_CHARACTERS)).as_py() or 0
            column = pc.utf8_slice_codeunits(column, 0, MAX_CHARACTERS)
        columns.append(column)
    return pa.table(columns, names=table.column_names), count


def _widths(table: pa.Table) -> list[int]:
    """Return the width of each column in characters, from its first rows."""
    columns = table.slice(0, SAMPLE).to_pydict().items()
    lengths = [
        max(len(str(text)) if type(text) is not float else NARROW for text in (name, *values))
        for name, values in columns
    ]
    return [min(max(length + 2, NARROW), WIDE) for length in lengths]


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    for batch in table.to_batches(BATCH):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _bold(openpyxl: Any, sheet: Any, name: str) -> Any:
    cell = _text(openpyxl, sheet, name)
    cell.font = openpyxl.styles.Font(bold=True)
    return cell


def _cell(openpyxl: Any, sheet: Any, value: Any) -> Any:
    if isinstance(value, str):
        return _text(openpyxl, sheet, value) if value[:1] in ("#", "=") or not value.isprintable() else value
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return str(value)
    return str(value) if isinstance(value, int) and abs(value) > LARGEST_INTEGER else value


def _linked(openpyxl: Any, sheet: Any, uri: Any) -> Any:
    """Return a cell with a link to the file of an item, where it is a local one or on the web."""
    link = link_to(uri) if isinstance(uri, str) else ""
    if not link or len(link) > MAX_LINK:
        return _cell(openpyxl, sheet, uri)
    cell = _text(openpyxl, sheet, uri)
    cell.hyperlink = link
    cell.font = openpyxl.styles.Font(color="0563C1", underline="single")
    return cell


def _text(openpyxl: Any, sheet: Any, text: str) -> Any:
    """Return a cell that is a text, whatever it looks like; characters that XML cannot hold are escaped."""
    escaped = NOT_XML.sub(lambda match: repr(match[0])[1:-1], text)
    cell = openpyxl.cell.WriteOnlyCell(sheet, escaped)
    cell.data_type = "s"
    return cell
