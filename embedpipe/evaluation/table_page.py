"""A page around a `PaperTable`: that of a protocol, or of several datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from embedpipe._utils.version import __version__
from embedpipe.evaluation.paper_table import PaperTable
from embedpipe.report.page import check_page, write_page

#: Heading, names of the columns, and rows as text.
Section = tuple[str, list[str], list[list[str]]]


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
        "texts": [name[:1].upper() + name[1:] for name in table.names],
        "heads": [
            (column.heading(), "" if column.rows is None else f"n = {column.rows:,}") for column in table.columns
        ],
        "body": [(texts, [_shown(table, i, numbers) for i in range(len(numbers))]) for texts, numbers in table.rows],
        "remarks": table.remarks,
        "sections": sections,
        "links": links,
        "version": __version__,
        "now": datetime.now().astimezone(),
    }
    return write_page("table.html", variables, check_page(path))


def as_text(value: Any, *, share: bool = False) -> str:
    """Return a value as text: shares in percent, other fractions with four digits, lists without brackets."""
    if isinstance(value, float):
        return f"{100 * value:.1f}" if share else f"{value:.4g}"
    return ", ".join(as_text(item, share=share) for item in value) if isinstance(value, list | tuple) else str(value)


def is_share(name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a detail of a protocol is a share: fractions are, but for the hyperparameter C."""
    values = (row[name] for row in rows if name in row)
    return name != "C" and any(
        isinstance(each[0] if isinstance(each, list) and each else each, float) for each in values
    )


def _shown(table: PaperTable, i: int, cells: Sequence[Any]) -> _Shown:
    if (cell := cells[i]) is None:
        return _Shown("—")
    value, *ends = table.columns[i].numbers(cell)
    return _Shown(value, " to ".join(ends), cell.bold)
