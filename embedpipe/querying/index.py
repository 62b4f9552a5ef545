"""`SimilarityIndex`: a store's vectors in memory, searched by cosine."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe.errors import UsageError
from embedpipe.neighbours import nearest_rows, normalised
from embedpipe.store import FeatureStore
from embedpipe.store.scan import read_layers


class SimilarityIndex:
    """The vectors of a store in memory, scaled to length one, for any number of searches.

    `embedpipe.search` takes an index in place of a store, and then reads the vectors only once for many calls.

    Parameters
    ----------
    store : FeatureStore or path
    layer : str, optional
        The layer to compare by, or several joined end to end; needed only where there are several.

    Attributes
    ----------
    store : FeatureStore
    layers : tuple of LayerSpec
        The layers that are joined, in order.
    ids : pyarrow.Array of str, length n
        Row i of ``vectors`` belongs to ``ids[i]``; sorted.
    vectors : float32 array (n, dim)
        Rows of length one. A row of zeros stays zero, and has cosine 0 with every query.

    Raises
    ------
    UsageError
        If the store is empty, or there is no such layer.

    Examples
    --------
    >>> index = embedpipe.SimilarityIndex("photos.features")
    >>> cosines, rows = index.search(index.vectors[:3], k=2)
    >>> index.ids.take(rows[0]).to_pylist()
    ['cat/00.jpg', 'cat/01.jpg']
    """

    def __init__(self, store: FeatureStore | str | Path, layer: str | None = None) -> None:
        self.store = store if isinstance(store, FeatureStore) else FeatureStore(store)
        self.layers = self.store.select_layers(layer)
        self.ids, vectors = read_layers(self.store.table, self.layers)
        if not len(vectors):
            raise UsageError(f"{self.store.path!r} holds no rows: embed items before searching")
        self.vectors = normalised(vectors, out=vectors)

    def __repr__(self) -> str:
        count, dim = self.vectors.shape
        return f"SimilarityIndex({self.store.path!r}, rows={count}, layer={self.layer!r}, dim={dim})"

    @property
    def layer(self) -> str:
        """Name of the layer whose vectors are compared; several are joined by ``+``."""
        return "+".join(layer.name for layer in self.layers)

    def search(self, queries: Any, k: int = 10) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Find the nearest rows of each query by cosine. Ties go to the lower id.

        Parameters
        ----------
        queries : float array (n_queries, dim) or (dim,)
            Vectors of any length but zero.
        k : int
            Number of neighbours per query, at most the number of rows.

        Returns
        -------
        cosines : float64 array (n_queries, k)
            Largest first.
        rows : int64 array (n_queries, k)
            Positions in ``ids``.

        Raises
        ------
        UsageError
            If a query is zero, not finite or of another length than the store's vectors.
        """
        return nearest_rows(self.check(queries), self.vectors, min(k, len(self.vectors)), "cosine")

    def check(self, queries: Any, name: str = "the query") -> npt.NDArray[np.float32]:
        """Return the queries scaled to length one, float32 (n_queries, dim). Raises UsageError as `search` does."""
        try:
            array = np.asarray(queries)
        except ValueError as error:
            raise UsageError(f"{name} must be an array of numbers: {error}") from error
        if array.dtype.kind not in "fiu":
            raise UsageError(f"{name} must be an array of real numbers, got {array.dtype}")
        vectors = np.atleast_2d(array.astype(np.float64))
        dim = self.vectors.shape[1]
        if vectors.ndim != 2 or vectors.shape[1] != dim or not len(vectors):
            raise UsageError(
                f"{name} must have shape ({dim},) or (n, {dim}), as layer {self.layer!r} of {self.store.path!r} has, "
                f"got {np.shape(queries)}: give vectors of {self.store.spec.provider}/{self.store.spec.name}"
            )
        for row, vector in enumerate(vectors):
            if not np.isfinite(vector).all() or not vector.any():
                problem = "is all zeros" if not vector.any() else "has NaN or infinite values"
                where = f" (row {row})" if len(vectors) > 1 else ""
                raise UsageError(f"{name} must be finite and not all zeros: it {problem}{where}")
        return normalised(vectors)

    def row_of(self, id: str) -> int | None:
        """Return the row of an id, or None if there is none."""
        return _first_position(self.ids, id)

    def row_of_uri(self, uri: str) -> int | None:
        """Return the row of the item with this URI, or None if there is none."""
        return _first_position(self._uris, uri)

    @cached_property
    def _uris(self) -> pa.ChunkedArray:
        return self.store.to_arrow(["id", "uri"]).column("uri")


def _first_position(values: pa.Array | pa.ChunkedArray, value: str) -> int | None:
    position = values.index(pa.scalar(value, pa.string())).as_py()
    return None if position < 0 else int(position)
