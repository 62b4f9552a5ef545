"""Queries with what was found for them: one row of pictures, or texts, a query, nearest first."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageOps

from embedpipe.decoding import decode_image
from embedpipe.errors import ItemError, UsageError, nearest
from embedpipe.report.drawing.canvas import DPI, FAINT, INK, PALE, Sheet, check_png, fit_text, text_width, wrap_text
from embedpipe.report.drawing.colours import PALETTE, Colour, colour_labels
from embedpipe.sources.opening import read_uri

COLUMNS = ("query", "query_uri", "rank", "score", "id", "uri")
MAX_QUERIES = MAX_NEIGHBOURS = 12
#: In pixels: around everything, from picture to picture and to the query, above the rows, below a picture.
EDGE, GAP, APART, HEAD, CAPTION = 48, 14, 46, 158, 84
MIN_WIDTH = 860
TITLE, TEXT = 20, 9.5
#: Of frames, in pixels; the sign of a marker of colours.py.
THICK, THIN = 5, 2
SIGNS = {"o": "●", "^": "▲"}
READERS = 8

#: From one line of a text to the next, in pixels.
LINE = 17


class Look(NamedTuple):
    """How the reader is told about a neighbour's label."""

    colour: Colour
    sign: str


SAME, OTHER, UNKNOWN, QUERY = Look(PALETTE[0], "✓"), Look(PALETTE[1], "✗"), Look(PALE, ""), Look(INK, "")


def draw_neighbours(found: pa.Table, to: str | Path, *, title: str = "") -> Path:
    """Draw queries and their nearest neighbours as a PNG file.

    A row a query: the query at the left, its neighbours from left to right with score and label. Where the query
    has a label, a frame's colour and sign say whether the neighbour's is the same; else colours stand for labels.
    At most 12 queries and 12 neighbours of each are drawn. Of a text, its beginning is written. A picture that
    cannot be read is an empty frame, and a query with a null rank is one without neighbours.

    Parameters
    ----------
    found : pyarrow.Table
        One row a neighbour, those of one query by rank, with columns ``query`` (its name), ``query_uri`` (null where
        it has no picture), ``rank`` (from 1), ``score`` (cosine), ``id``, ``uri`` and, where there are some,
        ``query_label``, ``query_text``, ``label``, ``text`` and ``error`` (why a query has no neighbours).
    to : str or path-like
        The PNG file to write, atomically.
    title : str

    Returns
    -------
    pathlib.Path
        ``to``.

    Raises
    ------
    UsageError
        If ``to`` is no PNG file, or ``found`` has no rows or lacks a column.
    """
    to = check_png(to, "a picture of neighbours")
    for column in COLUMNS:
        if column not in found.column_names:
            hint = nearest(column, found.column_names)
            raise UsageError(f"found has no column {column!r}{hint}: it has {found.column_names}")
    if found["rank"].null_count == len(found):
        raise UsageError("found has no rows with a rank: there are no neighbours to draw")

    rows, cut = _chosen(found)
    most = max(1, *(len(tiles) for _, tiles in rows))
    side = min(190, max(112, 1500 // most - GAP))
    large = side + side // 5
    left = EDGE + large + APART
    room = max(left + most * (side + GAP) - GAP, MIN_WIDTH - EDGE) - left
    sheet = Sheet(left + room + EDGE, HEAD + len(rows) * (large + CAPTION) + 20)
    _draw_head(sheet, title or "Nearest neighbours", cut, left, {tile.look.sign for _, tiles in rows for tile in tiles})

    digits = _digits([tile.score for tile in tiles] for _, tiles in rows)
    shown = [tile for query, tiles in rows for tile in (query, *tiles)]
    pictures = _Pictures({tile.uri for tile in shown if not tile.text}, large)
    for i, (query, tiles) in enumerate(rows):
        bottom = HEAD + i * (large + CAPTION) + large
        _draw_tile(sheet, EDGE, bottom, large, query, pictures, THIN)
        _write_below(sheet, EDGE, bottom, large, "" if query.name == query.text else query.name, query)
        if not tiles:
            reason = f"no neighbours: {query.error}" if query.error else "no neighbours"
            sheet.write(left, bottom - side / 2, fit_text(reason, room, TEXT), TEXT, FAINT)
        for j, tile in enumerate(tiles):
            x = left + j * (side + GAP)
            _draw_tile(sheet, x, bottom, side, tile, pictures, THICK if tile.look.sign else THIN)
            _write_below(sheet, x, bottom, side, f"{tile.score:.{digits}f}", tile)
    return sheet.save(to)


@dataclass(frozen=True)
class _Tile:
    """A query or a neighbour."""

    name: str
    uri: str | None
    label: str
    look: Look
    score: float = 1.0  # of a query with itself
    error: str = ""
    text: str = ""


def _chosen(found: pa.Table) -> tuple[list[tuple[_Tile, list[_Tile]]], str]:
    """Return the queries that are drawn, and words on those that are not."""
    rank = pc.fill_null(found["rank"], 1).to_numpy()
    code = pc.index_in(found["query"], pc.unique(found["query"])).to_numpy()
    starts = np.flatnonzero((rank == 1) | (np.diff(code, prepend=-1) != 0))
    end = starts[MAX_QUERIES] if len(starts) > MAX_QUERIES else len(found)
    rows = _rows(found[:end].filter(pa.array(rank[:end] <= MAX_NEIGHBOURS)))
    cut = f"  ·  {len(rows)} of {len(starts):,} queries" if len(starts) > len(rows) else ""
    if (deepest := rank[:end].max()) > MAX_NEIGHBOURS:
        cut += f"  ·  first {MAX_NEIGHBOURS} of {deepest:,} neighbours"
    return rows, cut


def _rows(neighbours: pa.Table) -> list[tuple[_Tile, list[_Tile]]]:
    """Return each query with its neighbours."""
    labels = neighbours["label"] if "label" in neighbours.column_names else None
    colouring = colour_labels(labels, len(neighbours))
    asked = "query_label" in neighbours.column_names and neighbours["query_label"].null_count < len(neighbours)
    rows: list[tuple[_Tile, list[_Tile]]] = []
    for i, row in enumerate(neighbours.to_pylist()):
        label, wanted = _text(row.get("label")), _text(row.get("query_label"))
        # queries of the same name are told apart by the rank, which begins anew
        if row["rank"] in (None, 1) or not rows or row["query"] != rows[-1][0].name:
            words = _text(row.get("query_text")) or (row["query"] if row["query_uri"] is None else "")
            query = _Tile(row["query"], row["query_uri"], wanted, QUERY, error=_text(row.get("error")), text=words)
            rows.append((query, []))
        if row["rank"] is None:
            continue
        if not label:
            look = UNKNOWN
        elif wanted:
            look = SAME if label == wanted else OTHER
        elif asked:  # colours have the other meaning in this picture
            look = UNKNOWN
        else:
            red, green, blue, opacity = colouring.colours[i].tolist()
            look = Look((red, green, blue, opacity), SIGNS[str(colouring.markers[i])])
        rows[-1][1].append(_Tile(row["id"], row["uri"], label, look, row["score"], text=_text(row.get("text"))))
    return rows


class _Pictures:
    """The pictures that can be read, no larger than ``side`` pixels."""

    def __init__(self, uris: set[str | None], side: int) -> None:
        known = sorted(uri for uri in uris if uri is not None)
        with ThreadPoolExecutor(READERS) as pool:
            self._read = dict(zip(known, pool.map(lambda uri: self._small(uri, side), known), strict=True))

    def get(self, uri: str | None, side: int) -> Image.Image | None:
        """Return a picture that fits into a square, or None."""
        picture = None if uri is None else self._read[uri]
        return picture and ImageOps.contain(picture, (side, side), Image.Resampling.LANCZOS)

    @staticmethod
    def _small(uri: str, side: int) -> Image.Image | None:
        try:
            picture = decode_image(read_uri(uri))
        except ItemError:
            return None
        picture.thumbnail((2 * side, 2 * side), Image.Resampling.LANCZOS)
        return picture


def _draw_head(sheet: Sheet, title: str, cut: str, left: int, signs: set[str]) -> None:
    """Write the title, what the signs mean, and what stands in the columns."""
    room = sheet.width - 2 * EDGE - text_width(cut, TITLE, "bold")
    sheet.write(EDGE, EDGE + 12, fit_text(title, room, TITLE, "bold") + cut, TITLE, weight="bold")
    x: float = EDGE
    labelled = " and label" if signs - {""} else ""
    words: list[tuple[Look, str]] = [(UNKNOWN, f"below each neighbour: cosine similarity{labelled}")]
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


def _draw_tile(sheet: Sheet, x: float, bottom: float, side: int, tile: _Tile, pictures: _Pictures, frame: int) -> None:
    """Draw a picture, the beginning of a text, or why there is neither, on a square."""
    y = bottom - side
    inner = side - 2 * frame
    picture = None if tile.text else pictures.get(tile.uri, inner)
    sheet.box(x, y, side, side, facecolor="#F0F0EC" if picture else "white")
    if tile.text:
        for i, line in enumerate(wrap_text(tile.text, inner - 16, TEXT, (inner - 12) // LINE)):
            sheet.write(x + frame + 8, y + frame + 16 + i * LINE, line, TEXT)
    elif picture:
        width, height = picture.size
        sheet.paste(x + (side - width) // 2, y + (side - height) // 2, width, height, picture)
    else:
        reason = "no picture" if tile.uri is None else "cannot be read"
        sheet.write(x + side / 2, y + side / 2 - 9, reason, TEXT, FAINT, ha="center")
        name = fit_text(tile.name, inner - 12, TEXT - 1, middle=True)
        sheet.write(x + side / 2, y + side / 2 + 11, name, TEXT - 1, FAINT, ha="center")
    sheet.box(x, y, side, side, fill=False, edgecolor=tile.look.colour, linewidth=frame * 72 / DPI)


def _write_below(sheet: Sheet, x: float, bottom: float, width: float, text: str, tile: _Tile) -> None:
    """Write a sign and a text, and below them the label, or the name where there is no label."""
    known = tile.label or (tile.name if tile.name != text else "")
    sheet.write(x, bottom + 37, fit_text(known, width, TEXT, middle=not tile.label), TEXT, FAINT)
    if tile.look.sign:
        sheet.write(x, bottom + 17, tile.look.sign, 12, tile.look.colour, weight="bold")
        x, width = x + 19, width - 19
    sheet.write(x, bottom + 17, fit_text(text, width, TEXT, "bold", middle=True), TEXT, weight="bold")


def _digits(rows: Iterable[list[float]]) -> int:
    """Return 3 where two decimals would hide that scores of a query differ, else 2."""
    for scores in rows:
        if len({f"{score:.3f}" for score in scores}) > len({f"{score:.2f}" for score in scores}):
            return 3
    return 2


def _text(label: Any) -> str:
    if label is None or label != label:
        return ""
    return f"{label:.4g}" if isinstance(label, float) else str(label)
