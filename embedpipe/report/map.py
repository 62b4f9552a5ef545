"""A map of a store: one point an item, near its like, coloured by label, with some of the pictures themselves."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from PIL import Image, UnidentifiedImageError

from embedpipe.errors import UsageError, nearest
from embedpipe.progress import Progress
from embedpipe.report.colours import PLAIN, Colouring, colour_labels
from embedpipe.report.projection import project
from embedpipe.report.thumbnails import read_thumbnails, spread_out
from embedpipe.store import FeatureStore
from embedpipe.store.scan import read_vectors

#: Of the picture, in pixels: the whole, and the panel (left, bottom, width, height) with the points.
WIDTH, HEIGHT, DPI = 1600, 1240, 100
PANEL = (40, 100, 1270, 1010)
MARGIN = 60
INK, FAINT, PAPER = "#22262B", "#6B7075", "#FAFAF8"
#: Key of the PNG's text that says what it was drawn from.
DRAWN_FROM = "embedpipe.map"


def draw_map(
    store: FeatureStore | str | Path,
    to: str | Path,
    *,
    label: str | None = "label",
    column: str | None = None,
    thumbnails: int = 60,
    limit: int = 5000,
    seed: int = 0,
    progress: bool | None = None,
) -> Path:
    """Draw a 2-D map of a store as a PNG file 1,600 pixels wide.

    A file that was drawn from the same rows with the same options is left as it is.

    Parameters
    ----------
    store : FeatureStore or path
    to : str or path-like
        The PNG file to write, atomically.
    label : str, optional
        The column to colour by; a number with more than ten values gets a colour bar. None, or a store
        without labels, gives one colour.
    column : str, optional
        Which embedding column; the first by default.
    thumbnails : int
        How many of the pictures to show, at most; those that cannot be read any more are passed over.
    limit : int
        With more rows than this, a random sample is drawn.
    seed : int
        Of the sample and of t-SNE.
    progress : bool, optional
        Show progress on standard error; by default only on a terminal.

    Raises
    ------
    UsageError
        If an argument is wrong, or the store is empty.
    StoreNotFoundError
        If there is no store at that path.
    """
    to = Path(to)
    store = store if isinstance(store, FeatureStore) else FeatureStore(store)
    column = column or store.spec.layers[0].column
    if label == "label" and label not in store.data_columns:
        label = None
    _check(store, to, label, column, thumbnails, limit)
    show = Progress(progress)
    drawn_from = _drawn_from(store, label=label, column=column, thumbnails=thumbnails, limit=limit, seed=seed)
    if _read_drawn_from(to) == drawn_from:
        show.say(f"{to}: up to date, drawn from the same rows with the same options")
        return to

    rows = store.to_arrow(["id", "uri", *([label] if label else [])])
    if len(rows) > limit:
        rows = rows.take(pa.array(np.sort(np.random.default_rng(seed).choice(len(rows), limit, replace=False))))
    _, vectors = read_vectors(store.table, column, store.dims[column], rows.column("id").combine_chunks())
    points, method = project(vectors, seed, show)
    points = _to_pixels(points)
    colouring = colour_labels(rows.column(label) if label else None, len(rows))

    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor=PAPER)
    _draw_points(figure, points, colouring)
    _draw_thumbnails(figure, points, colouring, rows.column("uri").to_pylist(), thumbnails, show)
    _draw_legend(figure, colouring, label)
    _draw_text(figure, store, label if colouring.named.any() else None, column, len(rows), method)
    to.parent.mkdir(parents=True, exist_ok=True)
    part = to.with_name(f".{to.name}.{os.getpid()}.part")
    figure.savefig(part, format="png", metadata={DRAWN_FROM: drawn_from})
    part.replace(to)
    return to


def _check(store: FeatureStore, to: Path, label: str | None, column: str, thumbnails: int, limit: int) -> None:
    if to.suffix.lower() != ".png":
        raise UsageError(f"to={str(to)!r}: a map is a PNG file, so its name must end in .png")
    if thumbnails < 0 or limit < 1:
        raise UsageError(f"thumbnails={thumbnails} must be at least 0 and limit={limit} at least 1")
    if column not in store.dims:
        raise UsageError(f"{store.path!r} has no embedding {column!r}{nearest(column, store.dims)}: {sorted(store.dims)}")
    if label and label not in store.data_columns:
        hint = nearest(label, store.data_columns)
        raise UsageError(f"{store.path!r} has no column {label!r}{hint}: it has {store.data_columns}")
    if len(store) == 0:
        raise UsageError(f"{store.path!r} holds no rows: there is nothing to draw")


def _drawn_from(store: FeatureStore, **options: object) -> str:
    # File names of a table are never used twice, so they stand for what is in them.
    files = hashlib.sha256("\n".join(file.path for file in store.table.files).encode()).hexdigest()
    return json.dumps({"version": store.version, "files": files, **options}, sort_keys=True)


def _read_drawn_from(to: Path) -> str | None:
    try:
        with Image.open(to) as picture:
            return str(picture.info.get(DRAWN_FROM))
    except (OSError, UnidentifiedImageError):
        return None


def _to_pixels(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scale points to fill the panel without distortion; its pixels are the unit."""
    size = np.array(PANEL[2:], float)
    low, high = points.min(axis=0), points.max(axis=0)
    scale = ((size - 2 * MARGIN) / np.maximum(high - low, 1e-9)).min()
    return (points - (low + high) / 2) * scale + size / 2


def _draw_points(figure: Figure, points: npt.NDArray[np.float64], colouring: Colouring) -> None:
    left, bottom, width, height = PANEL
    axes = figure.add_axes((left / WIDTH, bottom / HEIGHT, width / WIDTH, height / HEIGHT), facecolor="white")
    axes.set(xlim=(0, width), ylim=(0, height), xticks=[], yticks=[])
    axes.spines[:].set_color("#E2E2DE")
    area = float(np.clip(60_000 / len(points), 9, 120))
    shuffled = np.random.default_rng(0).permutation(len(points))  # so that no class covers another
    for named in (False, True):
        for marker in np.unique(colouring.markers):
            rows = shuffled[((colouring.markers == marker) & (colouring.named == named))[shuffled]]
            axes.scatter(
                *points[rows].T,
                s=area,
                c=colouring.colours[rows],
                marker=str(marker),
                alpha=0.8,
                edgecolors="white",
                linewidths=0.25,
            )


def _draw_thumbnails(
    figure: Figure,
    points: npt.NDArray[np.float64],
    colouring: Colouring,
    uris: Sequence[str | None],
    count: int,
    show: Progress,
) -> None:
    if not count:
        return
    axes = figure.axes[0]
    side = int(np.clip(np.sqrt(0.2 * PANEL[2] * PANEL[3] / min(count, len(points))), 40, 150))
    rows = spread_out(points, side * 1.2)
    with show.step("reading thumbnails", count, "pictures") as advance:
        for row, picture in read_thumbnails(uris, rows, count, side):
            frame = {"edgecolor": colouring.colours[row], "facecolor": "white", "linewidth": 2.4, "boxstyle": "square"}
            image = OffsetImage(picture, zoom=72 / DPI, interpolation="antialiased")
            axes.add_artist(
                AnnotationBbox(image, tuple(points[row]), pad=0.12, bboxprops=frame, frameon=True, zorder=3)
            )
            advance()


def _draw_legend(figure: Figure, colouring: Colouring, label: str | None) -> None:
    left, bottom, width, height = PANEL
    x = (left + width + 25) / WIDTH
    top = (bottom + height) / HEIGHT
    if colouring.scale is not None:
        axes = figure.add_axes((x, top - 0.42, 0.014, 0.38))
        bar = figure.colorbar(colouring.scale, cax=axes)
        bar.outline.set_visible(False)  # type: ignore[operator]
        axes.tick_params(labelsize=12, color=FAINT, labelcolor=INK)
        axes.set_title(_short(label or ""), fontsize=14, fontweight="bold", color=INK, loc="left", pad=12, parse_math=False)
        top -= 0.45
    if colouring.legend:
        handles = [
            Line2D([], [], linestyle="", marker=e.marker, color=e.colour, markersize=11, markeredgecolor="white")
            for e in colouring.legend
        ]
        names = [f"{_short(entry.name)}  ({entry.count:,})" for entry in colouring.legend]
        legend = figure.legend(
            handles,
            names,
            title=_short(label or "") if colouring.scale is None else None,
            loc="upper left",
            bbox_to_anchor=(x - 0.008, top + 0.006),
            frameon=False,
            fontsize=12,
            labelcolor=INK,
            title_fontproperties={"size": 14, "weight": "bold"},
            alignment="left",
            labelspacing=0.75,
            handletextpad=0.3,
        )
        for text in (*legend.get_texts(), legend.get_title()):
            text.set_parse_math(False)


def _draw_text(figure: Figure, store: FeatureStore, label: str | None, column: str, shown: int, method: str) -> None:
    left = PANEL[0] / WIDTH
    total = len(store)
    name = Path(store.path.rstrip("/")).name
    rows = f"{total:,} items" if shown == total else f"a random {shown:,} of {total:,} items"
    title = f"{name}: {rows}" + (f" by {label}" if label else "")
    pretrained = "" if store.spec.pretrained else " (random weights)"
    subtitle = (
        f"{store.spec.provider}/{store.spec.name}{pretrained}  ·  {column}, {store.dims[column]:,} dimensions  ·  "
        f"store version {store.version}"
    )
    figure.text(left, 1 - 48 / HEIGHT, title, fontsize=21, fontweight="bold", color=INK, va="center", parse_math=False)
    figure.text(left, 1 - 90 / HEIGHT, subtitle, fontsize=13, color=FAINT, va="center", parse_math=False)
    figure.text(left, 52 / HEIGHT, method, fontsize=11, color=FAINT, va="center", linespacing=1.5, parse_math=False)
    if label is None:
        figure.text(1 - left, 1 - 90 / HEIGHT, "not coloured: no labels", fontsize=12, color=PLAIN, ha="right", va="center")


def _short(text: str, length: int = 22) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
