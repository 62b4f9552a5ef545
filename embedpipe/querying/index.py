"""`SimilarityIndex`: a store's vectors in memory, and their nearest by cosine."""

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
    """The vectors of a store, scaled to length one, for any number of searches.

    Parameters
    ----------
    store : FeatureStore or path
    layer : str, optional
        The layer to compare by, or several joined end to end; needed only where there are several.

    Attributes
    ----------
    ids : pyarrow.Array of str, length n
        In order: row i of ``vectors`` belongs to ``ids[i]``.
    vectors : float32 array (n, dim)
        Rows of length one; a row of zeros stays, and has cosine 0 with every query.

    Raises
    ------
    UsageError
        If the store is empty, or there is no such layer.
    """

    def __init__(self, store: FeatureStore | str | Path, layer: str | None = None) -> None:
        self.store = store if isinstance(store, FeatureStore) else FeatureStore(store)
        self.layers = self.store.select_layers(layer)
        self.ids, vectors = read_layers(self.store.table, self.layers)
        if not len(vectors):
            raise UsageError(f"{self.store.path!r} holds no rows: there is nothing to find")
        self.vectors = normalised(vectors, out=vectors)

    def __repr__(self) -> str:
        count, dim = self.vectors.shape
        return f"SimilarityIndex({self.store.path!r}, rows={count}, layer={self.layer!r}, dim={dim})"

    @property
    def layer(self) -> str:
        """The layer that is compared by; several are joined by ``+``."""
        return "+".join(layer.name for layer in self.layers)

    def search(self, queries: Any, k: int = 10) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Find the nearest rows; of equally near ones the first by id.

        Parameters
        ----------
        queries : float array (n_queries, dim) or (dim,)
        k : int
            At most the number of rows are returned.

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
        """Return vectors of length one, float32 (n_queries, dim). Raises UsageError if one cannot be asked for."""
        try:
            given = np.asarray(queries)
        except ValueError as error:
            raise UsageError(f"{name} is no array: {error}") from error
        if given.dtype.kind not in "fiu":
            raise UsageError(f"{name} is an array of {given.dtype}: a vector is of real numbers")
        vectors = np.atleast_2d(given.astype(np.float64))
        dim = self.vectors.shape[1]
        if vectors.ndim != 2 or vectors.shape[1] != dim or not len(vectors):
            raise UsageError(
                f"{name} has shape {np.shape(queries)}, and layer {self.layer!r} of {self.store.path!r} has vectors of "
                f"{dim} values: give (n, {dim}) or ({dim},), made by {self.store.spec.provider}/{self.store.spec.name}"
            )
        for row, vector in enumerate(vectors):
            if not np.isfinite(vector).all() or not vector.any():
                what = "is all zeros, which has no direction" if not vector.any() else "has NaN or infinite values"
                raise UsageError(f"{name} {what}{f' (row {row})' if len(vectors) > 1 else ''}")
        return normalised(vectors)

    def find(self, id: str) -> int | None:
        """Return the row of an id, or None."""
        return _place(self.ids, id)

    def find_uri(self, uri: str) -> int | None:
        """Return the row whose payload is at that place, or None."""
        return _place(self._uris, uri)

    @cached_property
    def _uris(self) -> pa.ChunkedArray:
        return self.store.to_arrow(["id", "uri"]).column("uri")


def _place(values: pa.Array | pa.ChunkedArray, value: str) -> int | None:
    at = values.index(pa.scalar(value, pa.string())).as_py()
    return None if at < 0 else int(at)
