"""The rows of a store as one table, with the points of its map, for Embedding Atlas, data frames and spreadsheets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from embedpipe._utils.progress import Progress
from embedpipe.errors import UsageError
from embedpipe.report.pictures.map_points import map_points
from embedpipe.report.pictures.thumbnails import READERS, as_jpeg, read_one
from embedpipe.report.tables import check_table, write_table
from embedpipe.store import FeatureStore
from embedpipe.store.opening import open_store
from embedpipe.store.scan import read_layers

#: Longest side of a picture in pixels, its JPEG quality, and how many are read at a time.
SIDE, QUALITY, BATCH = 256, 80, 2000
#: Columns of the points.
POINTS = ("projection_x", "projection_y")
#: A picture as Embedding Atlas and Hugging Face datasets hold it.
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def export_table(
    store: FeatureStore | str | Path,
    to: str | Path,
    *,
    layer: str | None = None,
    pictures: bool = True,
    seed: int = 0,
    progress: bool | None = None,
) -> Path:
    """Write all rows of a store to one table: its columns except the vectors, the points of its map, small pictures.

    The points are the columns ``projection_x`` and ``projection_y``, as `map` draws them. A .parquet file of photos has
    the column ``image`` with a JPEG of at most 256 pixels of each; null where a picture cannot be read, which is said.
    Embedding Atlas shows such a file:
    ``embedding-atlas atlas.parquet --x projection_x --y projection_y --image image``.

    Parameters
    ----------
    store : FeatureStore or path
    to : str or path-like
        The file, whose name ends in .parquet, .csv, .tsv, .jsonl or .xlsx; it is replaced.
    layer : str, optional
        The layer to draw, or several joined end to end; needed only where there are several.
    pictures : bool
        Add small pictures, in a .parquet file of photos.
    seed : int
        Seed of t-SNE.
    progress : bool, optional
        Show progress; by default in a notebook and on a terminal (standard error).

    Returns
    -------
    path
        ``to``.

    Raises
    ------
    UsageError
        If an argument is wrong, or the store is empty.
    StoreNotFoundError
        If there is no store at that path.

    Examples
    --------
    >>> embedpipe.export_table("photos.features", "atlas.parquet").name
    'atlas.parquet'
    """
    to = check_table(to)
    store = open_store(store, before="exporting them")
    show = Progress(progress)
    has_pictures = store.spec.modality == "image" and not store.spec.is_imported
    with_pictures = pictures and has_pictures and to.suffix.lower() == ".parquet"
    for name in (*POINTS, *(["image"] if with_pictures else [])):
        if name in store.data_columns:
            raise UsageError(
                f"the store must not have a column {name!r}: the table holds what is computed under this name"
            )
    rows = store.to_arrow(store.data_columns)
    _, vectors = read_layers(store.table, store.select_layers(layer), rows.column("id").combine_chunks())
    points, _ = map_points(vectors, seed, show)
    for name, values in zip(POINTS, points.T, strict=True):
        rows = rows.append_column(name, pa.array(values))
    if with_pictures:
        rows = rows.append_column("image", _read_pictures(rows.column("uri").to_pylist(), show))
    show.say_all(write_table(rows, to))
    return to


def _read_pictures(uris: list[str | None], show: Progress) -> pa.ChunkedArray:
    chunks, missing = [], 0
    with ThreadPoolExecutor(READERS) as pool, show.step("reading pictures", len(uris), "pictures") as advance:
        for start in range(0, len(uris), BATCH):
            part = uris[start : start + BATCH]
            cells = []
            for uri, data in zip(part, pool.map(_read_picture, part), strict=True):
                cells.append(None if data is None else {"bytes": data, "path": uri})
                missing += data is None
                advance()
            chunks.append(pa.array(cells, PICTURE))
    if missing:
        show.say(f"{missing:,} of {len(uris):,} pictures cannot be read: the column image is null there")
    return pa.chunked_array(chunks, PICTURE)


def _read_picture(uri: str | None) -> bytes | None:
    picture = None if uri is None else read_one(uri, SIDE)
    return None if picture is None else as_jpeg(picture, QUALITY)
