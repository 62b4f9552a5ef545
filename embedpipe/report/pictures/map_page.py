"""The map of a store as an HTML page: each point shows its item on hover; no network, and one script, its own."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_hex
from PIL import Image

from embedpipe._utils.progress import Progress
from embedpipe._utils.version import __version__
from embedpipe.report.drawing.canvas import text_width
from embedpipe.report.drawing.colours import Entry
from embedpipe.report.drawing.wording import clip, visible
from embedpipe.report.links import link_to
from embedpipe.report.page import read_template, write_page
from embedpipe.report.pictures.label_votes import MEANING
from embedpipe.report.pictures.map_data import MapData
from embedpipe.report.pictures.map_names import place_names
from embedpipe.report.pictures.thumbnails import READERS, jpeg_data_url, read_one, read_small

#: Units of the drawing: width, least and largest height, margin.
WIDTH, LEAST, MOST, MARGIN = 1000, 420, 860, 30
#: Pixels of all pictures together, least and largest side of one, and JPEG quality.
PIXELS, SMALLEST, LARGEST, QUALITY = 4_000_000, 48, 128, 72
#: Characters of a text or an id that are shown.
TEXT, NAME = 240, 120
#: Height and width of class names, as on a phone, where they are largest.
NAME_HEIGHT, NAME_WIDTH = 32, 1.75
#: The most likely wrong labels that are listed.
MAX_LISTED = 48
#: Longest side of their pictures in pixels.
LISTED_SIDE = 176


def write_map_page(data: MapData, drawn_from: str, pictures: int, to: Path, show: Progress) -> Path:
    """Write a map as an HTML page, with a picture for each item if ``pictures`` is not 0."""
    points, height = _to_units(data.points)
    tiles = _read_tiles(data, show) if pictures else {}
    listed = data.doubts[:MAX_LISTED]
    uris = [uri for doubt in listed if doubt.row in tiles and (uri := data.uris[doubt.row])]
    larger = {uri: jpeg_data_url(picture, 80) for uri, picture in read_small(uris, LISTED_SIDE).items()}
    side = _side(len(data.ids))
    sprite, positions = _join(tiles, side)
    kinds: dict[tuple[str, str], int] = {}
    colours = [to_hex(colour) for colour in data.colouring.colours]
    each = [kinds.setdefault(kind, len(kinds)) for kind in zip(colours, data.colouring.markers.tolist(), strict=True)]
    script = read_template("map.js")
    items = {
        "x": points[:, 0].round(1).tolist(),
        "y": points[:, 1].round(1).tolist(),
        "kind": each,
        "id": [clip(visible(id), NAME) for id in data.ids],
        "label": [visible(label) if label is not None else None for label in data.labels],
        "text": [text and visible(" ".join(text[: 2 * TEXT].split())[:TEXT]) for text in data.texts],
        "tile": [positions.get(i, -1) for i in range(len(data.ids))],
        "doubt": {doubt.row: f"{doubt.votes} of 10 neighbours: {visible(doubt.label)}" for doubt in data.doubts},
        "side": side,
        "columns": _columns(len(tiles)),
    }
    variables = {
        "data": data,
        "height": height,
        "radius": round(float(np.clip(110 / math.sqrt(len(points)), 2.2, 6.5)), 1),
        "order": np.random.default_rng(0).permutation(len(points)).tolist(),  # so that no class hides another
        "points": points.round(1).tolist(),
        "each": each,
        "kinds": [(colour, marker) for colour, marker in kinds],
        "legend": [(entry, kinds.get(_kind(entry))) for entry in data.colouring.legend],
        "scale": _scale(data),
        "names": _names(points, data, np.array([WIDTH, height], float), kinds),
        "ringed": [doubt.row for doubt in data.doubts],
        "meaning": MEANING,
        "listed": [
            (doubt, larger.get(data.uris[doubt.row] or ""), link_to(data.uris[doubt.row], to.absolute().parent))
            for doubt in listed
        ],
        "sprite": sprite,
        # A "<" could end the element that holds the data.
        "items": json.dumps(items, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c"),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "drawn_from": drawn_from,
        "version": __version__,
        "now": datetime.now().astimezone(),
    }
    return write_page("map.html", variables, to)


def _to_units(points: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], int]:
    """Scale points to the drawing, y downwards; return its height. The two scales differ by at most a third."""
    low, high = points.min(axis=0), points.max(axis=0)
    scale = (np.array([WIDTH, MOST]) - 2 * MARGIN) / np.maximum(high - low, 1e-9)
    scale = np.minimum(scale, scale.min() * 4 / 3)
    height = math.ceil(max(LEAST, (high - low)[1] * scale[1] + 2 * MARGIN))
    scaled: npt.NDArray[np.float64] = (points - (low + high) / 2) * scale * [1, -1] + np.array([WIDTH, height]) / 2
    return scaled, height


def _kind(entry: Entry) -> tuple[str, str]:
    return to_hex(entry.colour), entry.marker


def _scale(data: MapData) -> dict[str, Any] | None:
    """Return the colours and the ends of the scale of numbers."""
    if (scale := data.colouring.scale) is None:
        return None
    low, high = scale.get_clim()
    colours = [to_hex(colour) for colour in scale.to_rgba(np.linspace(low, high, 9))]
    return {"colours": ", ".join(colours), "low": f"{low:.4g}", "high": f"{high:.4g}"}


def _names(
    points: npt.NDArray[np.float64], data: MapData, size: npt.NDArray[np.float64], kinds: dict[tuple[str, str], int]
) -> list[tuple[str, float, float, int]]:
    """Return text, place and kind of each class name."""
    sizes = {name: (NAME_WIDTH * text_width(clip(name, 18), 10, "bold"), NAME_HEIGHT) for name in data.classes}
    places = place_names(points, data.classes, sizes, size, [doubt.row for doubt in data.doubts])
    entries = {entry.name: kinds[_kind(entry)] for entry in data.colouring.legend if entry.name in places}
    return [(clip(name, 18), round(x, 1), round(y, 1), entries[name]) for name, (x, y) in places.items()]


def _side(count: int) -> int:
    """Return the side of each picture in pixels."""
    return min(LARGEST, max(SMALLEST, math.isqrt(PIXELS // count)))


def _columns(count: int) -> int:
    return max(1, math.ceil(math.sqrt(count)))


def _read_tiles(data: MapData, show: Progress) -> dict[int, Image.Image]:
    """Return a small picture of each row whose picture can be read."""
    side = _side(len(data.ids))
    rows = [i for i, uri in enumerate(data.uris) if uri is not None]
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
