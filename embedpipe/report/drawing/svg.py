"""Matplotlib figures as inline SVG, which takes colours (light or dark) and fonts from the HTML page."""

from __future__ import annotations

import io
import math
import re
import warnings
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from embedpipe._utils.notebook.html_tables import visible
from embedpipe.report.drawing.canvas import DPI, fit_text, text_width
from embedpipe.report.drawing.wording import PERCENT

#: Placeholders for the colours of the page: they are replaced by ``var(--ink)`` and so on.
INK, FAINT, PALE, PAPER, BLUE, ORANGE = (f"#0{i}0{i}0{i}" for i in range(1, 7))
_NAMES = {INK: "ink", FAINT: "faint", PALE: "pale", PAPER: "paper", BLUE: "blue", ORANGE: "orange"}
#: Verdict -> colour, Matplotlib marker and sign: no verdict is distinguished by colour alone.
VERDICT_LOOKS = {
    "best": (BLUE, "*", "★"),
    "equivalent": (BLUE, "D", "≈"),
    "undecided": (FAINT, "o", "?"),
    "worse": (ORANGE, "v", "▼"),
    "better": (BLUE, "^", "▲"),
}
_COLOUR = re.compile("|".join(_NAMES))
#: References of an element, to markers and clip paths.
_REFERENCE = re.compile(r"#(\w+)")
_FAMILY = re.compile(r"font-family: [^;]*;? ?")
#: Elements that are left out: Matplotlib's style sheet would apply to the whole page.
_LEFT_OUT = ("style", "metadata")
#: Width of all charts in pixels, legible on a phone.
WIDTH = 420
#: Matplotlib's SVG has 72 units per inch, and one unit is a pixel of the page.
_UNITS = 72


def make_chart(width: int, height: int) -> Figure:
    """Return an empty, transparent figure of a size in pixels."""
    return Figure(figsize=(width / _UNITS, height / _UNITS), dpi=_UNITS, frameon=False)


def add_panel(figure: Figure, left: float, top: float, right: float, bottom: float) -> Axes:
    """Add axes without a frame, with margins in pixels."""
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
    """Add axes over the whole figure for a legend, in pixels from the top left."""
    wide, high = (_UNITS * float(size) for size in figure.get_size_inches())
    strip = figure.add_axes((0, 0, 1, 1))
    strip.set(xlim=(0, wide), ylim=(high, 0))
    strip.set_axis_off()
    return strip


def scale_shares(panel: Axes) -> None:
    """Scale the y axis to the plotted shares, and label it in percent."""
    low, high = panel.dataLim.y0, panel.dataLim.y1
    room = 0.08 * (high - low) or 0.05
    panel.set_ylim(max(low - 1.6 * room, -0.02), min(high + room, 1.02))
    round_ticks(panel.yaxis)
    panel.yaxis.set_major_formatter(as_percent)


def as_percent(value: float, _: object = None) -> str:
    """Return a share as a tick label."""
    return f"{100 * value:.4g}{PERCENT}"


def round_ticks(axis: Axis, most: int = 6, *, integer: bool = False) -> None:
    """Place ticks at multiples of 1, 2 or 5 times a power of ten."""
    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10], integer=integer))


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round ticks of a logarithmic axis: powers of ten, with 2 and 5 times these if there is room.

    Of a range that holds none, the ends are returned with two digits.
    """
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    within: list[float] = []
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{step}e{power}") for power in decades for step in steps]
        within = [tick for tick in ticks if low <= tick <= high]
        if len(within) <= most:
            break
    if len(within) < 2:
        return sorted({float(f"{end:.2g}") for end in (low, *within, high)})
    return within[:: math.ceil(len(within) / most)]


def write(panel: Axes, x: float, y: float, text: str, colour: str = INK, size: float = 12, **options: Any) -> None:
    """Write one line of text without math or markup; ``options`` are those of Matplotlib."""
    panel.text(x, y, visible(text), color=colour, fontsize=size, parse_math=False, **options)


def browser_width(text: str, size: float, weight: str = "normal") -> float:
    """Return the width of a text on the page in pixels, or a little more: few fonts are wider than DejaVu Sans."""
    return text_width(text, size, weight) * _UNITS / DPI


def name_axes(panel: Axes, x: str, y: str) -> None:
    """Label the x axis below the panel, and the y axis inside it."""
    panel.set_xlabel(fit_text(x, WIDTH - 60, 8.6), color=FAINT, fontsize=12, labelpad=7, parse_math=False)
    if y:
        write(panel, 0.01, 0.985, y, FAINT, 11, va="top", transform=panel.transAxes)


def to_svg(figure: Figure, name: str, title: str) -> str:
    """Return a figure as an ``<svg>`` element with escaped texts.

    The result is deterministic: the same figure and name give the same text.

    Parameters
    ----------
    name : str
        Unique within the page: ids of the figure are derived from it.
    title : str
        Description for screen readers.
    """
    written = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        # The browser has its own fonts: Matplotlib only measures here.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(written, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    drawn = ElementTree.fromstring(written.getvalue())
    svg = ElementTree.Element("svg", {"viewBox": drawn.attrib["viewBox"], "role": "img"})
    ElementTree.SubElement(svg, "title").text = visible(title)
    used = {name for element in drawn.iter() for name in _REFERENCE.findall(" ".join(element.attrib.values()))}
    svg.extend(_plain(part, used) for part in drawn if _tag(part) not in _LEFT_OUT)
    return ElementTree.tostring(svg, encoding="unicode")


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _plain(element: ElementTree.Element, used: set[str]) -> ElementTree.Element:
    """Return an element without namespaces, fonts, unused ids and style sheet, with colours of the page."""
    plain = ElementTree.Element(_tag(element))
    for key, value in element.attrib.items():
        key = key.rpartition("}")[2]
        if key == "style":
            value = _COLOUR.sub(lambda match: f"var(--{_NAMES[match[0]]})", _FAMILY.sub("", value))
        if key != "id" or value in used:
            plain.set(key, value)
    plain.text = element.text if plain.tag == "text" else None
    plain.extend(_plain(part, used) for part in element if _tag(part) not in _LEFT_OUT)
    return plain
