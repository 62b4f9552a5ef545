"""Basics of all pictures: colours, text in any script, pixel coordinates, atomic writing."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, get_font_names
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from PIL import Image

from embedpipe._utils.atomic import whole_file
from embedpipe._utils.folder_kinds import check_file
from embedpipe.errors import UsageError
from embedpipe.report.drawing.picture import Picture

DPI = 100
INK, FAINT, PALE, PAPER = "#22262B", "#6B7075", "#D9D9D4", "#FAFAF8"
#: Fonts that are used, if installed, for characters that DejaVu Sans lacks.
FALLBACK_FONTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans CJK KR",
    "IPAexGothic",
    "Hiragino Sans",
    "PingFang SC",
    "Apple SD Gothic Neo",
    "Yu Gothic",
    "Microsoft YaHei",
    "Malgun Gothic",
    "WenQuanYi Zen Hei",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Nirmala UI",
    "Leelawadee UI",
    "Arial Unicode MS",
)


@cache
def font_families() -> list[str]:
    """Return DejaVu Sans and the installed fallback fonts."""
    installed = set(get_font_names())
    return ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]


def check_png(to: str | Path, what: str) -> Path:
    """Return ``to`` as a path; raise UsageError if it does not end in .png, and what `check_file` raises."""
    to = Path(to)
    if to.suffix.lower() != ".png":
        raise UsageError(f"the name of {what} must end in .png, got {str(to)!r}")
    return check_file(to)


def make_figure(width: int, height: int) -> Figure:
    """Return an empty figure of a size in pixels."""
    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=PAPER)


def save_figure(figure: Figure, to: Path, metadata: Mapping[str, str] | None = None) -> Picture:
    """Write a figure as a PNG file, atomically, folders on the way included."""
    with whole_file(to) as part, _without_font_warnings():
        figure.savefig(part, format="png", metadata=dict(metadata or {}))
    return Picture(to)


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Return the width in pixels of one line of text of a size in points."""
    font = FontProperties(family=font_families(), size=size, weight=weight)
    with _without_font_warnings():
        width, _, _ = _measure().get_text_width_height_descent(text, font, ismath=False)
    return float(width)


def fit_text(text: str, width: float, size: float, weight: str = "normal", *, middle: bool = False) -> str:
    """Return one printable line that is at most ``width`` pixels wide, shortened with … if necessary.

    Parameters
    ----------
    middle : bool
        Shorten in the middle, as for paths; otherwise at the end.
    """
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else " " for letter in text)
    text = " ".join(text.split())
    # No letter is narrower than a tenth of its size, which bounds the length that must be measured.
    most = min(len(text), math.ceil(10 * width / size))
    least = 0
    if most == len(text) and text_width(text, size, weight) <= width:
        return text
    while least < most:
        kept = (least + most + 1) // 2
        if text_width(_without_rest(text, kept, middle), size, weight) <= width:
            least = kept
        else:
            most = kept - 1
    return _without_rest(text, least, middle)


def wrap_text(text: str, width: float, size: float, lines: int) -> list[str]:
    """Return the first ``lines`` lines of at most ``width`` pixels, with an ellipsis if the text is longer."""
    words = text.split()
    wrapped: list[str] = []
    while words and len(wrapped) < lines:
        line = words.pop(0)
        while words and text_width(f"{line} {words[0]}", size) <= width:
            line = f"{line} {words.pop(0)}"
        wrapped.append(fit_text(line, width, size))
    if words:
        wrapped[-1] = fit_text(f"{wrapped[-1]} {words[0]} ...", width, size)
    return wrapped


class Sheet:
    """A picture with pixel coordinates; the origin is the upper left corner.

    Parameters
    ----------
    width, height : int
        In pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.height = height
        self.figure = make_figure(width, height)
        self.axes: Axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(height, 0))
        self.axes.set_axis_off()
        self.axes.autoscale(False)

    def write(self, x: float, y: float, text: str, size: float, colour: Any = INK, **options: Any) -> None:
        """Write a text without math; ``y`` is its middle unless ``va`` is given; ``options``: Matplotlib."""
        options = {"va": "center", "rotation_mode": "anchor", **options}
        self.axes.text(x, y, text, fontsize=size, color=colour, family=font_families(), parse_math=False, **options)

    def box(self, x: float, y: float, width: float, height: float, **options: Any) -> None:
        """Draw a rectangle with its frame inside; ``options`` are those of Matplotlib."""
        line = options.get("linewidth", 0) * DPI / 72
        corner, size = (x + line / 2, y + line / 2), (width - line, height - line)
        self.axes.add_patch(Rectangle(corner, *size, **{"linewidth": 0, "joinstyle": "miter", **options}))

    def grid(self, x: float, y: float, cell: int, count: int, colour: str) -> None:
        """Draw lines of one pixel between the cells of a square of ``count`` rows and columns."""
        side = count * cell
        for step in range(cell, side, cell):
            self.box(x, y + step - 1, side, 1, facecolor=colour)
            self.box(x + step - 1, y, 1, side, facecolor=colour)

    def paste(self, x: float, y: float, width: float, height: float, picture: npt.NDArray[Any] | Image.Image) -> None:
        """Draw an RGB picture, stretched to a size; pixel for pixel if that is its size."""
        # The zorder of rectangles: later artists are drawn above earlier ones.
        image = AxesImage(self.axes, extent=(x, x + width, y + height, y), interpolation="nearest", origin="upper")
        image.set(data=np.asarray(picture), zorder=Rectangle.zorder)
        self.axes.add_artist(image)

    def save(self, to: Path) -> Picture:
        """Write the picture."""
        return save_figure(self.figure, to)


@cache
def _measure() -> Any:
    renderer: Any = RendererAgg  # untyped in Matplotlib
    return renderer(DPI, DPI, DPI)


def _without_rest(text: str, kept: int, middle: bool) -> str:
    if kept >= len(text):
        return text
    tail = kept // 2 if middle else 0
    return f"{text[: kept - tail].rstrip()}…{text[len(text) - tail :].lstrip()}"


@contextmanager
def _without_font_warnings() -> Iterator[None]:
    """Silence warnings of missing glyphs, which are drawn as boxes, and of fonts without a bold variant."""
    fonts = logging.getLogger("matplotlib.font_manager")

    def is_error(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR

    # A filter, as a change of the level empties what all loggers of the process remember.
    fonts.addFilter(is_error)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            yield
    finally:
        fonts.removeFilter(is_error)
