"""Matplotlib figures as SVG inside an HTML page, which gives them its colours, light or dark, and its fonts."""

from __future__ import annotations

import io
import re
import warnings
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from embedpipe.report.drawing.canvas import fit_text
from embedpipe.report.drawing.wording import visible

#: Colours that stand for those of the page's style: what is drawn in them becomes ``var(--ink)``, and so on.
INK, FAINT, PALE, PAPER, BLUE, ORANGE = (f"#0{i}0{i}0{i}" for i in range(1, 7))
_NAMES = {INK: "ink", FAINT: "faint", PALE: "pale", PAPER: "paper", BLUE: "blue", ORANGE: "orange"}
#: Verdict -> its colour, Matplotlib's marker, and its sign in text: a verdict is never shown by colour alone.
VERDICT_LOOKS = {
    "best": (BLUE, "*", "★"),
    "equivalent": (BLUE, "D", "≈"),
    "undecided": (FAINT, "o", "?"),
    "worse": (ORANGE, "v", "▼"),
    "better": (BLUE, "^", "▲"),
}
_COLOUR = re.compile("|".join(_NAMES))
#: What an element refers to: a marker, or a path that clips it.
_USED = re.compile(r"#(\w+)")
_FAMILY = re.compile(r"font-family: [^;]*;? ?")
_NUMBER = re.compile(r"-?\d+\.\d+")
#: Attributes that hold a drawing's coordinates; hundredths of a pixel are enough.
_COORDINATES = ("d", "x", "y", "width", "height", "transform")
#: What matplotlib adds that would hold for the whole page.
STYLE = ("style", "metadata")
#: Of all charts, in pixels: what a phone shows with letters large enough.
WIDTH = 420
#: Matplotlib's unit is the point, and its SVG has 72 points, each a pixel of the page, to the inch.
_UNITS = 72


def make_chart(width: int, height: int) -> Figure:
    """Return an empty, transparent figure of a size in pixels."""
    return Figure(figsize=(width / _UNITS, height / _UNITS), dpi=_UNITS, frameon=False)


def add_panel(figure: Figure, left: float, top: float, right: float, bottom: float) -> Axes:
    """Add axes with quiet ticks and no frame; the margins around them are in pixels."""
    width, height = figure.get_size_inches() * _UNITS
    panel = figure.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    )
    panel.patch.set_visible(False)
    for spine in panel.spines.values():
        spine.set_visible(False)
    panel.tick_params(length=0, labelsize=11, labelcolor=FAINT, pad=5)
    panel.set_axisbelow(True)
    panel.grid(color=PALE, linewidth=0.8)
    return panel


def add_strip(figure: Figure) -> Axes:
    """Add axes over the whole figure for a legend, in points from the figure's top left."""
    wide, high = (_UNITS * float(size) for size in figure.get_size_inches())
    strip = figure.add_axes((0, 0, 1, 1))
    strip.set(xlim=(0, wide), ylim=(high, 0))
    strip.set_axis_off()
    return strip


def scale_shares(panel: Axes) -> None:
    """Scale the y axis to the shares that were drawn, in percent."""
    low, high = panel.dataLim.y0, panel.dataLim.y1
    room = 0.08 * (high - low) or 0.05
    panel.set_ylim(max(low - 1.6 * room, -0.02), min(high + room, 1.02))
    panel.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    panel.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g}\xa0%")


def write(panel: Axes, x: float, y: float, text: str, colour: str = INK, size: float = 12, **options: Any) -> None:
    """Write one line of text as it stands; ``options`` are matplotlib's."""
    panel.text(x, y, visible(text), color=colour, fontsize=size, parse_math=False, **options)


def name_axes(panel: Axes, x: str, y: str) -> None:
    """Name the x axis, and the y axis within the panel, where it takes no room from it."""
    panel.set_xlabel(fit_text(x, WIDTH - 60, 8.6), color=FAINT, fontsize=12, labelpad=7, parse_math=False)
    if y:
        write(panel, 0.01, 0.985, y, FAINT, 11, va="top", transform=panel.transAxes)


def to_svg(figure: Figure, name: str, title: str) -> str:
    """Return a figure as an ``<svg>`` element, safe to stand in a page whatever its texts are.

    The same figure and name give the same text.

    Parameters
    ----------
    name : str
        Unique within the page: what the figure defines is named after it.
    title : str
        What it shows, for those who cannot see it.
    """
    written = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        # matplotlib only measures here; the browser has other fonts
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(written, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    drawn = ElementTree.fromstring(written.getvalue())
    svg = ElementTree.Element("svg", {"viewBox": drawn.attrib["viewBox"], "role": "img"})
    ElementTree.SubElement(svg, "title").text = visible(title)
    used = {found for element in drawn.iter() for found in _USED.findall(" ".join(element.attrib.values()))}
    svg.extend(_plain(part, used) for part in drawn if _tag(part) not in STYLE)
    return ElementTree.tostring(svg, encoding="unicode")


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _plain(element: ElementTree.Element, used: set[str]) -> ElementTree.Element:
    """Return an element without namespaces, unused names and the style sheet, which would be the whole page's."""
    plain = ElementTree.Element(_tag(element))
    for key, value in element.attrib.items():
        key = key.rpartition("}")[2]
        if key == "style":
            value = _COLOUR.sub(lambda found: f"var(--{_NAMES[found[0]]})", _FAMILY.sub("", value))
        elif key in _COORDINATES:
            value = " ".join(_NUMBER.sub(lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), value).split())
        if key != "id" or value in used:
            plain.set(key, value)
    plain.text = element.text if plain.tag == "text" else None
    plain.extend(_plain(part, used) for part in element if _tag(part) not in STYLE)
    return plain
