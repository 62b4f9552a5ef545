"""`SimilarityIndex`: the neighbours of vectors in a store, by cosine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe.backbones.spec import LayerSpec
from embedpipe.errors import UsageError
from embedpipe.neighbours import nearest_rows, normalised
from embedpipe.store import FeatureStore
from embedpipe.store.scan import read_layers

#: How neighbours are found: ``exact`` compares every query with every row.
Method = Literal["exact", "approximate"]


@dataclass(frozen=True)
class How:
    """How neighbours were found.

    Attributes
    ----------
    method : {"exact", "approximate"}
    k : int, optional
        Number of neighbours for which the recall was measured; only if approximate.
    recall : float, optional
        Measured share of the k nearest rows that are found; only if approximate.
    at_least : float, optional
        Lower end of its one-sided 95 % confidence interval.
    """

    method: Method
    k: int | None = None
    recall: float | None = None
    at_least: float | None = None

    def __str__(self) -> str:
        if self.method == "exact":
            return "exact"
        return f"approximate, recall@{self.k} {self.recall:.3f}, at least {self.at_least:.3f} (95 % confidence)"


class SimilarityIndex:
    """A store's vectors, open for any number of searches. `load` opens one.

    `embedpipe.search` takes an index in place of a store, and then opens the vectors only once for many calls.

    Attributes
    ----------
    store : FeatureStore
    layers : tuple of LayerSpec
        The layers that are joined, in order.
    ids : pyarrow.Array of str, length n
        Row i of ``vectors`` belongs to ``ids[i]``; sorted.
    vectors : float32 array (n, dim)
        As stored, of any length. A row of zeros has cosine 0 with every query.

    Examples
    --------
    >>> index = embedpipe.SimilarityIndex.load("photos.features")
    >>> cosines, rows = index.search(index.vectors[:3], k=2)
    >>> index.ids.take(rows[0]).to_pylist()
    ['cat/00.jpg', 'cat/01.jpg']
    >>> print(index.how())
    exact
    """

    def __init__(
        self, store: FeatureStore, layers: tuple[LayerSpec, ...], ids: pa.Array, vectors: npt.NDArray[np.float32]
    ) -> None:
        self.store, self.layers, self.ids, self.vectors = store, layers, ids, vectors

    @classmethod
    def load(cls, store: FeatureStore | str | Path, layer: str | None = None) -> SimilarityIndex:
        """Open the vectors of a store.

        Parameters
        ----------
        store : FeatureStore or path
        layer : str, optional
            The layer to compare by, or several joined end to end; needed only where there are several.

        Raises
        ------
        UsageError
            If the store is empty, or there is no such layer.
        """
        opened = store if isinstance(store, FeatureStore) else FeatureStore(store)
        layers = opened.select_layers(layer)
        ids, vectors = read_layers(opened.table, layers)
        if not len(vectors):
            raise UsageError(f"{opened.path!r} holds no rows: embed items before searching")
        return cls(opened, layers, ids, vectors)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        dim = self.vectors.shape[1]
        return f"SimilarityIndex({self.store.path!r}, rows={len(self)}, layer={self.layer!r}, dim={dim})"

    @property
    def layer(self) -> str:
        """Name of the layer whose vectors are compared; several are joined by ``+``."""
        return "+".join(layer.name for layer in self.layers)

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        rows: npt.NDArray[np.bool_] | npt.NDArray[np.integer[Any]] | Sequence[int] | None = None,
        exact: bool = False,
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Find the nearest rows of each query by cosine. Ties go to the lower id.

        Parameters
        ----------
        queries : float array (n_queries, dim) or (dim,)
            Vectors of any length but zero.
        k : int
            Number of neighbours per query.
        rows : bool array (n,) or int array, optional
            The rows to search in: a mask, or positions in ``ids``. All rows by default.
        exact : bool
            Compare with every row, also where an index is saved.

        Returns
        -------
        cosines : float64 array (n_queries, m)
            Largest first; m is k, or the number of rows to search in if that is smaller.
        rows : int64 array (n_queries, m)
            Positions in ``ids``.

        Raises
        ------
        UsageError
            If a query is zero, not finite or of another length than the store's vectors, or ``rows`` are no rows.
        """
        checked = self.check(queries)
        if rows is None:
            return nearest_rows(checked, self._unit, min(k, len(self)), "cosine")
        within = self._positions(rows)
        scores, places = nearest_rows(checked, self._unit[within], min(k, len(within)), "cosine")
        return scores, within[places]

    def how(self, *, rows: Any = None, exact: bool = False) -> How:
        """Return how `search` finds the neighbours with these arguments."""
        return How("exact")

    def _positions(self, rows: Any) -> npt.NDArray[np.int64]:
        """Return sorted positions of a mask or of positions in any order."""
        chosen = np.asarray(rows)
        if chosen.dtype == bool and chosen.shape == (len(self),):
            return np.flatnonzero(chosen)
        positions = np.unique(chosen) if chosen.size else np.empty(0, np.int64)
        if positions.dtype.kind not in "iu" or (len(positions) and not 0 <= positions[0] <= positions[-1] < len(self)):
            raise UsageError(
                f"rows must be a mask of {len(self)} booleans or positions in [0, {len(self)}), got {rows!r:.100}"
            )
        return positions.astype(np.int64)

    @cached_property
    def _unit(self) -> npt.NDArray[np.float32]:
        return normalised(self.vectors)

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
