"""`SimilarityIndex`: the neighbours of vectors in a store, by cosine."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe._utils.progress import Progress
from embedpipe.backbones.spec import LayerSpec
from embedpipe.errors import StoreError, UsageError
from embedpipe.neighbours import NearRows, Recall, measure_recall, nearest_rows, normalised
from embedpipe.neighbours.approximate import FEW_ROWS
from embedpipe.neighbours.exact import Vectors
from embedpipe.querying.building import build_index, update_index
from embedpipe.querying.how import How
from embedpipe.querying.options import IndexOptions
from embedpipe.querying.saved_index import IndexRefusedError, SavedIndex, open_index
from embedpipe.report.drawing.wording import counted
from embedpipe.splits.mapped_rows import MappedRows
from embedpipe.store import FeatureStore
from embedpipe.store.editing.exclusion import excluded_rows
from embedpipe.store.mapping.vector_map import find_map
from embedpipe.store.opening import open_store
from embedpipe.store.scan import MAPPED_BYTES, layer_maps, read_layers

#: Up to so many bytes of vectors, exact search is fast enough.
EXACT_BYTES = 1 << 30

State = Literal["none", "ready", "behind", "refused"]


class SimilarityIndex:
    """A store's vectors, open for any number of searches. `load` opens one, `build` also saves what makes it fast.

    Without a saved index, searches compare all rows. With one, they compare those of the cells that are nearest to a
    query. `embedpipe.search` takes an index in place of a store, and then opens it only once for many calls.

    Attributes
    ----------
    store : FeatureStore
    layers : tuple of LayerSpec
        The layers that are joined, in order.
    state : {"none", "ready", "behind", "refused"}
        Of the saved index. ``behind``: the store has changed; new rows are compared with every query and removed ones
        left out. ``refused``: it is damaged or another store's, and searches are exact.
    saved : SavedIndex or None
        The saved index; its ``manifest`` holds what was measured.
    reason : str
        Why the saved index is refused; else empty.

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
        self, store: FeatureStore, layers: tuple[LayerSpec, ...], saved: SavedIndex | None = None, reason: str = ""
    ) -> None:
        self.store, self.layers, self.saved, self.reason = store, layers, saved, reason

    @classmethod
    def load(cls, store: FeatureStore | str | Path, layer: str | None = None) -> SimilarityIndex:
        """Open a store for searches, with its saved index if there is one.

        A saved index that cannot be used is refused with a warning.

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
        opened = open_store(store, before="searching")
        layers = opened.select_layers(layer)
        try:
            return cls(opened, layers, open_index(opened, layers[0].name) if len(layers) == 1 else None)
        except IndexRefusedError as error:
            warnings.warn(
                f"the index of {opened.path!r} is not used: {error}. Searches are exact; run `embedpipe index` to "
                "make it again",
                stacklevel=2,
            )
            return cls(opened, layers, reason=str(error))

    @classmethod
    def build(
        cls,
        store: FeatureStore | str | Path,
        layer: str | None = None,
        *,
        recall: float = IndexOptions().recall,
        memory: str | None = None,
        rebuild: bool = False,
        progress: bool | None = None,
    ) -> SimilarityIndex:
        """Build the saved index of a store, in ``STORE.index``, and open it.

        If there is one that keeps the same promise, changes of the store are taken into it; see `update`.

        Parameters
        ----------
        store : FeatureStore or path
            On a local disk.
        layer : str, optional
            The layer to compare by; needed only where there are several.
        recall : float
            Share of a query's 10 nearest rows to find, in (0, 1). The lower end of the 95 % confidence interval
            reaches it.
        memory : str, optional
            Largest size of the index, such as ``"500MB"``. By default, 8 bits per value are kept.
        rebuild : bool
            Build it anew, also where it can be updated.
        progress : bool, optional
            Show progress; by default in a notebook and on a terminal (standard error).

        Raises
        ------
        UsageError
            If an option is out of range, the store is empty or not on a local disk, or no index is so small.
        WriteError
            If the folder cannot be written.
        """
        options, show = IndexOptions(recall, memory), Progress(progress)
        opened = open_store(store, before="searching")
        opened.select_layers(layer, joined=False)
        with warnings.catch_warnings(action="ignore"):
            index = cls.load(opened, layer)
        if index.reason:
            show.say(f"the index of {index.store.path!r} is built anew: {index.reason}")
        saved = index.saved
        if saved and not rebuild and (saved.manifest.target, saved.manifest.memory) == (recall, options.memory_bytes):
            return index.update(progress)
        saved = build_index(index.store, index.layers, index.vectors, options, show)
        return cls(index.store, index.layers, saved)

    def update(self, progress: bool | None = None) -> SimilarityIndex:
        """Take rows that were added to the store, changed or removed into the saved index, and open it.

        The result has the newest version of the store; this index stays as it is.

        It is built anew if more than a quarter of the rows changed, the cells became twice as uneven, or the lower
        bound of the recall fell below the target; a message says so.

        Parameters
        ----------
        progress : bool, optional
            Show progress; by default in a notebook and on a terminal (standard error).

        Raises
        ------
        UsageError
            If no index is saved.
        """
        if self.saved is None:
            raise UsageError(f"{self.store.path!r} has no index that can be updated: build one first")
        index = self.load(self.store.path, self.layer)
        if index.saved is None:  # another process removed or damaged it
            return index
        saved = update_index(index.store, index.layers, index.vectors, index.saved, index._rows, Progress(progress))
        return type(self)(index.store, index.layers, saved)

    def recall(self, k: int = 10, rows: int = 1000, seed: int = 0) -> Recall:
        """Measure the recall of searches now, on rows of the store that are drawn at random; 1 if they are exact.

        Parameters
        ----------
        k : int
            Number of neighbours.
        rows : int
            Number of rows that are queries.
        seed : int
            Of the draw.
        """
        k = min(k, len(self) - 1)
        if self._near is None or not k:
            return Recall(k, 1.0, 1.0, 0)
        return measure_recall(self._near, self.vectors, "cosine", k, rows, seed)

    def __len__(self) -> int:
        return len(self.store)

    def __repr__(self) -> str:
        return (
            f"SimilarityIndex({self.store.path!r}, rows={len(self)}, layer={self.layer!r}, dim={self.dim}, "
            f"state={self.state!r})"
        )

    @property
    def layer(self) -> str:
        """Name of the layer whose vectors are compared; several are joined by ``+``."""
        return "+".join(layer.name for layer in self.layers)

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return sum(layer.dim for layer in self.layers)

    @property
    def ids(self) -> pa.Array:
        """Ids of the rows, sorted; row i of ``vectors`` belongs to ``ids[i]``."""
        return self._opened[0]

    @property
    def vectors(self) -> Vectors:
        """The vectors as stored, float32 (n, dim): an array, or a memory map if they are large."""
        return self._opened[1]

    @property
    def state(self) -> State:
        """State of the saved index."""
        if self.saved is None:
            return "refused" if self.reason else "none"
        if self.saved.manifest.version == self.store.version:
            return "ready"
        row_of, loose = self._rows
        return "behind" if len(loose) or (row_of >= 0).sum() < len(self.saved.keys) else "ready"

    def notes(self) -> list[str]:
        """Return what to know of searches, in sentences: rows that they leave out, and what would make them faster."""
        notes = [f"{counted(len(self.excluded), 'excluded row')} left out"] if len(self.excluded) else []
        size = 4 * len(self) * self.dim
        if self.state == "none" and size > EXACT_BYTES:
            notes.append(f"all {size / 1e9:.1f} GB of vectors are compared: `embedpipe index` makes searches faster")
        if self.state == "behind" and (new := len(self._rows[1])):
            new_rows = counted(new, "new row")
            notes.append(f"{new_rows} not yet in the index: `embedpipe index` takes changes of the store in")
        return notes

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
            The rows to search in: a mask, or positions in ``ids``. All rows by default. Excluded rows are left out.
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
        within = self.within(rows)
        k = min(k, len(self) if within is None else len(within))
        if exact or self._near is None:
            return nearest_rows(checked, self.vectors, k, "cosine", within=within)
        return self._near.search(checked, k, within=within)

    def how(self, *, rows: Any = None, exact: bool = False) -> How:
        """Return how `search` finds the neighbours with these arguments."""
        within = self.within(rows)
        few = within is not None and len(within) <= FEW_ROWS
        if exact or self.saved is None or few:
            return How("exact")
        recall = self.saved.manifest.recall
        return How("approximate", recall.k, recall.mean, recall.at_least)

    def within(self, rows: Any = None) -> npt.NDArray[np.int64] | None:
        """Return the sorted positions that a search in these rows looks at; None for all rows of the store."""
        chosen = None if rows is None else self._positions(rows)
        if not len(self.excluded):
            return chosen
        return np.setdiff1d(np.arange(len(self)) if chosen is None else chosen, self.excluded, assume_unique=True)

    @cached_property
    def excluded(self) -> npt.NDArray[np.int64]:
        """Positions of the rows that are excluded, which are no neighbours."""
        return excluded_rows(self.store.table)

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
    def _opened(self) -> tuple[pa.Array, Vectors]:
        """Ids and vectors: from memory maps, which are made if they are large, else in memory."""
        found = [find_map(self.store.table, each.column, each.dim) for each in self.layers]
        maps = [each for each in found if each is not None]
        if len(maps) < len(found) and 4 * len(self.store) * self.dim > MAPPED_BYTES:
            try:
                maps = layer_maps(self.store.table, self.layers)
            except StoreError as error:
                warnings.warn(f"{error}. All vectors are read into memory", stacklevel=3)
        if len(maps) < len(found):
            return read_layers(self.store.table, self.layers)
        vectors = [each.vectors for each in maps]
        return maps[0].ids, vectors[0] if len(vectors) == 1 else MappedRows(vectors)

    @cached_property
    def _rows(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The row of each key of the saved index, and the rows without a key."""
        assert self.saved is not None
        return self.saved.rows(self.store)

    @cached_property
    def _near(self) -> NearRows | None:
        if self.saved is None:
            return None
        return NearRows(self.vectors, "cosine", self.saved.cells, self.saved.manifest.tuning, *self._rows)

    def check(self, queries: Any, name: str = "the query") -> npt.NDArray[np.float32]:
        """Return the queries scaled to length one, float32 (n_queries, dim). Raises UsageError as `search` does."""
        try:
            array = np.asarray(queries)
        except ValueError as error:
            raise UsageError(f"{name} must be an array of numbers: {error}") from error
        if array.dtype.kind not in "fiu":
            raise UsageError(f"{name} must be an array of real numbers, got {array.dtype}")
        vectors = np.atleast_2d(array.astype(np.float64))
        dim = self.dim
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
