"""A page around a `PaperTable`: that of a protocol, or of several datasets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from embedpipe._utils.version import __version__
from embedpipe.evaluation.paper_table import PaperTable
from embedpipe.report.drawing.wording import heading
from embedpipe.report.page import check_page, write_page


class Section(NamedTuple):
    """A table below the results: its heading, the names of its columns, and its rows as text."""

    heading: str
    columns: list[str]
    rows: list[list[str]]


class _Shown(NamedTuple):
    value: str
    interval: str = ""
    bold: bool = False


def write_table_page(
    table: PaperTable,
    path: str | Path,
    *,
    kicker: str,
    title: str,
    facts: Sequence[tuple[str, str]],
    notes: Sequence[str] = (),
    sections: Sequence[Section] = (),
    links: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write a table as one HTML page, which loads nothing from the network.

    Parameters
    ----------
    table : PaperTable
    path : str or path-like
        Ends in ``.html``.
    kicker, title : str
    facts : sequence of (str, str)
    notes : sequence of str
    sections : sequence of Section
        Tables below it.
    links : sequence of (str, str)
        Names and files of other pages in the same folder.
    """
    variables = {
        "kicker": kicker,
        "title": title,
        "facts": facts,
        "notes": notes,
        "texts": [heading(name) for name in table.names],
        "heads": [(column.title, "" if column.rows is None else f"n = {column.rows:,}") for column in table.columns],
        "body": [(texts, [_shown(table, i, numbers) for i in range(len(numbers))]) for texts, numbers in table.rows],
        "remarks": table.remarks,
        "sections": [section._replace(columns=[heading(name) for name in section.columns]) for section in sections],
        "links": links,
        "version": __version__,
        "now": datetime.now().astimezone(),
    }
    return write_page("table.html", variables, check_page(path))


def _shown(table: PaperTable, i: int, cells: Sequence[Any]) -> _Shown:
    if (cell := cells[i]) is None:
        return _Shown("—")
    value, interval = table.columns[i].shown(cell)
    return _Shown(value, interval, cell.bold)
