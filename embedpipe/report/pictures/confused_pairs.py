"""The most frequent confusions of a matrix, each with some of its items, below the matrix."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps

from embedpipe.errors import UsageError, suggest
from embedpipe.report.drawing.canvas import FAINT, INK, PALE, Sheet, fit_text, text_width, wrap_text
from embedpipe.report.drawing.wording import percent
from embedpipe.report.pictures.confusion_matrix import Matrix
from embedpipe.report.pictures.thumbnails import read_small

COLUMNS = ("actual", "predicted", "uri")
#: The most pairs that are shown, in two columns if the picture is wide enough.
MAX_PAIRS, TWO_COLUMNS = 6, 900
#: Pixels: side of a picture, size of a text, between items, between columns, of a pair's name, below a pair.
SIDE, TEXT, GAP, APART, NAME, BELOW = 104, (216, 72), 8, 36, 30, 22
#: Pixels of the heading, and size of names and texts in points; pixels of a line of text.
HEADING, NAME_SIZE, TEXT_SIZE, LINE = 56, 10.5, 8.5, 15


@dataclass(frozen=True)
class Pair:
    """Two classes, the number of items of one that were predicted as the other, their share, and some items."""

    actual: str
    predicted: str
    count: int
    share: float
    uris: list[str]
    texts: list[str]


def find_pairs(matrix: Matrix, mistakes: pa.Table | None) -> list[Pair]:
    """Return the most confused pairs that have items to show, the most frequent first."""
    if mistakes is None:
        return []
    for column in COLUMNS:
        if column not in mistakes.column_names:
            raise UsageError(f"the table of mistakes has no column {column!r}{suggest(column, mistakes.column_names)}")
    rows: dict[tuple[str, str], list[tuple[str | None, str | None]]] = defaultdict(list)
    uris = mistakes["uri"].to_pylist()
    texts = mistakes["text"].to_pylist() if "text" in mistakes.column_names else [None] * len(uris)
    for actual, predicted, *item in zip(
        mistakes["actual"].to_pylist(), mistakes["predicted"].to_pylist(), uris, texts, strict=True
    ):
        rows[str(actual), str(predicted)].append((item[0], item[1]))
    wrong = matrix.counts - np.diag(matrix.counts.diagonal())
    pairs: list[Pair] = []
    for position in np.argsort(-wrong, axis=None, kind="stable").tolist():
        i, j = divmod(position, len(wrong))
        if len(pairs) == MAX_PAIRS or not wrong[i, j]:
            break
        items = rows.get((matrix.names[i], matrix.names[j]), [])
        pictures = [uri for uri, text in items if uri and not text]
        words = [text for _, text in items if text]
        if pictures or words:
            share = float(matrix.shares[i, j])
            pairs.append(Pair(matrix.names[i], matrix.names[j], int(wrong[i, j]), share, pictures, words))
    return pairs


def pairs_height(pairs: list[Pair], width: float) -> int:
    """Return the height in pixels that `draw_pairs` needs."""
    if not pairs:
        return 0
    columns = 2 if width >= TWO_COLUMNS else 1
    rows = -(-len(pairs) // columns)
    return HEADING + rows * (NAME + _extent(pairs)[1] + BELOW)


def draw_pairs(sheet: Sheet, pairs: list[Pair], left: float, top: float, width: float) -> None:
    """Draw the pairs in reading order, each with as many items as there is room for, the surest first."""
    if not pairs:
        return
    columns = 2 if width >= TWO_COLUMNS else 1
    room = (width - (columns - 1) * APART) / columns
    across, height = _extent(pairs)
    most = int((room + GAP) // (across + GAP))
    pictures = read_small({uri for pair in pairs for uri in pair.uris[:most]}, 2 * SIDE)
    sheet.write(left, top + 12, "Most frequent confusions", 13, weight="bold")
    for i, pair in enumerate(pairs):
        x = left + i % columns * (room + APART)
        y = top + HEADING + i // columns * (NAME + height + BELOW)
        count = f"{pair.count:,} item{'' if pair.count == 1 else 's'}, {percent(pair.share, 0)} of the class"
        names = f"{pair.actual} → {pair.predicted}"
        names = fit_text(names, room - text_width(count, NAME_SIZE) - 24, NAME_SIZE, "bold")
        sheet.write(x, y, names, NAME_SIZE, weight="bold")
        sheet.write(x + text_width(names, NAME_SIZE, "bold") + 14, y, count, NAME_SIZE, FAINT)
        y += NAME - 12
        for j, text in enumerate(pair.texts[:most]):
            sheet.box(x + j * (across + GAP), y, across, height, facecolor="white", edgecolor=PALE, linewidth=0.72)
            for k, line in enumerate(wrap_text(text, across - 16, TEXT_SIZE, (height - 8) // LINE)):
                sheet.write(x + j * (across + GAP) + 8, y + 14 + k * LINE, line, TEXT_SIZE, INK)
        if not pair.texts:
            shown = [pictures[uri] for uri in pair.uris[:most] if uri in pictures]
            for j, picture in enumerate(shown):
                _paste(sheet, x + j * (across + GAP), y, picture)
            if not shown:
                sheet.write(x, y + 14, "its pictures cannot be read", TEXT_SIZE, FAINT)


def _extent(pairs: list[Pair]) -> tuple[int, int]:
    """Return width and height of an item."""
    return TEXT if any(pair.texts for pair in pairs) else (SIDE, SIDE)


def _paste(sheet: Sheet, x: float, y: float, picture: Image.Image) -> None:
    sheet.box(x, y, SIDE, SIDE, facecolor="#F0F0EC")
    fitted = ImageOps.contain(picture, (SIDE, SIDE), Image.Resampling.LANCZOS)
    width, height = fitted.size
    sheet.paste(x + (SIDE - width) // 2, y + (SIDE - height) // 2, width, height, fitted)
