"""HTML for notebooks: what `_repr_html_` of stores, heads and results returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_LONGEST_VALUE = 400


def html_table(title: str, rows: Mapping[str, object] | Sequence[tuple[str, object]]) -> str:
    """Render a title and key/value rows as a small HTML table.

    Parameters
    ----------
    title
        The caption, usually the class name.
    rows
        The rows in the order in which they are shown. Keys and values are converted by `str` and escaped.
        Values longer than 400 characters are shortened, so that a notebook stays small.

    Returns
    -------
    str
        One `<table>` element without scripts and styles, for `_repr_html_`.

    Examples
    --------
    >>> html_table("Head", {"layer": "<layer3>"})
    '<table><caption>Head</caption><tr><th>layer</th><td>&lt;layer3&gt;</td></tr></table>'
    """
    pairs = rows.items() if isinstance(rows, Mapping) else rows
    shown = ((escape(str(key)), escape(_shortened(str(value)))) for key, value in pairs)
    cells = "".join(f"<tr><th>{key}</th><td>{value}</td></tr>" for key, value in shown)
    return f"<table><caption>{escape(title)}</caption>{cells}</table>"


def count_list(counts: Mapping[str, int], most: int = 10) -> str:
    """Return counts as text, the first ``most`` of them: ``"cat: 4, dog: 3, and 7 more"``; "none" if empty."""
    shown = ", ".join(f"{name}: {count:,}" for name, count in list(counts.items())[:most]) or "none"
    return shown + (f", and {len(counts) - most:,} more" if len(counts) > most else "")


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def html_records(title: str, records: Sequence[Mapping[str, object]]) -> str:
    """Render records with equal keys as a small HTML table, one row for each record.

    Parameters
    ----------
    title
        The caption.
    records
        The rows in the order in which they are shown. The keys of the first record are the column names.
        Values are converted by `str` and escaped; values longer than 400 characters are shortened.

    Returns
    -------
    str
        One `<table>` element without scripts and styles, for `_repr_html_`.

    Examples
    --------
    >>> html_records("Heads", [{"name": "lda", "accuracy": 0.9}])
    '<table><caption>Heads</caption><tr><th>name</th><th>accuracy</th></tr><tr><td>lda</td><td>0.9</td></tr></table>'
    """
    names = list(records[0]) if records else []
    lines = ["".join(f"<th>{escape(str(name))}</th>" for name in names)]
    lines += ["".join(f"<td>{escape(_shortened(str(row[name])))}</td>" for name in names) for row in records]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><caption>{escape(title)}</caption>{body}</table>"
