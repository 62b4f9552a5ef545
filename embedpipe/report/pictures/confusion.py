"""A confusion matrix as a PNG file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, PowerNorm

from embedpipe.report.drawing.canvas import FAINT, INK, PALE, Sheet, check_png, fit_text, text_width
from embedpipe.report.drawing.picture import Picture
from embedpipe.report.drawing.wording import percent
from embedpipe.report.pictures.confused_pairs import draw_pairs, find_pairs, pairs_height
from embedpipe.report.pictures.confusion_matrix import Counts, Matrix, Shares, short_number

#: With more classes than this, the cells have no numbers.
MAX_NUMBERS = 24
#: Pixels of the outer margin, of the names, of each column at the right, between the matrix and its margins.
EDGE, NAMES, SIDE, GAP = 48, 210, 84, 12
TITLE, MIN_WIDTH, MAX_WIDTH = 20, 620, 1280
#: Exponent from shares to colours: rare confusions must be visible beside a diagonal near 1.
GAMMA = 0.5
SHADES = ScalarMappable(
    PowerNorm(GAMMA, 0, 1),
    LinearSegmentedColormap.from_list("embedpipe.share", ["#FFFFFF", "#CFE3F3", "#5BA3D3", "#0F6AAB", "#083A63"]),
)


def draw_confusion(
    counts: npt.ArrayLike,
    classes: Sequence[object],
    to: str | Path,
    *,
    title: str = "Confusion matrix",
    subtitle: str = "",
    mistakes: pa.Table | None = None,
) -> Picture:
    """Draw a confusion matrix as a PNG file.

    The colour of a cell is its share of the row, the true class. Up to 24 classes have their counts in the cells. Of
    more than 59 classes, the 40 with the most errors are drawn, in that order.

    Parameters
    ----------
    counts : int array (n_classes, n_classes)
        Number of items of each true class (row) that were predicted as each class (column).
    classes : sequence of str or numbers, length n_classes
        Names of the rows and columns.
    to : str or path-like
        The PNG file to write, atomically.
    title, subtitle : str
        Written above the matrix.
    mistakes : pyarrow.Table, optional
        The wrong items, as `Mistakes.table` holds them: ``actual``, ``predicted``, ``uri`` and optionally ``text``. Up
        to six pairs of classes with the most errors are drawn below the matrix, with the first items of each.

    Returns
    -------
    Picture
        Shows itself in a notebook, and stands for its path: ``to``.

    Raises
    ------
    UsageError
        If ``to`` does not end in ``.png``, or ``counts`` is empty, not square, not of integers, negative, or of
        another size than ``classes``; or ``mistakes`` lacks a column.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     draw_confusion([[8, 2], [1, 9]], ["cat", "dog"], f"{folder}/confusion.png").path.name
    'confusion.png'
    """
    to = check_png(to, "a confusion matrix")
    matrix = Matrix.of(counts, classes)
    if matrix.total_classes > len(matrix.names):
        part = (
            f"the {len(matrix.names)} of {matrix.total_classes} classes with the most errors; the metrics are over all"
        )
        subtitle = f"{subtitle}  ·  {part}" if subtitle else part
    layout = _Layout.of(matrix, title, subtitle)
    pairs = find_pairs(matrix, mistakes)
    sheet = Sheet(layout.width, layout.height + pairs_height(pairs, layout.width - 2 * EDGE))
    inner = layout.width - 2 * EDGE
    sheet.write(EDGE, EDGE + 12, fit_text(title, inner, TITLE, "bold"), TITLE, weight="bold")
    sheet.write(EDGE, EDGE + 46, fit_text(subtitle, inner, 11.5), 11.5, FAINT)
    _draw_cells(sheet, matrix, layout)
    _draw_names(sheet, matrix, layout)
    _draw_margins(sheet, matrix, layout)
    _draw_scale(sheet, layout)
    draw_pairs(sheet, pairs, EDGE, layout.height - EDGE + 24, layout.width - 2 * EDGE)
    return sheet.save(to)


@dataclass(frozen=True)
class _Layout:
    """Positions and sizes in pixels."""

    cell: int
    left: int  # left edge of the matrix
    top: int
    side: int  # width and height of the matrix
    name_size: float
    upright: bool  # whether the names of the columns are turned by 90 degrees
    names_height: int  # of the names of the columns
    width: int
    height: int

    @classmethod
    def of(cls, matrix: Matrix, title: str, subtitle: str) -> _Layout:
        n = len(matrix.names)
        cell = int(np.clip(960 // n, 20, 160))
        name_size = 11.5 if cell >= 40 else 9 if cell >= 22 else 8.5
        widest = max(text_width(fit_text(name, NAMES, name_size), name_size) for name in matrix.names)
        upright = widest > cell - 10
        names_height = int(np.ceil(widest)) if upright else 20
        names = int(np.ceil(max(widest, text_width("precision", 11))))
        left = EDGE + 34 + names + GAP
        top = EDGE + (108 if subtitle else 82) + names_height + GAP
        width = left + n * cell + GAP + 2 * SIDE + EDGE
        title, subtitle = fit_text(title, MAX_WIDTH, TITLE, "bold"), fit_text(subtitle, MAX_WIDTH, 11.5)
        needed = max(text_width(title, TITLE, "bold"), text_width(subtitle, 11.5)) + 2 * EDGE + 2
        width = int(np.clip(needed, max(width, MIN_WIDTH), max(width, MAX_WIDTH)))
        height = top + n * cell + GAP + 44 + 92 + EDGE
        return cls(cell, left, top, n * cell, name_size, upright, names_height, width, height)


def _draw_cells(sheet: Sheet, matrix: Matrix, layout: _Layout) -> None:
    n, cell, left, top, side = len(matrix.names), layout.cell, layout.left, layout.top, layout.side
    colours = SHADES.to_rgba(np.nan_to_num(matrix.shares))[..., :3]
    sheet.paste(left, top, side, side, colours)
    sheet.grid(left, top, cell, n, "#ECECE8")
    sheet.box(left - 1, top - 1, side + 2, side + 2, fill=False, edgecolor="#C4C6C8", linewidth=0.72)
    for i in np.flatnonzero(~(matrix.recall > 0.2)).tolist():  # outline pale cells of the diagonal
        x, y = left + i * cell - 1, top + i * cell - 1
        sheet.box(x, y, cell + 1, cell + 1, fill=False, edgecolor="#8A9199", linewidth=0.72)
    if n > MAX_NUMBERS:
        return
    texts, size = _fitting(matrix.counts, cell)
    with_share = cell >= 64
    for i, j in np.ndindex(n, n):
        x, y, count = left + (j + 0.5) * cell, top + (i + 0.5) * cell, matrix.counts[i, j]
        ink = "#B9BDC1" if count == 0 else "white" if _luminance(colours[i, j]) < 0.22 else INK
        up = min(0.11 * cell, 11) if with_share and count else 0
        weight = "bold" if i == j and count else "normal"
        sheet.write(x, y - up, texts[i][j], size, ink, ha="center", va="center_baseline", weight=weight)
        if up:
            share = percent(float(matrix.shares[i, j]), 0)
            sheet.write(x, y + min(0.2 * cell, 19), share, max(8, 0.62 * size), ink, ha="center", va="center_baseline")


def _draw_names(sheet: Sheet, matrix: Matrix, layout: _Layout) -> None:
    size, left, top = layout.name_size, layout.left, layout.top
    level = {"ha": "right", "va": "center_baseline"}
    for i, name in enumerate(matrix.names):
        middle = (i + 0.5) * layout.cell
        sheet.write(left - GAP, top + middle, fit_text(name, NAMES, size, middle=True), size, **level)
        if layout.upright:
            name = fit_text(name, NAMES, size, middle=True)
            sheet.write(left + middle, top - GAP, name, size, ha="left", va="center", rotation=90)
        else:
            sheet.write(left + middle, top - GAP - 8, fit_text(name, NAMES, size), size, ha="center")
    middle = layout.side / 2
    heading = {"weight": "bold", "ha": "center"}
    above = top - GAP - layout.names_height - 20
    sheet.write(left + middle, above, "predicted", 11.5, FAINT, **heading)
    sheet.write(EDGE + 8, top + middle, "true", 11.5, FAINT, rotation=90, **heading)


def _draw_margins(sheet: Sheet, matrix: Matrix, layout: _Layout) -> None:
    """Write recall and number of items of each row at the right, precision of each column and the accuracy below."""
    cell, top = layout.cell, layout.top
    right, below = layout.left + layout.side + GAP + SIDE, top + layout.side + GAP
    size = min(layout.name_size, 10.5)
    for x, name in ((right - 8, "recall"), (right + SIDE - 8, "items")):
        sheet.write(x, top - GAP - 8, name, size, FAINT, ha="right")
    for i, (recall, items) in enumerate(zip(matrix.recall, matrix.items, strict=True)):
        y = top + (i + 0.5) * cell
        sheet.write(right - 8, y, percent(recall), size, ha="right", va="center_baseline")
        number = f"{items:,}" if items < 10**6 else short_number(items)
        sheet.write(right + SIDE - 8, y, number, size, FAINT, ha="right", va="center_baseline")
    upright = text_width("100 %", size) > cell - 4
    middle = below + (22 if upright else 12)
    sheet.write(layout.left - GAP, middle, "precision", size, FAINT, ha="right", va="center_baseline")
    for i, precision in enumerate(matrix.precision):
        centre, text = layout.left + (i + 0.5) * cell, percent(precision, 1 if cell >= 64 else 0)
        if upright:
            sheet.write(centre, below, text, size, ha="right", rotation=90)
        else:
            sheet.write(centre, middle, text, size, ha="center", va="center_baseline")
    accuracy = percent(matrix.accuracy)
    sheet.write(right - 8, middle, accuracy, size + 1, ha="right", va="center_baseline", weight="bold")
    sheet.write(right + SIDE - 8, middle, "accuracy", size, FAINT, ha="right", va="center_baseline")


def _draw_scale(sheet: Sheet, layout: _Layout) -> None:
    """Draw the colour scale at the lower left."""
    x, y, width, height = layout.left, layout.height - EDGE - 34, min(260, layout.side), 12
    # the scale is linear in colour, not in share, so that small shares have room
    positions = np.linspace(0, 1, 256)
    sheet.paste(x, y, width, height, SHADES.cmap(positions)[None, :, :3])
    sheet.box(x - 1, y - 1, width + 2, height + 2, fill=False, edgecolor=PALE, linewidth=0.72)
    for share in (0, 0.1, 0.5, 1):
        sheet.write(x + width * share**GAMMA, y + height + 12, percent(share, 0), 8.5, FAINT, ha="center")
    sheet.write(x, y - 14, "share of the true class", 9.5, FAINT)


def _fitting(counts: Counts, cell: int) -> tuple[list[list[str]], float]:
    """Return the counts as text, with k and M if they must be short, and the font size."""
    room, size = cell - 8, min(16, 0.15 * cell + 3.5)
    for write in (lambda count: f"{count:,}", short_number):
        texts = [[write(int(count)) for count in row] for row in counts]
        longest = max((text for row in texts for text in row), key=len)
        fitting = size * min(1, room / text_width(longest, size, "bold"))
        if fitting >= 7.5:
            break
    return texts, fitting


def _luminance(colour: Shares) -> float:
    """Relative luminance of an sRGB colour (WCAG 2.1)."""
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))
