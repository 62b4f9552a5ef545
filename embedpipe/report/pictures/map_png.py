"""The map of a store as a PNG picture: points, pictures or texts beside some, class names, rings, a legend."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patheffects import withStroke

from embedpipe._utils.progress import Progress
from embedpipe.report.drawing.canvas import (
    DPI,
    FAINT,
    INK,
    fit_text,
    font_families,
    make_figure,
    text_width,
    wrap_text,
)
from embedpipe.report.pictures.map_data import MapData
from embedpipe.report.pictures.map_names import place_names
from embedpipe.report.pictures.thumbnails import Layout, read_thumbnails, spread_out

Points = npt.NDArray[np.float64]

#: Pixels: the whole width; the panel's left edge, width, least and largest height; room above and below it.
WIDTH, LEFT, PANEL_WIDTH, LEAST, MOST, ABOVE, BELOW = 1600, 40, 1270, 560, 1010, 130, 120
MARGIN = 90
#: Pixels of the legend: of its heading, of an entry, of the mark before a name, right of the names; its font size.
HEADING, ENTRY, KEY, RIGHT, LEGEND_SIZE = 60, 30, 42, 14, 12
OPACITY = 0.8  # of the points
#: Font size of class names and of texts, in points; pixels and lines of a text; the most texts that are written.
NAME_SIZE, TEXT_SIZE, TEXT_BOX, TEXT_LINES, MAX_TEXTS = 14, 9.5, (172, 42), 2, 40


def draw_map(data: MapData, thumbnails: int, show: Progress) -> Figure:
    """Draw a map with at most ``thumbnails`` pictures, or as many texts."""
    entries = len(data.colouring.legend) + bool(data.doubts)
    points, height = _to_pixels(data.points.astype(np.float64), max(LEAST, HEADING + ENTRY * entries))
    size = np.array([PANEL_WIDTH, height], float)
    figure = make_figure(WIDTH, ABOVE + height + BELOW)
    axes = figure.add_axes(
        (LEFT / WIDTH, BELOW / (ABOVE + height + BELOW), PANEL_WIDTH / WIDTH, height / (ABOVE + height + BELOW)),
        facecolor="white",
    )
    axes.set(xlim=(0, PANEL_WIDTH), ylim=(0, height), xticks=[], yticks=[])
    axes.spines[:].set_color("#E2E2DE")
    area = float(np.clip(60_000 / len(points), 0.5, 120))
    _draw_points(axes, points, data, area)
    names = _place_names(points, data, size)
    _draw_rings(axes, points, data, area)
    if any(data.texts):
        _draw_texts(axes, points, data, names, size, min(thumbnails, MAX_TEXTS))
    else:
        _draw_thumbnails(axes, points, data, names, size, thumbnails, show)
    for name, (centre, _) in names.items():
        colour = next(entry.colour for entry in data.colouring.legend if entry.name == name)
        axes.text(*centre, _short(name), fontsize=NAME_SIZE, fontweight="bold", color=colour, ha="center", va="center",
                  zorder=6, parse_math=False, family=font_families(),
                  path_effects=[withStroke(linewidth=4, foreground="white")])  # fmt: skip
    _draw_legend(figure, data)
    write = partial(figure.text, LEFT / WIDTH, va="center", parse_math=False, family=font_families())
    whole = ABOVE + height + BELOW
    write(1 - 48 / whole, fit_text(data.title, WIDTH - 2 * LEFT, 21, "bold"), fontsize=21, fontweight="bold", color=INK)
    write(1 - 92 / whole, fit_text(data.facts, WIDTH - 2 * LEFT, 13), fontsize=13, color=FAINT)
    lines = [*data.method.split("\n"), *([f"{data.doubts_note} A map.html names them."] if data.doubts else [])]
    write(58 / whole, "\n".join(lines), fontsize=11, color=FAINT, linespacing=1.5)
    return figure


def _to_pixels(points: Points, least: float) -> tuple[Points, int]:
    """Scale points to fill the panel, in pixels, and return its height. The scales differ by at most a third."""
    low, high = points.min(axis=0), points.max(axis=0)
    scale = (np.array([PANEL_WIDTH, max(MOST, least)]) - 2 * MARGIN) / np.maximum(high - low, 1e-9)
    scale = np.minimum(scale, scale.min() * 4 / 3)
    extent = (high - low) * scale
    height = int(np.ceil(max(least, extent[1] + 2 * MARGIN)))
    scaled: Points = (points - (low + high) / 2) * scale + np.array([PANEL_WIDTH, height]) / 2
    return scaled, height


def _draw_points(axes: Axes, points: Points, data: MapData, area: float) -> None:
    colouring = data.colouring
    shuffled = np.random.default_rng(0).permutation(len(points))  # so that no class hides another
    for named in (False, True):
        for marker in np.unique(colouring.markers):
            rows = shuffled[((colouring.markers == marker) & (colouring.named == named))[shuffled]]
            axes.scatter(
                points[rows, 0],
                points[rows, 1],
                s=area,
                c=colouring.colours[rows],
                marker=str(marker),
                alpha=OPACITY,
                edgecolors="white",
                linewidths=0.25 if area > 4 else 0,
            )


def _place_names(
    points: Points, data: MapData, size: Points
) -> dict[str, tuple[tuple[float, float], tuple[float, float]]]:
    """Return centre and size of each class name that has a place."""
    sizes = {name: (text_width(_short(name), NAME_SIZE, "bold") + 8, 28.0) for name in data.classes}
    places = place_names(points, data.classes, sizes, size, [doubt.row for doubt in data.doubts])
    return {name: (centre, sizes[name]) for name, centre in places.items()}


def _draw_rings(axes: Axes, points: Points, data: MapData, area: float) -> None:
    rows = [doubt.row for doubt in data.doubts]
    axes.scatter(
        points[rows, 0], points[rows, 1], s=max(2.4 * area, 90), facecolors="none", edgecolors=INK, linewidths=1.8,
        zorder=3.5,
    )  # fmt: skip


def _reserve(layout: Layout, names: dict[str, tuple[tuple[float, float], tuple[float, float]]]) -> None:
    for centre, extent in names.values():
        layout.reserve(np.array(centre), np.array(extent))


def _draw_thumbnails(
    axes: Axes, points: Points, data: MapData, names: Any, size: Points, count: int, show: Progress
) -> None:
    if not count:
        return
    side = int(np.clip(np.sqrt(0.13 * size.prod() / min(count, len(points))), 40, 150))
    layout = Layout(points, size, (side, side))
    _reserve(layout, names)
    # Those whose label is likely wrong are shown first.
    first = [doubt.row for doubt in data.doubts][: count // 4]
    with show.step("reading thumbnails", count, "pictures") as advance:
        for row, centre, picture in read_thumbnails(data.uris, points, layout, count, first):
            colour = tuple(data.colouring.colours[row])
            axes.plot(*np.stack([points[row], centre]).T, color=colour, linewidth=1.3, zorder=3)
            axes.scatter(
                points[row, 0], points[row, 1], s=42, color=[colour], edgecolors="white", linewidths=0.9, zorder=3
            )
            frame = {"edgecolor": colour, "facecolor": "white", "linewidth": 2.2, "boxstyle": "square"}
            image = OffsetImage(picture, zoom=72 / DPI, interpolation="antialiased")
            axes.add_artist(AnnotationBbox(image, tuple(centre), pad=0.1, bboxprops=frame, zorder=4))
            advance()


def _draw_texts(axes: Axes, points: Points, data: MapData, names: Any, size: Points, count: int) -> None:
    """Write the beginnings of some texts beside their points, likely wrong labels first."""
    layout = Layout(points, size, TEXT_BOX)
    _reserve(layout, names)
    first = [doubt.row for doubt in data.doubts][: count // 4]
    for row in (*first, *(row for row in spread_out(points) if row not in first)):
        text = data.texts[row]
        if count <= 0:
            return
        if not text or (centre := layout.place(points[row])) is None:
            continue
        count -= 1
        colour = tuple(data.colouring.colours[row])
        axes.plot(*np.stack([points[row], centre]).T, color=colour, linewidth=1.3, zorder=3)
        frame = {"edgecolor": colour, "facecolor": "white", "linewidth": 1.2, "boxstyle": "square,pad=0.35"}
        lines = "\n".join(wrap_text(text, TEXT_BOX[0] - 14, TEXT_SIZE, TEXT_LINES))
        axes.text(float(centre[0]), float(centre[1]), lines, fontsize=TEXT_SIZE, color=INK, ha="center",
                  va="center", multialignment="left", zorder=4, parse_math=False,
                  family=font_families(), linespacing=1.25, bbox=frame)  # fmt: skip


def _draw_legend(figure: Figure, data: MapData) -> None:
    colouring, label = data.colouring, data.label
    whole = figure.get_figheight() * DPI
    x = (LEFT + PANEL_WIDTH + 25) / WIDTH
    top = 1 - ABOVE / whole
    title = _short(label or "")
    heading: dict[str, Any] = {
        "fontsize": 14,
        "fontweight": "bold",
        "color": INK,
        "parse_math": False,
        "family": font_families(),
    }
    if colouring.scale is not None:
        axes = figure.add_axes((x, top - 430 / whole, 0.014, 380 / whole), label="colour bar")
        figure.colorbar(colouring.scale, cax=axes, drawedges=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(labelsize=12, color=FAINT, labelcolor=INK)
        axes.set_title(title, loc="left", pad=12, **heading)
        top -= 460 / whole
    elif colouring.legend:
        figure.text(x, top, title, va="top", **heading)
        top -= 27 / whole
    marker = partial(Line2D, [], [], linestyle="", markersize=11, markeredgecolor="white")
    room = WIDTH - RIGHT - WIDTH * x - KEY
    keys = []
    for entry in colouring.legend:
        count = f"  ({entry.count:,})"
        name = fit_text(entry.name, room - text_width(count, LEGEND_SIZE), LEGEND_SIZE)
        keys.append((marker(marker=entry.marker, color=entry.colour), name + count))
    if data.doubts:
        ring = marker(marker="o", fillstyle="none", markeredgecolor=INK, markeredgewidth=1.8)
        keys.append((ring, f"likely wrong label  ({len(data.doubts):,})"))
    if keys:
        legend = figure.legend(
            [key for key, _ in keys],
            [text for _, text in keys],
            loc="upper left",
            bbox_to_anchor=(x - 0.008, top + 5 / whole),
            frameon=False,
            fontsize=LEGEND_SIZE,
            labelcolor=INK,
            labelspacing=0.75,
            handletextpad=0.3,
        )
        for text in legend.get_texts():
            text.set(parse_math=False, fontfamily=font_families())


def _short(text: str, length: int = 18) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
