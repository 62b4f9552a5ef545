"""Queries: ids, vectors, images and texts become vectors in the space of a store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import ReloadOptions
from embedpipe.embedding.options import ComputeOptions
from embedpipe.errors import BackboneError, Failure, SourceError, UsageError, nearest
from embedpipe.querying.index import SimilarityIndex
from embedpipe.sources.file_types import (
    IMAGE_SUFFIXES,
    TABLE_SUFFIXES,
    TAR_SUFFIX,
    TEXT_SUFFIXES,
    is_image_name,
    suffix_of,
)
from embedpipe.sources.listing import ROOT, Listing, numbered
from embedpipe.sources.locations import is_url, local_path, printable
from embedpipe.sources.opening import TEXT_HINT, open_source
from embedpipe.sources.options import Modality
from embedpipe.sources.reading import Joined
from embedpipe.sources.vectors.npy_files import read_npy

if TYPE_CHECKING:
    from embedpipe.backbones.backbone import Backbone

#: With more ids than this, error messages do not suggest the nearest id.
MANY_IDS = 20_000

#: A string with one of these endings is meant as a file, whether the file exists or not.
FILE_SUFFIXES = (*IMAGE_SUFFIXES, *TABLE_SUFFIXES, *TEXT_SUFFIXES, TAR_SUFFIX, ".lst", ".npy")


@dataclass(frozen=True)
class Query:
    """One query: name, URI, label and text if it has them, and its vector or the reason why it has none.

    ``rows`` are the rows in the index of the query itself, if it is an item of the store; they are no answers.
    """

    name: str
    uri: str | None = None
    label: Any = None
    vector: npt.NDArray[np.float32] | None = None
    rows: tuple[int, ...] = ()
    error: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class _Source:
    """Items to embed; ``text`` is the query itself if that is a text to search for."""

    listing: Listing
    modality: Modality
    text: str | None = None


def as_items(query: Any, name: str = "query") -> list[Any]:
    """Return the items of a query; none for None."""
    if query is None:
        return []
    if _is_vectors(query):
        return [query]
    if isinstance(query, list | tuple) and query and all(isinstance(item, int | float) for item in query):
        return [np.asarray(query, np.float64)]
    items = list(query) if isinstance(query, list | tuple) else [query]
    if not items:
        raise UsageError(f"{name} must not be an empty list: give an id, an image, a text or a vector")
    return items


def resolve_queries(
    index: SimilarityIndex,
    given: Sequence[Any],
    reload_options: ReloadOptions,
    compute: ComputeOptions,
    show: Progress,
) -> list[list[Query]]:
    """Return the queries of each item, embedded: all images in one run, and all texts in one.

    Of several items, one that the store cannot be searched by has its reason in ``error``. Raises UsageError if all
    are such, and what `reload_backbone` raises.
    """
    items: list[list[Query] | _Source] = []
    refused: list[Exception] = []

    def refuse(name: str, error: Exception) -> list[Query]:
        refused.append(error)
        return [Query(name, error=str(error).replace("\n", ". "))]

    for item in given:
        try:
            items.append(_interpret(index, item))
        except UsageError as error:
            items.append(refuse(os.fsdecode(item) if isinstance(item, str | os.PathLike) else "vector", error))
    for item in items:
        if isinstance(item, list) and item and item[0].rows and _is_another_file(item[0]):
            show.say(f"{item[0].name!r} is an id, and another file here: searching by id; for the file, begin with ./")
        if isinstance(item, _Source) and item.text is not None and not any(map(str.isspace, item.text)):
            show.say(f"{item.text!r} is neither an id nor a file: searching for it as text")
    embedded: dict[int, list[Query]] = {}
    modalities: tuple[Modality, ...] = ("image", "text")
    for modality in modalities:
        sources = {i: item for i, item in enumerate(items) if isinstance(item, _Source) and item.modality == modality}
        if not sources:
            continue
        try:
            backbone = load_query_backbone(index, modality, reload_options, compute)
        except (UsageError, BackboneError) as error:
            reasons = [_explained(index, source, error) for source in sources.values()]
            if isinstance(error, BackboneError):  # an option mends it, and all queries can be answered
                raise reasons[0] from error
            queries = [
                refuse(source.text or source.listing.root, reason)
                for source, reason in zip(sources.values(), reasons, strict=True)
            ]
        else:
            queries = _embed(index, list(sources.values()), backbone, compute, show)
        embedded.update(zip(sources, queries, strict=True))
    if len(refused) == len(items):
        raise refused[0]
    return [embedded[i] if isinstance(item, _Source) else item for i, item in enumerate(items)]


def _is_vectors(item: Any) -> bool:
    """Return whether an item is an array of vectors, and not the pixels of an image."""
    return isinstance(item, np.ndarray) and item.dtype.kind not in "OUST" and item.dtype != np.uint8


def _interpret(index: SimilarityIndex, item: Any) -> list[Query] | _Source:
    """Return an id or vectors as queries, and everything else as a source to embed."""
    if _is_vectors(item):
        return _by_vector(index, item, "vector")
    stored = index.store.spec.modality
    if not isinstance(item, str | os.PathLike):
        is_image = isinstance(item, Image.Image | np.ndarray)
        modality: Modality = "image" if is_image else stored
        return _Source(open_source([item], modality=modality), modality)
    name = os.fsdecode(item)
    if printable(name) != name:
        raise UsageError(f"query {printable(name)!r} must be valid Unicode: check the encoding")
    if (row := index.row_of(name)) is not None:
        return [_by_id(index, name, row)]
    if not name:
        raise UsageError("query must not be an empty string: give an id, an image, a text or a .npy file")
    looks_like_file = _looks_like_file(name)
    # In a store of texts, a word may also be the name of something in the working folder.
    is_file = isinstance(item, os.PathLike) or (_exists(name) and (looks_like_file or stored == "image"))
    if not is_file and not (looks_like_file and stored == "image"):
        return _Source(open_source([name], modality="text"), "text", name)
    if name.lower().endswith(".npy"):
        return _by_vector(index, _read_vectors(name), Path(name).name)
    modality = "image" if is_image_name(name) else stored
    try:
        return _Source(open_source(name, modality=modality), modality)
    except SourceError as error:
        raise UsageError(_unknown(index, name, error)) from error


def _unknown(index: SimilarityIndex, name: str, error: SourceError) -> str:
    hint = nearest(name, index.ids.to_pylist()) if len(index.ids) <= MANY_IDS else ""
    missing = str(error).removesuffix(TEXT_HINT)  # a query may be a text that is in no list
    return f"{index.store.path!r} has no id {name!r}, and {missing}{hint}"


def _is_another_file(query: Query) -> bool:
    """Return whether an id is also the name of a file in the working folder, which is not the item itself."""
    own = None if query.uri is None else local_path(query.uri)
    path = Path(query.name)
    return _exists(query.name) and not (own is not None and os.path.realpath(path) == os.path.realpath(own))


def _exists(name: str) -> bool:
    """Return whether a string names a file or folder. A URL counts if it ends like a file name; nothing is fetched."""
    if is_url(name):
        return suffix_of(name) in FILE_SUFFIXES
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # too long for a name, say
        return False


def _looks_like_file(name: str) -> bool:
    return suffix_of(name) in FILE_SUFFIXES or ("/" in name and not any(map(str.isspace, name)))


def _by_id(index: SimilarityIndex, id: str, row: int) -> Query:
    names = ["uri", "label", *(["text"] if index.store.spec.modality == "text" else [])]
    known = [name for name in names if name in index.store.data_columns]
    values = index.store.table.rows(pa.array([id]), ["id", *known]).to_pylist()[0]
    (vector,) = index.check(index.vectors[row], f"the vector of {id!r}")
    return Query(id, values.get("uri"), values.get("label"), vector, (row,), text=values.get("text"))


def _by_vector(index: SimilarityIndex, vectors: npt.NDArray[Any], name: str) -> list[Query]:
    checked = index.check(_reduced(index, vectors), name)
    return [Query(f"{name} {row}", vector=vector) for row, vector in enumerate(checked)]


def _reduced(index: SimilarityIndex, vectors: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return vectors of the network's layer as those of the reduced layer of an index; others as they are."""
    spec = index.store.spec.only(*(layer.name for layer in index.layers))
    (given, *others), X = spec.captured.layers, np.atleast_2d(vectors)
    if others or X.ndim != 2 or X.shape[1] != given.dim or index.dim == given.dim:
        return vectors
    return np.hstack(list(spec.vectors({given.column: np.asarray(X, np.float32)}).values()))


def _read_vectors(name: str) -> npt.NDArray[Any]:
    try:
        return read_npy(name)
    except ValueError as error:
        raise UsageError(f"cannot read vectors from {name!r}: {error}") from error


def _embed(
    index: SimilarityIndex,
    sources: Sequence[_Source],
    backbone: Backbone,
    compute: ComputeOptions,
    show: Progress,
) -> list[list[Query]]:
    """Embed several sources together in batches, and return the queries of each."""
    from embedpipe.embedding import stream_vectors  # needs torch, which ids and vectors do not

    vectors: dict[int, npt.NDArray[np.float32]] = {}
    texts: dict[int, str | None] = {}
    errors: dict[int, str] = {}
    for message in stream_vectors(_as_one_listing(sources), backbone, compute, show):
        if isinstance(message, Failure):
            errors[int(message.id)] = f"{message.exception}: {message.message}"
        else:
            joined = np.hstack([message.vectors[layer.column] for layer in index.layers])
            vectors.update(zip(message.rows, joined, strict=True))
            texts.update(zip(message.rows, message.texts, strict=True))
    queries = []
    start = 0
    unnamed = count()
    for source in sources:
        table = source.listing.table.select(["id", "uri", "label"])
        rows = [Query(f.id, f.uri, error=f"{f.exception}: {f.message}") for f in source.listing.failures]
        for number, item in enumerate(table.to_pylist(), start):
            name = source.text or (f"{next(unnamed):08d}" if source.listing.root == ROOT else item["id"])
            vector, error = vectors.get(number), errors.get(number)
            if vector is not None and not vector.any():
                vector, error = None, "the backbone gives a vector of zeros, which has no cosine"
            own = None if item["uri"] is None or vector is None else index.row_of_uri(item["uri"])
            itself = () if own is None else (own,)
            rows.append(Query(name, item["uri"], item["label"], vector, itself, error, texts.get(number)))
        queries.append(rows)
        start += table.num_rows
    return queries


def load_query_backbone(
    index: SimilarityIndex, modality: Modality, reload_options: ReloadOptions, compute: ComputeOptions
) -> Backbone:
    """Load the store's backbone for queries, or its tower for the other modality. Raises as `reload_backbone`."""
    from embedpipe.backbones import reload_backbone

    spec = index.store.spec.only(*(layer.name for layer in index.layers))
    return reload_backbone(spec, reload_options, compute.device, "the store", modality)


def _explained(index: SimilarityIndex, source: _Source, error: Exception) -> Exception:
    """Return an error that also says what a text is not: it may have been meant as an id or a path."""
    if source.text is None or source.modality == index.store.spec.modality:
        return error
    try:
        open_source(source.text)
    except SourceError as missing:
        message = f"{_unknown(index, source.text, missing)}\nIt cannot be searched for as text either: {error}"
        return type(error)(message)
    return error


def _as_one_listing(sources: Sequence[_Source]) -> Listing:
    """Return one listing of the items of several sources; the ids are numbers."""
    listings = [source.listing for source in sources]
    items = pa.concat_tables([listing.table.select(["uri", "source_size", "source_modified"]) for listing in listings])
    nulls = pa.nulls(items.num_rows, pa.string())
    table = pa.table({"id": numbered("", items.num_rows), **dict(zip(items.column_names, items.columns, strict=True))})
    table = table.append_column("label", nulls).append_column("split", nulls)
    read = Joined([listing.read for listing in listings], [len(listing) for listing in listings])
    notes = tuple(note for listing in listings for note in listing.notes)
    return Listing(table, "queries", read, notes=notes)
