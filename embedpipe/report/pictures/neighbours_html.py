"""Items with pictures as small HTML tables, for notebooks: queries and their neighbours, and mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import pyarrow as pa

from embedpipe.report.pictures.thumbnails import jpeg_data_url, read_small

MAX_QUERIES, MAX_NEIGHBOURS = 12, 5
#: Items of a gallery, and of one of its rows.
MAX_ITEMS, PER_ROW = 20, 5
#: Longest side of a picture in pixels, and its JPEG quality.
SIDE, QUALITY = 96, 75
#: Characters of a text, a name or a label that are shown.
TEXT_LENGTH, NAME_LENGTH = 160, 40
STYLE = "text-align:center;vertical-align:top"


def neighbours_html(table: pa.Table, title: str) -> str:
    """Return a table with one row per query: the query, then its nearest neighbours with score and label.

    At most 12 queries and 5 neighbours of each are shown. A picture is a JPEG inside the HTML; one that cannot be
    read is named instead. Of a text, the beginning is shown.

    Parameters
    ----------
    table : pyarrow.Table
        As `embedpipe.querying.Neighbours` holds it.
    title : str
        The caption.
    """
    queries, total = _first_queries(table)
    shown = [(row, neighbours[:MAX_NEIGHBOURS]) for row, neighbours in queries]
    uris = [row["query_uri"] for row, _ in shown if not row.get("query_text")]
    uris += [row["uri"] for _, neighbours in shown for row in neighbours if not row.get("text")]
    pictures = read_small({uri for uri in uris if uri}, SIDE)
    sources = {uri: jpeg_data_url(picture, QUALITY) for uri, picture in pictures.items()}
    body = ""
    for row, neighbours in shown:
        text = row.get("query_text") or ("" if row["query_uri"] else row["query"])
        cells = [_cell(sources, text, row["query_uri"], row["query"], row.get("query_label"))]
        cells += [
            _cell(sources, each.get("text"), each["uri"], each["id"], each.get("label"), _score(each))
            for each in neighbours
        ]
        if not neighbours:
            cells.append(f"<td>{_shortened(row['error'] or 'no neighbours', TEXT_LENGTH)}</td>")
        body += f"<tr>{''.join(cells)}</tr>"
    more = f"<tr><td>and {total - len(shown):,} more queries</td></tr>" if total > len(shown) else ""
    head = (
        f'<tr><th>query</th><th colspan="{MAX_NEIGHBOURS}" style="text-align:left">neighbours, nearest first</th></tr>'
    )
    return f"<table><caption>{escape(title)}</caption>{head}{body}{more}</table>"


def gallery_html(items: Sequence[tuple[str, str | None, str]], total: int, title: str) -> str:
    """Return a table of pictures, each with what is said of its item and the item's id below.

    Parameters
    ----------
    items : sequence of (id, uri, remark)
        At most 20 are shown. A picture is a JPEG inside the HTML; one that cannot be read is named instead.
    total : int
        Number of items of which these are the first.
    title : str
        The caption.
    """
    items = items[:MAX_ITEMS]
    pictures = read_small({uri for _, uri, _ in items if uri}, SIDE)
    sources = {uri: jpeg_data_url(picture, QUALITY) for uri, picture in pictures.items()}
    cells = [_cell(sources, None, uri, id, remark) for id, uri, remark in items]
    rows = [f"<tr>{''.join(cells[start : start + PER_ROW])}</tr>" for start in range(0, len(cells), PER_ROW)]
    more = f"<tr><td>and {total - len(items):,} more</td></tr>" if total > len(items) else ""
    return f"<table><caption>{escape(title)}</caption>{''.join(rows)}{more}</table>"


def _first_queries(table: pa.Table) -> tuple[list[tuple[dict[str, Any], list[dict[str, Any]]]], int]:
    """Return the first queries with their neighbours, and how many queries there are."""
    ranks = table["rank"].to_pylist()
    starts = [row for row, rank in enumerate(ranks) if rank is None or rank == 1]
    end = starts[MAX_QUERIES] if len(starts) > MAX_QUERIES else len(ranks)
    queries: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    for row in table.slice(0, end).to_pylist():
        if row["rank"] is None or row["rank"] == 1:
            queries.append((row, []))
        if row["rank"] is not None:
            queries[-1][1].append(row)
    queries.sort(key=lambda each: not each[1])  # those without neighbours last
    return queries, len(starts)


def _cell(sources: Mapping[str, str], text: Any, uri: str | None, name: str, label: Any, score: str = "") -> str:
    alt = _shortened(name, NAME_LENGTH)
    if text:
        content = _shortened(text, TEXT_LENGTH)
    elif uri is None:
        content = "<em>no picture</em>"
    else:
        content = f'<img src="{sources[uri]}" alt="{alt}">' if uri in sources else "<em>cannot be read</em>"
    has_label = label is not None and label == label  # and is not NaN
    below = [score, _shortened(label, NAME_LENGTH) if has_label else "", "" if text == name else alt]
    lines = "".join(f"<br>{line}" for line in below if line)
    return f'<td style="{STYLE}">{content}{lines}</td>'


def _score(row: Mapping[str, Any]) -> str:
    alike = row.get("near_duplicates")
    return f"{row['score']:.3f}" + (f" +{alike:,} alike" if alike else "")


def _shortened(value: Any, length: int) -> str:
    """Return the beginning of a value on one line, escaped for HTML."""
    line = " ".join(str(value).split())
    return escape(line if len(line) <= length else line[: length - 1] + "…")
