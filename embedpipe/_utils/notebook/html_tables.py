"""HTML for notebooks: what `_repr_html_` of stores, heads and results returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from html import escape
from typing import Any

#: The most that one table takes: a notebook saves every output in its file.
MAX_LENGTH = 12_000
#: Rows, and characters of a value, that are tried until a table is short enough.
_BOUNDS = ((20, 400), (20, 100), (10, 40), (5, 16))
_MAX_COLUMNS = 12
_LEFT = ' style="text-align:left"'  # notebooks align cells to the right, which suits numbers only


def html_table(title: str, rows: Mapping[str, object] | Sequence[tuple[str, object]]) -> str:
    """Render a title and key/value rows as a small HTML table.

    Parameters
    ----------
    title
        The caption, usually the class name.
    rows
        The rows in the order in which they are shown. Keys and values are converted by `str` and escaped.
        At most 20 are shown, and at most 400 characters of a value.

    Returns
    -------
    str
        One `<table>` element without scripts, of at most 12,000 characters, for `_repr_html_`.

    Examples
    --------
    >>> html_table("Head", {"layer": "<layer3>"})
    '<table><caption>Head</caption><tr><th>layer</th><td style="text-align:left">&lt;layer3&gt;</td></tr></table>'
    """
    pairs = list(rows.items() if isinstance(rows, Mapping) else rows)
    return _bounded(title, pairs, _pair)


def html_records(title: str, records: Sequence[Mapping[str, object]]) -> str:
    """Render records with equal keys as a small HTML table, one row for each record.

    Parameters
    ----------
    title
        The caption.
    records
        The rows in the order in which they are shown. The keys of the first record are the column names.
        Values are converted by `str` and escaped; floats have four digits, and None is empty. At most 20 rows and 12
        columns are shown, and at most 400 characters of a value.

    Returns
    -------
    str
        One `<table>` element without scripts, of at most 12,000 characters, for `_repr_html_`.

    Examples
    --------
    >>> html_records("Heads", [{"name": "lda", "accuracy": 0.9}])  # doctest: +NORMALIZE_WHITESPACE
    '<table><caption>Heads</caption><tr><th style="text-align:left">name</th><th>accuracy</th></tr><tr><td
    style="text-align:left">lda</td><td>0.9</td></tr></table>'
    """
    names = list(records[0])[:_MAX_COLUMNS] if records else []
    rows = [[record[name] for name in names] for record in records]
    return _bounded(title, rows, partial(_line, "td"), names)


def count_list(counts: Mapping[str, int], most: int = 10) -> str:
    """Return counts as text, the first ``most`` of them: ``"cat: 4, dog: 3, and 7 more"``; "none" if empty."""
    shown = ", ".join(f"{name}: {count:,}" for name, count in list(counts.items())[:most]) or "none"
    return shown + (f", and {len(counts) - most:,} more" if len(counts) > most else "")


def _bounded(title: str, rows: Sequence[Any], cells: Callable[[Any, int], str], names: Sequence[str] = ()) -> str:
    """Render rows by ``cells(row, longest)`` under ``names``, within the first bounds that suffice."""
    html = ""
    for most, longest in _BOUNDS:
        lines = [_line("th", names, longest)] if names else []
        lines += [cells(row, longest) for row in rows[:most]]
        if len(rows) > most:
            lines.append(f"<td{_LEFT}>and {len(rows) - most:,} more</td>")
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        html = f"<table><caption>{_shortened(title, longest)}</caption>{body}</table>"
        if len(html) <= MAX_LENGTH:
            break
    return html


def _pair(pair: tuple[object, object], longest: int) -> str:
    key, value = pair
    return f"<th>{_shortened(key, longest)}</th><td{_LEFT}>{_shortened(value, longest)}</td>"


def _line(tag: str, values: Sequence[object], longest: int) -> str:
    """Return the cells of a row; only the first is text."""
    return "".join(f"<{tag}{'' if i else _LEFT}>{_shortened(value, longest)}</{tag}>" for i, value in enumerate(values))


def _shortened(value: object, longest: int) -> str:
    """Return the beginning of a value, escaped."""
    text = "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return escape(visible(text if len(text) <= longest else text[: longest - 1] + "…"))


def visible(text: str) -> str:
    """Return a text with � instead of control characters and surrogates, which HTML does not allow."""
    if text.isprintable():  # almost every text, and far faster than letter by letter
        return text
    return "".join(letter if letter.isprintable() or letter in "\n\t \u200d\xa0" else "\ufffd" for letter in text)
