"""`find_similar`: from ids, images and vectors to a table of their neighbours."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.backbones.options import ReloadOptions
from embedpipe.config import build_options
from embedpipe.embedding.options import ComputeOptions
from embedpipe.errors import Failure, SourceError, UsageError, nearest
from embedpipe.progress import Progress
from embedpipe.search.index import SimilarityIndex
from embedpipe.search.options import SearchOptions
from embedpipe.sources import Listing, open_source
from embedpipe.store import FeatureStore

OPTIONS = (SearchOptions, ReloadOptions, ComputeOptions)

#: With more ids than this no nearest one is looked for to put into an error.
MANY_IDS = 20_000


@dataclass(frozen=True)
class _Query:
    """One query: its name, picture and label where there are such, and its vector or why it has none."""

    name: str
    uri: str | None = None
    label: Any = None
    vector: npt.NDArray[np.float32] | None = None
    row: int | None = None
    error: str | None = None


def find_similar(
    store: FeatureStore | SimilarityIndex | str | Path, query: Any, *, progress: bool | None = None, **options: Any
) -> pa.Table:
    """Find what in a store is nearest to each query by cosine; exact.

    Parameters
    ----------
    store : FeatureStore, path or SimilarityIndex
        An index spares reading the store again for every call.
    query : str, path-like, array, image, or a list of such
        A string is an id of the store if there is that one; else a ``.npy`` file of vectors (n, dim) or (dim,), or
        any source of images that `embedpipe.embed` takes. An array of floats is a vector, or one a row. An
        item of the store, by id or by place, is not its own neighbour.
    progress : bool, optional
        Show progress on standard error; by default only on a terminal.
    **options
        Fields of `SearchOptions`, `ReloadOptions` and `ComputeOptions`: ``k=5``...

    Returns
    -------
    pyarrow.Table
        One row a neighbour, by query and rank: ``query`` (str), ``query_uri``, ``query_label``, ``rank`` (int64, from
        1), ``score`` (float64, the cosine), ``id``, and the store's other columns, and ``error``: a query that cannot
        be read or embedded is one row with that and no neighbour.

    Raises
    ------
    UsageError
        If a query is neither an id nor a file, or its vector is zero, not finite or of another length.
    SpecMismatchError
        If the backbone that loads is not the one that made the store's vectors.
    """
    wanted, reload_options, compute = build_options(OPTIONS, options)
    index = store if isinstance(store, SimilarityIndex) else SimilarityIndex(store, wanted.column)
    show = Progress(progress)
    queries: list[_Query] = []
    for item in _listed(query):
        queries += _resolve(index, item, reload_options, compute, show)
    return _neighbours(index, queries, wanted.k)


def _listed(query: Any) -> list[Any]:
    if _is_vectors(query):
        return [query]
    if isinstance(query, list | tuple) and query and all(isinstance(item, int | float) for item in query):
        return [np.asarray(query, np.float64)]
    items = list(query) if isinstance(query, list | tuple) else [query]
    if not items:
        raise UsageError("there is no query: give an id, an image or a vector")
    return items


def _is_vectors(item: Any) -> bool:
    """Say whether it is an array of numbers, and not of an image's bytes."""
    return isinstance(item, np.ndarray) and item.dtype.kind not in "OUST" and item.dtype != np.uint8


def _resolve(
    index: SimilarityIndex, item: Any, reload_options: ReloadOptions, compute: ComputeOptions, show: Progress
) -> list[_Query]:
    """Turn what the user gave into queries: by id, by vector, or by image."""
    if isinstance(item, str | os.PathLike) and (row := index.find(os.fsdecode(item))) is not None:
        return [_by_id(index, os.fsdecode(item), row)]
    if _is_vectors(item):
        return _by_vector(index, item, "vector")
    if not isinstance(item, str | os.PathLike):
        return _by_images(index, open_source([item]), reload_options, compute, show)
    name = os.fsdecode(item)
    if not name:
        raise UsageError("a query is an empty string: give an id, an image or a .npy file")
    if name.lower().endswith(".npy"):
        return _by_vector(index, _read_vectors(name), Path(name).name)
    try:
        listing = open_source(name)
    except SourceError as error:
        near = nearest(name, index.ids.to_pylist()) if len(index.ids) <= MANY_IDS else ""
        raise UsageError(f"{name!r} is no id of {index.store.path!r}, and {error}{near}") from error
    return _by_images(index, listing, reload_options, compute, show)


def _by_id(index: SimilarityIndex, id: str, row: int) -> _Query:
    known = [name for name in ("uri", "label") if name in index.store.data_columns]
    about = index.store.table.rows(pa.array([id]), ["id", *known]).to_pylist()[0]
    return _Query(id, about.get("uri"), about.get("label"), index.vectors[row], row)


def _by_vector(index: SimilarityIndex, vectors: npt.NDArray[Any], name: str) -> list[_Query]:
    checked = index.check(vectors, name)
    return [_Query(f"{name} {row}", vector=vector) for row, vector in enumerate(checked)]


def _by_images(
    index: SimilarityIndex, listing: Listing, reload_options: ReloadOptions, compute: ComputeOptions, show: Progress
) -> list[_Query]:
    from embedpipe.backbones import reload_backbone  # needs torch, which ids and vectors do not
    from embedpipe.embedding import stream_vectors

    backbone = reload_backbone(index.store.spec.only(index.column), reload_options, compute.device, "the store")
    found: dict[str, _Query] = {}
    for message in stream_vectors(listing, backbone, compute, show):
        if isinstance(message, Failure):
            found[message.id] = _Query(message.id, message.uri, error=f"{message.exception}: {message.message}")
            continue
        for row, vector in zip(message.rows, message.vectors[index.column], strict=True):
            id, uri, label = (listing.table.column(name)[row].as_py() for name in ("id", "uri", "label"))
            if not vector.any():
                found[id] = _Query(id, uri, label, error="the backbone's vector is all zeros, which has no direction")
                continue
            own = None if uri is None else index.find_uri(uri)
            found[id] = _Query(id, uri, label, vector, own)
    return [found[id] for id in [*(f.id for f in listing.failures), *listing.table.column("id").to_pylist()]]


def _read_vectors(name: str) -> npt.NDArray[Any]:
    try:
        vectors: npt.NDArray[Any] = np.load(name, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise UsageError(f"cannot read vectors from {name!r}: {error}") from error
    return vectors


def _neighbours(index: SimilarityIndex, queries: list[_Query], k: int) -> pa.Table:
    """Search, and join the neighbours' rows of the store."""
    asked = [query.vector for query in queries if query.vector is not None]
    # One more than asked for, as a query by id does not count itself.
    found = iter(zip(*index.search(np.stack(asked), k + 1), strict=True) if asked else ())
    schema = _schema(queries)
    text = schema.field("query_label").type == pa.string()
    rows: list[dict[str, Any]] = []
    for query in queries:
        label = str(query.label) if text and query.label is not None else query.label
        about = {"query": query.name, "query_uri": query.uri, "query_label": label, "error": query.error}
        if query.vector is None:
            rows.append(about)
            continue
        scores, positions = next(found)
        others = positions != (-1 if query.row is None else query.row)
        pairs = zip(scores[others][:k].tolist(), positions[others][:k].tolist(), strict=True)
        rows += [{**about, "rank": i, "score": score, "row": row} for i, (score, row) in enumerate(pairs, 1)]
    return _joined(index, pa.Table.from_pylist(rows, schema=schema))


def _schema(queries: list[_Query]) -> pa.Schema:
    kinds = {type(query.label) for query in queries} - {type(None)}
    labels = pa.array([query.label for query in queries]).type if len(kinds) == 1 else pa.string()
    texts = [(name, pa.string()) for name in ("query", "query_uri")]
    numbers = [("rank", pa.int64()), ("score", pa.float64()), ("row", pa.int64())]
    return pa.schema([*texts, ("query_label", labels), *numbers, ("error", pa.string())])


def _joined(index: SimilarityIndex, found: pa.Table) -> pa.Table:
    """Put the store's columns in the place of row numbers."""
    ids = index.ids.take(found.column("row").combine_chunks())
    names = [name for name in index.store.data_columns if name != "id"]
    rows = index.store.table.rows(ids.unique().drop_null(), ["id", *names])
    where = pc.index_in(ids, value_set=rows.column("id").combine_chunks())
    columns = {name: found.column(name) for name in ("query", "query_uri", "query_label", "rank", "score")}
    stored = {name: rows.column(name).take(where) for name in names}
    # A metadata column may have the name of one of these, which then stands before it.
    return pa.table({**stored, **columns, "id": ids, "error": found.column("error")}).select(
        [*columns, "id", *(name for name in names if name not in {*columns, "error"}), "error"]
    )
