"""Queries and their neighbours as a PNG file: one row of pictures or texts per query, nearest first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageOps

from embedpipe.errors import UsageError, suggest
from embedpipe.report.drawing.canvas import DPI, FAINT, INK, PALE, Sheet, check_png, fit_text, text_width, wrap_text
from embedpipe.report.drawing.colours import PALETTE, Colour, colour_labels, label_text
from embedpipe.report.drawing.picture import Picture
from embedpipe.report.pictures.thumbnails import read_small

COLUMNS = ("query", "query_uri", "rank", "score", "id", "uri")
MAX_QUERIES = MAX_NEIGHBOURS = 12
#: Pixels of the outer margin, between pictures, between query and neighbours, above the rows, below a picture.
EDGE, GAP, APART, HEAD, CAPTION = 48, 14, 46, 158, 100
MIN_WIDTH = 860
TITLE, TEXT = 20, 9.5
#: Width of frames in pixels; the character for each marker of colours.py.
THICK, THIN = 5, 2
SIGNS = {"o": "●", "^": "▲"}
#: Line height of texts in pixels; that of a query without neighbours, and the most of them that are listed.
LINE, BROKEN_LINE, MAX_BROKEN = 17, 24, 8


class Look(NamedTuple):
    """Colour of a frame and the sign below it: what a reader sees of a neighbour's label."""

    colour: Colour
    sign: str


SAME, OTHER, UNKNOWN, QUERY = Look(PALETTE[0], "✓"), Look(PALETTE[1], "✗"), Look(PALE, ""), Look(INK, "")


class HasTable(Protocol):
    """An object with a table of neighbours, such as `embedpipe.querying.Neighbours`."""

    @property
    def table(self) -> pa.Table:
        """One row per neighbour."""


def draw_neighbours(neighbours: HasTable | pa.Table, to: str | Path, *, title: str = "") -> Picture:
    """Draw queries and their nearest neighbours as a PNG file.

    Each query has one row: the query at the left, then its neighbours from left to right with score, label and name. If
    the query has a label, the frame's colour and sign show whether the neighbour has the same label; else each label
    has its own colour. At most 12 queries and 12 neighbours of each are drawn. Of a text, the beginning is written. A
    picture that cannot be read is an empty frame. Queries without neighbours are listed at the end.

    Parameters
    ----------
    neighbours : Neighbours or pyarrow.Table
        What `embedpipe.search` returns, or a table with one row per neighbour, by query and rank. The table has the
        columns ``query`` (name), ``query_uri`` (null for a query without a picture), ``rank`` (from 1; null for a
        query without neighbours), ``score`` (cosine), ``id`` and ``uri``, and optionally ``query_label``,
        ``query_text``, ``label``, ``text``, ``near_duplicates`` (how many a neighbour stands for) and ``error`` (why a
        query has no neighbours).
    to : str or path-like
        The PNG file to write, atomically.
    title : str
        By default "Nearest neighbours".

    Returns
    -------
    Picture
        Shows itself in a notebook, and stands for its path: ``to``.

    Raises
    ------
    UsageError
        If ``to`` does not end in ``.png``, or the table has no neighbours or lacks a column.

    Examples
    --------
    >>> neighbours = embedpipe.search("photos.features", ["cat/00.jpg", "coffee/00.jpg"])
    >>> draw_neighbours(neighbours, "similar.png")
    Picture(path=PosixPath('similar.png'))
    """
    to = check_png(to, "a picture of neighbours")
    table = neighbours if isinstance(neighbours, pa.Table) else neighbours.table
    for column in COLUMNS:
        if column not in table.column_names:
            raise UsageError(f"the table of neighbours has no column {column!r}{suggest(column, table.column_names)}")
    if table["rank"].null_count == len(table):
        raise UsageError("the table of neighbours must have a row with a rank: no query has neighbours")

    rows, cut = _first_rows(table.filter(pc.is_valid(table["rank"])))
    broken = table.filter(pc.is_null(table["rank"]))
    most = max(len(tiles) for _, tiles in rows)
    side = min(190, max(112, 1500 // most - GAP))
    large = side + side // 5
    left = EDGE + large + APART
    room = max(left + most * (side + GAP) - GAP, MIN_WIDTH - EDGE) - left
    heights = [_heights(query, tiles, large, side) for query, tiles in rows]
    listed = min(len(broken), MAX_BROKEN + 1)
    height = HEAD + sum(max(pair) + CAPTION for pair in heights) + 20 + (listed + 2) * BROKEN_LINE * bool(listed)
    sheet = Sheet(left + room + EDGE, height)
    _draw_head(sheet, title or "Nearest neighbours", cut, left, {tile.look.sign for _, tiles in rows for tile in tiles})

    digits = _digits([tile.score for tile in tiles] for _, tiles in rows)
    shown = [tile for query, tiles in rows for tile in (query, *tiles)]
    pictures = read_small({tile.uri for tile in shown if tile.uri is not None and not tile.text}, 2 * large)
    bottom = HEAD
    for (query, tiles), (tall, short) in zip(rows, heights, strict=True):
        bottom += max(tall, short)
        _draw_tile(sheet, EDGE, bottom, (large, tall), query, pictures, THIN)
        _write_below(sheet, EDGE, bottom, large, "" if query.name == query.text else query.name, query)
        for j, tile in enumerate(tiles):
            x = left + j * (side + GAP)
            _draw_tile(sheet, x, bottom, (side, short), tile, pictures, THICK if tile.look.sign else THIN)
            _write_below(sheet, x, bottom, side, f"{tile.score:.{digits}f}{tile.alike}", tile)
        bottom += CAPTION
    _list_broken(sheet, bottom, broken)
    return sheet.save(to)


@dataclass(frozen=True)
class _Tile:
    """A query or a neighbour."""

    name: str
    uri: str | None
    label: str
    look: Look
    score: float = 1.0  # the query's cosine with itself
    text: str = ""
    alike: str = ""  # how many near-duplicates it stands for


def _first_rows(table: pa.Table) -> tuple[list[tuple[_Tile, list[_Tile]]], str]:
    """Return the queries to draw, and a note on how many are left out."""
    rank = table["rank"].to_numpy()
    code = pc.index_in(table["query"], pc.unique(table["query"])).to_numpy()
    starts = np.flatnonzero((rank == 1) | (np.diff(code, prepend=-1) != 0))
    end = starts[MAX_QUERIES] if len(starts) > MAX_QUERIES else len(table)
    rows = _tiles(table[:end].filter(pa.array(rank[:end] <= MAX_NEIGHBOURS)))
    cut = f"  ·  {len(rows)} of {len(starts):,} queries" if len(starts) > len(rows) else ""
    if (deepest := rank[:end].max()) > MAX_NEIGHBOURS:
        cut += f"  ·  first {MAX_NEIGHBOURS} of {deepest:,} neighbours"
    return rows, cut


def _heights(query: _Tile, tiles: list[_Tile], large: int, side: int) -> tuple[int, int]:
    """Return the heights of the query and of its neighbours: where all are texts, that of the longest."""
    if not all(tile.text for tile in (query, *tiles)):
        return large, side
    widths = [large, *[side] * len(tiles)]
    lines = max(len(_wrapped(tile.text, width, side)) for tile, width in zip((query, *tiles), widths, strict=True))
    height = min(side, lines * LINE + 24)
    return height, height


def _wrapped(text: str, width: int, height: int) -> list[str]:
    return wrap_text(text, width - 2 * THICK - 16, TEXT, (height - 22) // LINE)


def _list_broken(sheet: Sheet, top: float, broken: pa.Table) -> None:
    """Write the queries without neighbours, and the reasons."""
    if not len(broken):
        return
    sheet.write(EDGE, top + BROKEN_LINE / 2, "without neighbours", 11, FAINT, weight="bold")
    errors = broken["error"].to_pylist() if "error" in broken.column_names else [None] * len(broken)
    lines = [
        f"{name}: {error}" if error else name for name, error in zip(broken["query"].to_pylist(), errors, strict=True)
    ]
    if len(lines) > MAX_BROKEN:
        lines = [*lines[:MAX_BROKEN], f"and {len(lines) - MAX_BROKEN:,} more"]
    for i, line in enumerate(lines):
        sheet.write(
            EDGE, top + (i + 1.6) * BROKEN_LINE, fit_text(line, sheet.width - 2 * EDGE, TEXT, middle=True), TEXT
        )


def _tiles(neighbours: pa.Table) -> list[tuple[_Tile, list[_Tile]]]:
    """Return each query with its neighbours."""
    labels = neighbours["label"] if "label" in neighbours.column_names else None
    colouring = colour_labels(labels, len(neighbours))
    compared = "query_label" in neighbours.column_names and neighbours["query_label"].null_count < len(neighbours)
    rows: list[tuple[_Tile, list[_Tile]]] = []
    for i, row in enumerate(neighbours.to_pylist()):
        label, query_label = _text(row.get("label")), _text(row.get("query_label"))
        # Two queries may have the same name: a rank of 1 begins a new one.
        if row["rank"] == 1 or not rows or row["query"] != rows[-1][0].name:
            text = _text(row.get("query_text")) or (row["query"] if row["query_uri"] is None else "")
            rows.append((_Tile(row["query"], row["query_uri"], query_label, QUERY, text=text), []))
        if not label:
            look = UNKNOWN
        elif query_label:
            look = SAME if label == query_label else OTHER
        elif compared:  # in this picture, colours mean "same" and "other", and this query has no label
            look = UNKNOWN
        else:
            red, green, blue, opacity = colouring.colours[i].tolist()
            look = Look((red, green, blue, opacity), SIGNS[str(colouring.markers[i])])
        alike = f"  +{row['near_duplicates']:,} alike" if row.get("near_duplicates") else ""
        text = _text(row.get("text"))
        rows[-1][1].append(_Tile(row["id"], row["uri"], label, look, row["score"], text=text, alike=alike))
    return rows


def _draw_head(sheet: Sheet, title: str, cut: str, left: int, signs: set[str]) -> None:
    """Write the title, the meaning of the signs, and the headings."""
    room = sheet.width - 2 * EDGE - text_width(cut, TITLE, "bold")
    sheet.write(EDGE, EDGE + 12, fit_text(title, room, TITLE, "bold") + cut, TITLE, weight="bold")
    x: float = EDGE
    labelled = ", label" if signs - {""} else ""
    words: list[tuple[Look, str]] = [(UNKNOWN, f"below each neighbour: cosine{labelled} and name")]
    if signs & {SAME.sign, OTHER.sign}:
        words += [(SAME, "same label as the query"), (OTHER, "another label")]
    for look, meaning in words:
        if look.sign:
            sheet.write(x, EDGE + 46, look.sign, 12, look.colour, weight="bold")
            x += 20
        sheet.write(x, EDGE + 46, meaning, 11, FAINT)
        x += text_width(meaning, 11) + 26
    for x, name in ((EDGE, "query"), (left, "neighbours, nearest first")):
        sheet.write(x, HEAD - 20, name, 11, FAINT, weight="bold")


def _draw_tile(
    sheet: Sheet,
    x: float,
    bottom: float,
    size: tuple[int, int],
    tile: _Tile,
    pictures: Mapping[str, Image.Image],
    frame: int,
) -> None:
    """Draw a box with a picture, the beginning of a text, or the reason why there is neither."""
    side, height = size
    y = bottom - height
    inner = side - 2 * frame
    source = None if tile.text or tile.uri is None else pictures.get(tile.uri)
    picture = source and ImageOps.contain(source, (inner, inner), Image.Resampling.LANCZOS)
    sheet.box(x, y, side, height, facecolor="#F0F0EC" if picture else "white")
    if tile.text:
        for i, line in enumerate(_wrapped(tile.text, side, height)):
            sheet.write(x + THICK + 8, y + 20 + i * LINE, line, TEXT)
    elif picture:
        wide, high = picture.size
        sheet.paste(x + (side - wide) // 2, y + (side - high) // 2, wide, high, picture)
    else:
        reason = "no picture" if tile.uri is None else "cannot be read"
        sheet.write(x + side / 2, y + side / 2 - 9, reason, TEXT, FAINT, ha="center")
        name = fit_text(tile.name, inner - 12, TEXT - 1, middle=True)
        sheet.write(x + side / 2, y + side / 2 + 11, name, TEXT - 1, FAINT, ha="center")
    sheet.box(x, y, side, height, fill=False, edgecolor=tile.look.colour, linewidth=frame * 72 / DPI)


def _write_below(sheet: Sheet, x: float, bottom: float, width: float, text: str, tile: _Tile) -> None:
    """Write a sign and a text, and below them the label and the name."""
    name = tile.name if tile.name not in (text, tile.text) else ""
    for i, (line, middle) in enumerate(each for each in ((tile.label, False), (name, True)) if each[0]):
        sheet.write(x, bottom + 37 + i * 19, fit_text(line, width, TEXT - i, middle=middle), TEXT - i, FAINT)
    if tile.look.sign:
        sheet.write(x, bottom + 17, tile.look.sign, 12, tile.look.colour, weight="bold")
        x, width = x + 19, width - 19
    sheet.write(x, bottom + 17, fit_text(text, width, TEXT, "bold", middle=True), TEXT, weight="bold")


def _digits(rows: Iterable[list[float]]) -> int:
    """Return the number of decimals: 3 if two would hide that scores of a query differ, else 2."""
    for scores in rows:
        if len({f"{score:.3f}" for score in scores}) > len({f"{score:.2f}" for score in scores}):
            return 3
    return 2


def _text(label: Any) -> str:
    if label is None or label != label:
        return ""
    return label_text(label)
