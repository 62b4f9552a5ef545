"""A map of a store: one point per item, similar items near each other, coloured by label, with some pictures."""

from __future__ import annotations

import hashlib
import json
import re
from html import unescape
from pathlib import Path

from PIL import Image

from embedpipe._utils.folder_kinds import check_file
from embedpipe._utils.option_names import option
from embedpipe._utils.progress import Progress
from embedpipe._utils.version import __version__
from embedpipe.backbones.spec import random_notes
from embedpipe.errors import UsageError
from embedpipe.report.drawing.canvas import save_figure
from embedpipe.report.drawing.picture import Picture
from embedpipe.report.page import SUFFIXES
from embedpipe.report.pictures.map_data import gather
from embedpipe.report.pictures.map_page import write_map_page
from embedpipe.report.pictures.map_png import draw_map
from embedpipe.store import FeatureStore
from embedpipe.store.opening import open_store
from embedpipe.store.schema import require_column

#: Key of the PNG's text chunk, and name of the page's meta element, with the rows and options that it was drawn from.
DRAWN_FROM = "embedpipe.map"
#: The file that is written if none is named.
DEFAULT = "map.png"
#: Characters of a page within which that element is.
HEAD = 16_384


def map(
    store: FeatureStore | str | Path,
    to: str | Path = DEFAULT,
    *,
    label: str | None = "label",
    layer: str | None = None,
    thumbnails: int = 60,
    seed: int = 0,
    progress: bool | None = None,
) -> Picture:
    """Draw a 2-D map of all rows of a store by t-SNE, as a PNG file 1,600 pixels wide or as an HTML page.

    Of more than 200,000 rows, a random 200,000 are projected and the others are placed among them. The points are kept
    in the cache folder, so that a map by other labels needs no new t-SNE.
    Class names are written where a class is densest. A ring marks a label that is likely wrong: at least 8 of the 10
    nearest neighbours by cosine share another label and at most one has the item's own, and the class has at least 20
    items. The page shows each item on hover, and lists these labels. A file that was already drawn from the same rows
    with the same options is left as it is.

    Parameters
    ----------
    store : FeatureStore or path
    to : str or path-like
        The .png or .html file to write, atomically. The page is one file that loads nothing. By default ``map.png``
        in the working folder, which must be a map or new.
    label : str, optional
        The column to colour by; a numeric column with more than ten values gets a colour bar. None, or a store
        without labels, gives one colour.
    layer : str, optional
        The layer to draw, or several joined end to end; needed only where there are several.
    thumbnails : int
        The most pictures to show, or of texts up to 40 beginnings. Pictures that cannot be read are skipped. A page
        has a small picture of each item, of more than 10,000 items of a random 10,000, unless this is 0.
    seed : int
        Seed of t-SNE.
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
    if to == DEFAULT and Path(to).exists() and _read_drawn_from(Path(to)) is None:
        raise UsageError(f"{DEFAULT} exists and is not a map: give another name ({option('to', 'clothes.png')})")
    to = Path(to)
    if to.suffix.lower() not in (".png", *SUFFIXES):
        raise UsageError(f"the name of a map must end in .png or .html, got {str(to)!r}")
    check_file(to)
    store = open_store(store, before="drawing a map")
    layers = store.select_layers(layer)
    layer = "+".join(each.name for each in layers)
    if label == "label" and label not in store.data_columns:
        label = None
    _check(store, label, thumbnails)
    show = Progress(progress)
    show.say_all(random_notes([store.spec]))
    drawn_from = _drawn_from(store, label=label, layer=layer, thumbnails=thumbnails, seed=seed)
    if _read_drawn_from(to) == drawn_from:
        show.say(f"{to} is up to date: same rows, same options")
        return Picture(to)

    data = gather(store, label, layers, seed, show)
    if data.doubts:
        show.say(data.doubts_note)
    if to.suffix.lower() in SUFFIXES:
        return Picture(write_map_page(data, drawn_from, thumbnails, to, show))
    return save_figure(draw_map(data, thumbnails, show), to, {DRAWN_FROM: drawn_from})


def _check(store: FeatureStore, label: str | None, thumbnails: int) -> None:
    if thumbnails < 0:
        raise UsageError(f"thumbnails must be >= 0, got {thumbnails}")
    if label:
        require_column(label, store.data_columns, store.path, "label")


def _drawn_from(store: FeatureStore, **options: object) -> str:
    # A table never uses a file name twice, so that the names identify the contents.
    files = hashlib.sha256("\n".join(file.path for file in store.table.files).encode()).hexdigest()
    return json.dumps({"embedpipe": __version__, "version": store.version, "files": files, **options}, sort_keys=True)


def _read_drawn_from(to: Path) -> str | None:
    try:
        if to.suffix.lower() in SUFFIXES:
            with to.open(encoding="utf-8") as page:
                written = re.search(rf'"{re.escape(DRAWN_FROM)}" content="([^"]*)">', page.read(HEAD))
            return unescape(written[1]) if written else None
        with Image.open(to) as picture:
            return picture.info.get(DRAWN_FROM)
    except Exception:  # Pillow raises many types; whatever the file is, it is replaced
        return None
