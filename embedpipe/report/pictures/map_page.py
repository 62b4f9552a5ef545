"""The map of a store as an HTML page: each point shows its item on hover; no network, and one script, its own."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_hex, to_rgb
from PIL import Image
from scipy.spatial import cKDTree

from embedpipe._utils.notebook.html_tables import visible
from embedpipe._utils.progress import Progress
from embedpipe._utils.version import __version__
from embedpipe.report.drawing.canvas import text_width
from embedpipe.report.drawing.wording import clip
from embedpipe.report.links import link_to
from embedpipe.report.page import read_template, write_page
from embedpipe.report.pictures.label_votes import MEANING
from embedpipe.report.pictures.map_data import MapData
from embedpipe.report.pictures.map_names import place_names
from embedpipe.report.pictures.thumbnails import READERS, jpeg_data_url, read_one, read_small

#: Height of the drawing for each width, at least and at most; margin as a part of the width.
FLATTEST, TALLEST, MARGIN = 0.42, 0.86, 0.03
#: Units of the longer side: coordinates are 16-bit numbers.
UNITS = 65_535
#: Steps of a scale of numbers.
STEPS = 64
#: Most small pictures, pixels of all together, least and largest side of one, and JPEG quality.
MAX_PICTURES, PIXELS, SMALLEST, LARGEST, QUALITY = 10_000, 4_000_000, 48, 128, 72
#: Characters of a text or an id that are shown.
TEXT, NAME = 240, 120
#: Height and width of class names in thousandths of the width, as on a phone, where they are largest.
NAME_HEIGHT, NAME_WIDTH = 32, 1.75
#: The most likely wrong labels that are listed.
MAX_LISTED = 48
#: Longest side of their pictures in pixels.
LISTED_SIDE = 176


def write_map_page(data: MapData, drawn_from: str, pictures: int, to: Path, show: Progress) -> Path:
    """Write a map as an HTML page, with small pictures of items if ``pictures`` is not 0."""
    points, shape = _to_units(data.points)
    tiles = _read_tiles(data, show) if pictures else {}
    listed = data.doubts[:MAX_LISTED]
    uris = [uri for doubt in listed if (uri := data.uris[doubt.row])] if pictures else []
    larger = {uri: jpeg_data_url(picture, 80) for uri, picture in read_small(uris, LISTED_SIDE).items()}
    sprite, positions = _join(tiles, _side(len(data.ids)))
    looks, look = _looks(data)
    script = f"{read_template('scatter.js')}\n{read_template('map.js')}"
    items = {
        "x": points[:, 0].tolist(),
        "y": points[:, 1].tolist(),
        "look": look.tolist(),
        "looks": [{"colour": rgb, "triangle": marker == "^"} for rgb, marker in looks],
        "names": _names(points, data, shape, looks),
        "tall": round(shape * UNITS),
        "id": [clip(visible(id), NAME) for id in data.ids],
        "label": [visible(label) if label is not None else None for label in data.labels] if data.label else None,
        "text": [text and visible(" ".join(text[: 2 * TEXT].split())[:TEXT]) for text in data.texts],
        "tile": positions,
        "doubt": {doubt.row: f"{doubt.votes} of 10 neighbours: {visible(doubt.label)}" for doubt in data.doubts},
        "columns": _columns(len(tiles)),
    }
    variables = {
        "data": data,
        "shape": shape,
        "pictured": len(tiles),
        "looks": [(to_hex((rgb[0] / 255, rgb[1] / 255, rgb[2] / 255)), marker) for rgb, marker in looks],
        "legend": [(entry, looks.get(_look(entry.colour, entry.marker))) for entry in data.colouring.legend],
        "scale": _scale(data),
        "ringed": [doubt.row for doubt in data.doubts],
        "meaning": MEANING,
        "listed": [
            (doubt, larger.get(data.uris[doubt.row] or ""), link_to(data.uris[doubt.row], to.absolute().parent))
            for doubt in listed
        ],
        "sprite": sprite,
        # Compressed: a million names take 5 MB instead of 50.
        "items": base64.b64encode(gzip.compress(json.dumps(items, separators=(",", ":")).encode(), mtime=0)).decode(),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "drawn_from": drawn_from,
        "version": __version__,
        "now": datetime.now().astimezone(),
    }
    return write_page("map.html", variables, to)


def _to_units(points: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int64], float]:
    """Scale points to the drawing, y downwards; return its height by width. Two scales differ by at most a third."""
    low, high = points.min(axis=0).astype(float), points.max(axis=0).astype(float)
    scale = (np.array([1, TALLEST]) - 2 * MARGIN) / np.maximum(high - low, 1e-9)
    scale = np.minimum(scale, scale.min() * 4 / 3)
    shape = float(np.clip((high - low)[1] * scale[1] + 2 * MARGIN, FLATTEST, TALLEST))
    scaled = (points - (low + high) / 2) * scale * [1, -1] + np.array([1, shape]) / 2
    return np.rint(scaled * UNITS).astype(np.int64), round(shape, 4)


def _look(colour: Any, marker: str) -> tuple[tuple[int, int, int], str]:
    red, green, blue = (round(255 * part) for part in to_rgb(colour))
    return (red, green, blue), marker


def _looks(data: MapData) -> tuple[dict[tuple[tuple[int, int, int], str], int], npt.NDArray[np.int64]]:
    """Return the colours and markers, in the order of their numbers, and the number of each row's."""
    colours = data.colouring.colours
    if (scale := data.colouring.scale) is not None:  # a scale has a colour for each value: take the nearest of some
        steps = scale.to_rgba(np.linspace(*scale.get_clim(), STEPS))
        _, nearest = cKDTree(steps[:, :3]).query(colours[:, :3])
        colours = np.where(data.colouring.named[:, None], steps[nearest], colours)
    kinds, which = np.unique(colours[:, :3], axis=0, return_inverse=True)
    triangle = data.colouring.markers == "^"
    pairs, look = np.unique(2 * which + triangle, return_inverse=True)
    names = {_look(tuple(kinds[pair // 2]), "^" if pair % 2 else "o"): i for i, pair in enumerate(pairs.tolist())}
    return names, look


def _scale(data: MapData) -> dict[str, Any] | None:
    """Return the colours and the ends of the scale of numbers."""
    if (scale := data.colouring.scale) is None:
        return None
    low, high = scale.get_clim()
    colours = [to_hex(colour) for colour in scale.to_rgba(np.linspace(low, high, 9))]
    return {"colours": ", ".join(colours), "low": f"{low:.4g}", "high": f"{high:.4g}"}


def _names(
    points: npt.NDArray[np.int64], data: MapData, shape: float, looks: Mapping[tuple[tuple[int, int, int], str], int]
) -> list[dict[str, Any]]:
    """Return text, place and look of each class name."""
    unit = UNITS / 1000
    sizes = {
        name: (NAME_WIDTH * text_width(clip(name, 18), 10, "bold") * unit, NAME_HEIGHT * unit) for name in data.classes
    }
    size = np.array([UNITS, UNITS * shape])
    places = place_names(points.astype(float), data.classes, sizes, size, [doubt.row for doubt in data.doubts])
    entries = {
        entry.name: looks[_look(entry.colour, entry.marker)] for entry in data.colouring.legend if entry.name in places
    }
    return [
        {"text": visible(clip(name, 18)), "x": round(x), "y": round(y), "look": entries[name]}
        for name, (x, y) in places.items()
    ]


def _side(count: int) -> int:
    """Return the side of each picture in pixels."""
    return min(LARGEST, max(SMALLEST, math.isqrt(PIXELS // count)))


def _columns(count: int) -> int:
    return max(1, math.ceil(math.sqrt(count)))


def _read_tiles(data: MapData, show: Progress) -> dict[int, Image.Image]:
    """Return small pictures by row, of at most `MAX_PICTURES` rows at random, without those that cannot be read."""
    side = _side(len(data.ids))
    rows = [i for i, uri in enumerate(data.uris) if uri is not None]
    if len(rows) > MAX_PICTURES:
        rows = sorted(np.random.default_rng(0).choice(rows, MAX_PICTURES, replace=False).tolist())
    tiles = {}
    with ThreadPoolExecutor(READERS) as pool, show.step("reading pictures", len(rows), "pictures") as advance:
        pictures = pool.map(lambda row: read_one(str(data.uris[row]), side), rows)
        for row, picture in zip(rows, pictures, strict=True):
            if picture is not None:
                tiles[row] = picture
            advance()
    return tiles


def _join(tiles: dict[int, Image.Image], side: int) -> tuple[str, dict[int, int]]:
    """Return all pictures as one JPEG, which is smaller than one each, and the position of each row in it."""
    if not tiles:
        return "", {}
    columns = _columns(len(tiles))
    sheet = Image.new("RGB", (columns * side, math.ceil(len(tiles) / columns) * side), "#F0F0EC")
    positions = {}
    for position, (row, tile) in enumerate(tiles.items()):
        x, y = (position % columns) * side, (position // columns) * side
        sheet.paste(tile, (x + (side - tile.width) // 2, y + (side - tile.height) // 2))
        positions[row] = position
    return jpeg_data_url(sheet, QUALITY), positions
