"""A map of a store: one point per item, similar items near each other, coloured by label, with some pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from PIL import Image, UnidentifiedImageError

from embedpipe._utils.progress import Progress
from embedpipe._utils.version import __version__
from embedpipe.backbones.spec import LayerSpec, random_notes
from embedpipe.errors import UsageError
from embedpipe.report.drawing.canvas import DPI, FAINT, INK, check_png, font_families, make_figure, save_figure
from embedpipe.report.drawing.colours import Colouring, colour_labels
from embedpipe.report.drawing.picture import Picture
from embedpipe.report.pictures.projection import project
from embedpipe.report.pictures.thumbnails import Layout, read_thumbnails
from embedpipe.store import FeatureStore
from embedpipe.store.scan import read_layers
from embedpipe.store.schema import require_column

#: Pixels of the whole picture, and of the panel with the points (left, bottom, width, height).
WIDTH, HEIGHT = 1600, 1240
PANEL = (40, 100, 1270, 1010)
MARGIN = 90
OPACITY = 0.8  # of the points
#: Key of the PNG's text chunk with the rows and options that it was drawn from.
DRAWN_FROM = "embedpipe.map"


def map(
    store: FeatureStore | str | Path,
    to: str | Path,
    *,
    label: str | None = "label",
    layer: str | None = None,
    thumbnails: int = 60,
    limit: int = 5000,
    seed: int = 0,
    progress: bool | None = None,
) -> Picture:
    """Draw a 2-D map of a store by t-SNE, as a PNG file 1,600 pixels wide.

    A file that was already drawn from the same rows with the same options is left as it is.

    Parameters
    ----------
    store : FeatureStore or path
    to : str or path-like
        The PNG file to write, atomically.
    label : str, optional
        The column to colour by; a numeric column with more than ten values gets a colour bar. None, or a store
        without labels, gives one colour.
    layer : str, optional
        The layer to draw, or several joined end to end; needed only where there are several.
    thumbnails : int
        The most pictures to show. Pictures that cannot be read are skipped; texts have none.
    limit : int
        The most rows to draw; of more, a random sample.
    seed : int
        Seed of the sample and of t-SNE.
    progress : bool, optional
        Show progress; by default in a notebook and on a terminal (standard error).

    Returns
    -------
    Picture
        Shows itself in a notebook, and stands for its path: ``to``.

    Raises
    ------
    UsageError
        If an argument is wrong, or the store is empty.
    StoreNotFoundError
        If there is no store at that path.

    Examples
    --------
    >>> embedpipe.map("photos.features", "map.png").path.name
    'map.png'
    """
    to = check_png(to, "a map")
    store = store if isinstance(store, FeatureStore) else FeatureStore(store)
    thumbnails = thumbnails if store.spec.modality == "image" else 0
    layers = store.select_layers(layer)
    layer = "+".join(each.name for each in layers)
    if label == "label" and label not in store.data_columns:
        label = None
    _check(store, label, thumbnails, limit)
    show = Progress(progress)
    show.say_all(random_notes([store.spec]))
    drawn_from = _drawn_from(store, label=label, layer=layer, thumbnails=thumbnails, limit=limit, seed=seed)
    if _read_drawn_from(to) == drawn_from:
        show.say(f"{to} is up to date: same rows, same options")
        return Picture(to)

    rows = store.to_arrow(["id", "uri", *([label] if label else [])])
    if len(rows) > limit:
        chosen = np.random.default_rng(seed).choice(len(rows), limit, replace=False)
        rows = rows.take(pa.array(np.sort(chosen)))
    _, vectors = read_layers(store.table, layers, rows.column("id").combine_chunks())
    points, method = project(vectors, seed, show)
    points = _to_pixels(points)
    colouring = colour_labels(rows.column(label) if label else None, len(rows))

    figure = make_figure(WIDTH, HEIGHT)
    _draw_points(figure, points, colouring)
    _draw_thumbnails(figure, points, colouring, rows.column("uri").to_pylist(), thumbnails, show)
    _draw_legend(figure, colouring, label)
    _draw_text(figure, store, label if colouring.named.any() else None, layers, len(rows), method)
    return save_figure(figure, to, {DRAWN_FROM: drawn_from})


def _check(store: FeatureStore, label: str | None, thumbnails: int, limit: int) -> None:
    if thumbnails < 0 or limit < 1:
        raise UsageError(f"thumbnails must be >= 0 and limit >= 1, got {thumbnails} and {limit}")
    if label:
        require_column(label, store.data_columns, store.path, "--label")
    if len(store) == 0:
        raise UsageError(f"{store.path!r} holds no rows: embed items before drawing a map")


def _drawn_from(store: FeatureStore, **options: object) -> str:
    # A table never uses a file name twice, so that the names identify the contents.
    files = hashlib.sha256("\n".join(file.path for file in store.table.files).encode()).hexdigest()
    return json.dumps({"embedpipe": __version__, "version": store.version, "files": files, **options}, sort_keys=True)


def _read_drawn_from(to: Path) -> str | None:
    try:
        with Image.open(to) as picture:
            return str(picture.info.get(DRAWN_FROM))
    except (OSError, UnidentifiedImageError):
        return None


def _to_pixels(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scale points to fill the panel, in pixels. The two scales differ by at most a third."""
    size = np.array(PANEL[2:], float)
    low, high = points.min(axis=0), points.max(axis=0)
    scale = (size - 2 * MARGIN) / np.maximum(high - low, 1e-9)
    scale = np.minimum(scale, scale.min() * 4 / 3)
    scaled: npt.NDArray[np.float64] = (points - (low + high) / 2) * scale + size / 2
    return scaled


def _draw_points(figure: Figure, points: npt.NDArray[np.float64], colouring: Colouring) -> None:
    left, bottom, width, height = PANEL
    axes = figure.add_axes((left / WIDTH, bottom / HEIGHT, width / WIDTH, height / HEIGHT), facecolor="white")
    axes.set(xlim=(0, width), ylim=(0, height), xticks=[], yticks=[])
    axes.spines[:].set_color("#E2E2DE")
    area = float(np.clip(60_000 / len(points), 9, 120))
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
    size = np.array(PANEL[2:], float)
    side = int(np.clip(np.sqrt(0.13 * size.prod() / min(count, len(points))), 40, 150))
    layout = Layout(points, size, side)
    with show.step("reading thumbnails", count, "pictures") as advance:
        for row, centre, picture in read_thumbnails(uris, points, layout, count):
            colour = tuple(colouring.colours[row])
            axes.plot(*np.stack([points[row], centre]).T, color=colour, linewidth=1.3, zorder=3)
            axes.scatter(points[row, 0], points[row, 1], s=42, color=[colour], edgecolors=INK, linewidths=0.9, zorder=3)
            frame = {"edgecolor": colour, "facecolor": "white", "linewidth": 2.2, "boxstyle": "square"}
            image = OffsetImage(picture, zoom=72 / DPI, interpolation="antialiased")
            axes.add_artist(AnnotationBbox(image, tuple(centre), pad=0.1, bboxprops=frame, zorder=4))
            advance()


def _draw_legend(figure: Figure, colouring: Colouring, label: str | None) -> None:
    left, bottom, width, height = PANEL
    x = (left + width + 25) / WIDTH
    top = (bottom + height) / HEIGHT
    title = _short(label or "")
    heading: dict[str, Any] = {
        "fontsize": 14,
        "fontweight": "bold",
        "color": INK,
        "parse_math": False,
        "family": font_families(),
    }
    if colouring.scale is not None:
        axes = figure.add_axes((x, top - 0.42, 0.014, 0.38), label="colour bar")
        figure.colorbar(colouring.scale, cax=axes, drawedges=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(labelsize=12, color=FAINT, labelcolor=INK)
        axes.set_title(title, loc="left", pad=12, **heading)
        top -= 0.45
    elif colouring.legend:
        figure.text(x, top, title, va="top", **heading)
        top -= 0.022
    if colouring.legend:
        marker = partial(Line2D, [], [], linestyle="", markersize=11, markeredgecolor="white")
        legend = figure.legend(
            [marker(marker=entry.marker, color=entry.colour) for entry in colouring.legend],
            [f"{_short(entry.name)}  ({entry.count:,})" for entry in colouring.legend],
            loc="upper left",
            bbox_to_anchor=(x - 0.008, top + 0.004),
            frameon=False,
            fontsize=12,
            labelcolor=INK,
            labelspacing=0.75,
            handletextpad=0.3,
        )
        for text in legend.get_texts():
            text.set(parse_math=False, fontfamily=font_families())


def _draw_text(
    figure: Figure, store: FeatureStore, label: str | None, layers: Sequence[LayerSpec], shown: int, method: str
) -> None:
    total, spec = len(store), store.spec
    items = "1 item" if total == 1 else f"{total:,} items"
    part = "" if shown == total else f"a random {shown:,} of "
    title = f"{Path(store.path).name}: {part}{items}" + (f" by {label}" if label else "")
    facts = (
        f"{spec.provider}/{spec.name}" + ("" if spec.pretrained else " (random weights)"),
        f"layer {'+'.join(layer.name for layer in layers)}, {sum(layer.dim for layer in layers):,} dimensions",
        f"store version {store.version}",
    )
    write = partial(figure.text, PANEL[0] / WIDTH, va="center", parse_math=False, family=font_families())
    write(1 - 48 / HEIGHT, title, fontsize=21, fontweight="bold", color=INK)
    write(1 - 90 / HEIGHT, "  ·  ".join(facts), fontsize=13, color=FAINT)
    write(52 / HEIGHT, method, fontsize=11, color=FAINT, linespacing=1.5)


def _short(text: str, length: int = 18) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
