"""What is asked of a store: ids, vectors, images and texts, each made a vector of the store's own space."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, count
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
from embedpipe.sources.listing import Listing, numbered
from embedpipe.sources.locations import is_url, printable
from embedpipe.sources.opening import open_source
from embedpipe.sources.options import Modality
from embedpipe.sources.readers.memory import ROOT

if TYPE_CHECKING:
    from embedpipe.backbones.backbone import Backbone

#: With more ids than this no nearest one is looked for to put into an error.
MANY_IDS = 20_000

#: A string that ends so is meant as a file, there or not.
FILE_SUFFIXES = (*IMAGE_SUFFIXES, *TABLE_SUFFIXES, *TEXT_SUFFIXES, TAR_SUFFIX, ".lst", ".npy")


@dataclass(frozen=True)
class Query:
    """One query: its name, place, label and text where there are such, and its vector or why it has none."""

    name: str
    uri: str | None = None
    label: Any = None
    vector: npt.NDArray[np.float32] | None = None
    row: int | None = None
    error: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class _Source:
    """Items to embed; ``text`` is the query itself, where it is free text."""

    listing: Listing
    modality: Modality
    text: str | None = None


def resolve(
    index: SimilarityIndex, query: Any, reload_options: ReloadOptions, compute: ComputeOptions, show: Progress
) -> list[Query]:
    """Turn what the user gave into queries, in its order: all images are embedded in one go, and all texts.

    Raises UsageError for what this store cannot be asked, and what `reload_backbone` raises.
    """
    asked = [_understand(index, item) for item in _listed(query)]
    for item in asked:
        if isinstance(item, _Source) and item.text is not None and not any(map(str.isspace, item.text)):
            show.say(f"{item.text!r} is no id and no file, so it is searched for as words")
    found: dict[int, list[Query]] = {}
    modalities: tuple[Modality, ...] = ("image", "text")
    for modality in modalities:
        places = [i for i, item in enumerate(asked) if isinstance(item, _Source) and item.modality == modality]
        if places:
            sources = [item for item in asked if isinstance(item, _Source) and item.modality == modality]
            embedded = _embed(index, sources, modality, reload_options, compute, show)
            found.update(zip(places, embedded, strict=True))
    return [query for i, item in enumerate(asked) for query in (found[i] if isinstance(item, _Source) else item)]


def _listed(query: Any) -> list[Any]:
    if _is_vectors(query):
        return [query]
    if isinstance(query, list | tuple) and query and all(isinstance(item, int | float) for item in query):
        return [np.asarray(query, np.float64)]
    items = list(query) if isinstance(query, list | tuple) else [query]
    if not items:
        raise UsageError("there is no query: give an id, an image, a text or a vector")
    return items


def _is_vectors(item: Any) -> bool:
    """Say whether it is an array of numbers, and not of an image's bytes."""
    return isinstance(item, np.ndarray) and item.dtype.kind not in "OUST" and item.dtype != np.uint8


def _understand(index: SimilarityIndex, item: Any) -> list[Query] | _Source:
    """Tell ids and vectors, which are queries already, from what is to be embedded."""
    if _is_vectors(item):
        return _by_vector(index, item, "vector")
    stored = index.store.spec.modality
    if not isinstance(item, str | os.PathLike):
        is_image = isinstance(item, Image.Image | np.ndarray)
        modality: Modality = "image" if is_image else stored
        return _Source(open_source([item], modality=modality), modality)
    name = os.fsdecode(item)
    if printable(name) != name:
        raise UsageError(f"{printable(name)!r} is not valid Unicode, as ids and words are: check the encoding")
    if (row := index.find(name)) is not None:
        return [_by_id(index, name, row)]
    if not name:
        raise UsageError("a query is an empty string: give an id, an image, a text or a .npy file")
    meant = _is_meant_as_file(name)
    # Among texts, a word may be the name of something in the working folder.
    is_file = isinstance(item, os.PathLike) or (_is_there(name) and (meant or stored == "image"))
    if not is_file and not (meant and stored == "image"):
        return _Source(open_source([name], modality="text"), "text", name)
    if name.lower().endswith(".npy"):
        return _by_vector(index, _read_vectors(name), Path(name).name)
    modality = "image" if is_image_name(name) else stored
    try:
        return _Source(open_source(name, modality=modality), modality)
    except SourceError as error:
        raise UsageError(_unknown(index, name, error)) from error


def _unknown(index: SimilarityIndex, name: str, error: SourceError) -> str:
    near = nearest(name, index.ids.to_pylist()) if len(index.ids) <= MANY_IDS else ""
    return f"{name!r} is no id of {index.store.path!r}, and {error}{near}"


def _is_there(name: str) -> bool:
    """Say whether a string names a file or folder; a URL is taken at its word where it ends like a file's."""
    if is_url(name):
        return suffix_of(name) in FILE_SUFFIXES
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # too long for a name, say
        return False


def _is_meant_as_file(name: str) -> bool:
    return suffix_of(name) in FILE_SUFFIXES or ("/" in name and not any(map(str.isspace, name)))


def _by_id(index: SimilarityIndex, id: str, row: int) -> Query:
    wanted = ["uri", "label", *(["text"] if index.store.spec.modality == "text" else [])]
    known = [name for name in wanted if name in index.store.data_columns]
    about = index.store.table.rows(pa.array([id]), ["id", *known]).to_pylist()[0]
    return Query(id, about.get("uri"), about.get("label"), index.vectors[row], row, text=about.get("text"))


def _by_vector(index: SimilarityIndex, vectors: npt.NDArray[Any], name: str) -> list[Query]:
    checked = index.check(vectors, name)
    return [Query(f"{name} {row}", vector=vector) for row, vector in enumerate(checked)]


def _read_vectors(name: str) -> npt.NDArray[Any]:
    try:
        vectors: npt.NDArray[Any] = np.load(name, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise UsageError(f"cannot read vectors from {name!r}: {error}") from error
    return vectors


def _embed(
    index: SimilarityIndex,
    sources: Sequence[_Source],
    modality: Modality,
    reload_options: ReloadOptions,
    compute: ComputeOptions,
    show: Progress,
) -> list[list[Query]]:
    """Embed sources in common batches, and return the queries of each."""
    from embedpipe.embedding import stream_vectors  # needs torch, which ids and vectors do not

    backbone = _load(index, sources, modality, reload_options, compute)
    vectors: dict[int, npt.NDArray[np.float32]] = {}
    texts: dict[int, str | None] = {}
    errors: dict[int, str] = {}
    for message in stream_vectors(_joined(sources), backbone, compute, show):
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
        for number, about in enumerate(table.to_pylist(), start):
            name = source.text or (f"{next(unnamed):08d}" if source.listing.root == ROOT else about["id"])
            vector, error = vectors.get(number), errors.get(number)
            if vector is not None and not vector.any():
                vector, error = None, "the backbone's vector is all zeros, which has no direction"
            own = None if about["uri"] is None or vector is None else index.find_uri(about["uri"])
            rows.append(Query(name, about["uri"], about["label"], vector, own, error, texts.get(number)))
        queries.append(rows)
        start += table.num_rows
    return queries


def _load(
    index: SimilarityIndex,
    sources: Sequence[_Source],
    modality: Modality,
    reload_options: ReloadOptions,
    compute: ComputeOptions,
) -> Backbone:
    """Load the store's backbone, or its other tower. Raises what `reload_backbone` raises."""
    from embedpipe.backbones import reload_backbone

    spec = index.store.spec.only(*(layer.name for layer in index.layers))
    try:
        return reload_backbone(spec, reload_options, compute.device, "the store", modality)
    except (UsageError, BackboneError) as error:
        text = next((source.text for source in sources if source.text is not None), None)
        if text is None or modality == spec.modality:
            raise
        try:  # it may have been meant as an id or a path
            open_source(text)
        except SourceError as missing:
            message = f"{_unknown(index, text, missing)}\nNor can it be searched for as words: {error}"
            raise type(error)(message) from error
        raise


def _joined(sources: Sequence[_Source]) -> Listing:
    """Return one listing of the items of several, with their numbers for ids."""
    listings = [source.listing for source in sources]
    about = pa.concat_tables([listing.table.select(["uri", "source_size", "source_modified"]) for listing in listings])
    nothing = pa.nulls(about.num_rows, pa.string())
    table = pa.table({"id": numbered("", about.num_rows), **dict(zip(about.column_names, about.columns, strict=True))})
    table = table.append_column("label", nothing).append_column("split", nothing)
    starts = list(accumulate((len(listing) for listing in listings), initial=0))

    def read(row: int) -> Any:
        which = bisect_right(starts, row) - 1
        return listings[which].read(row - starts[which])

    notes = tuple(note for listing in listings for note in listing.notes)
    return Listing(table, "queries", read, notes=notes)
