"""Search for a page: by an item, an uploaded picture, or words; queries are kept by the hash of their content."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import ReloadOptions
from embedpipe.embedding.options import ComputeOptions
from embedpipe.errors import DecodeError, Failure, UsageError
from embedpipe.querying import SimilarityIndex
from embedpipe.serving.viewing.collection import Collection, Mask
from embedpipe.serving.viewing.pictures import THUMBNAIL, check_upload, shrink
from embedpipe.sources.opening import open_source
from embedpipe.sources.options import Modality

#: Neighbours of a query that a page can scroll through.
MOST_NEIGHBOURS = 500
#: Queries whose vectors are kept.
MOST_QUERIES = 500


class Nearest(NamedTuple):
    """The nearest rows of a query, the nearest first, with their cosines, and how they were found."""

    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    how: str


@dataclass(frozen=True)
class Query:
    """An embedded picture or text.

    Attributes
    ----------
    key : str
        Hash of its content.
    text : str
        The words; empty for a picture.
    picture : bytes
        A thumbnail; empty for words.
    vector : float32 array (dim,)
    fingerprint : str
        Of the backbone.
    """

    key: str
    text: str
    picture: bytes
    vector: npt.NDArray[np.float32]
    fingerprint: str


class Searcher:
    """Finds neighbours among the rows of a collection.

    Parameters
    ----------
    layer : str, optional
        The layers to compare by.
    reload_options, compute
        How to load the backbone that embeds queries, and where.
    """

    def __init__(self, layer: str | None, reload_options: ReloadOptions, compute: ComputeOptions) -> None:
        self._layer, self._reload, self._compute = layer, reload_options, compute
        self._index: tuple[str, SimilarityIndex] | None = None
        self._backbones: dict[tuple[str, Modality], Any] = {}
        self._queries: OrderedDict[str, Query] = OrderedDict()
        self._opening, self._embedding = threading.Lock(), threading.Lock()

    def index(self, collection: Collection) -> SimilarityIndex:
        """Return the index of a collection, opened on first use."""
        with self._opening:
            if self._index is None or self._index[0] != collection.key:
                index = SimilarityIndex.load(collection.store, self._layer)
                _ = index.vectors  # opened now, and not by the first search
                self._index = collection.key, index
            return self._index[1]

    def near_row(self, collection: Collection, row: int, among: Mask | None) -> Nearest:
        """Return the rows that are most similar to an item, itself first."""
        return self._nearest(collection, self.index(collection).vectors[row], among)

    def near_query(self, collection: Collection, query: Query, among: Mask | None) -> Nearest:
        """Return the rows that are most similar to a query. Raises UsageError for one of another backbone."""
        if query.fingerprint != collection.store.spec.fingerprint():
            raise UsageError("the store has another backbone by now: search again")
        return self._nearest(collection, query.vector, among)

    def _nearest(self, collection: Collection, vector: Any, among: Mask | None) -> Nearest:
        index = self.index(collection)
        index.excluded = collection.excluded()  # rows are excluded on the page while the index is open
        scores, rows = index.search(vector, MOST_NEIGHBOURS, rows=among)
        return Nearest(rows[0], scores[0], str(index.how(rows=among)))

    def query(self, key: str) -> Query | None:
        """Return a query by its key; None for one that is not kept any more."""
        return self._queries.get(key)

    def embed_picture(self, collection: Collection, data: bytes) -> Query:
        """Embed an uploaded picture. Raises DecodeError with the reason why it cannot be."""
        check_upload(data)
        return self._embed(collection, data, "image", "", shrink(data, THUMBNAIL))

    def embed_words(self, collection: Collection, words: str) -> Query:
        """Embed words. Raises UsageError where the backbone embeds none."""
        return self._embed(collection, words, "text", words, b"")

    def _embed(self, collection: Collection, item: Any, modality: Modality, text: str, picture: bytes) -> Query:
        content = item.encode() if isinstance(item, str) else item
        key = hashlib.sha256(f"{collection.key}{modality}".encode() + content).hexdigest()[:24]
        if (known := self._queries.get(key)) is not None:
            return known
        query = Query(key, text, picture, np.empty(0, np.float32), collection.store.spec.fingerprint())
        with self._embedding:
            query = replace(query, vector=self._vector(collection, item, modality))
            self._queries[key] = query
            while len(self._queries) > MOST_QUERIES:
                self._queries.popitem(last=False)
        return query

    def _vector(self, collection: Collection, item: Any, modality: Modality) -> npt.NDArray[np.float32]:
        from embedpipe.querying.queries import load_query_backbone

        index = self.index(collection)
        kind = (collection.store.spec.fingerprint(), modality)
        if kind not in self._backbones:
            self._backbones[kind] = load_query_backbone(index, modality, self._reload, self._compute)
        from embedpipe.embedding import stream_vectors  # needs torch, which looking and refusing a query do not

        listing = open_source([item], modality=modality)
        for message in stream_vectors(listing, self._backbones[kind], self._compute, Progress(False)):
            if isinstance(message, Failure):
                raise DecodeError(message.message)
            vector: npt.NDArray[np.float32] = np.hstack([message.vectors[layer.column] for layer in index.layers])[0]
            if not vector.any():
                raise DecodeError("the backbone gives a vector of zeros, which has no cosine")
            return vector
        raise DecodeError("the upload holds no item")
