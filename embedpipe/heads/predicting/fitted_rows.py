"""Which predicted items a head was fitted on: it knows their labels, so that their predictions say nothing."""

from __future__ import annotations

import functools
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.errors import EmbedpipeError
from embedpipe.heads.options import MeasuredOn
from embedpipe.heads.training.training_data import fitted_ids
from embedpipe.sources.locations import is_url
from embedpipe.store import FeatureStore

FITTED_ON = "fitted_on"


class FittedRows(NamedTuple):
    """The rows that a head was fitted on, as its manifest names them; ``rows`` is their number."""

    rows: int
    store: str
    table_id: str
    version: int
    label: str
    measured_on: MeasuredOn

    def among(self, rows: pa.Table, store: FeatureStore | None) -> pa.ChunkedArray | None:
        """Return which rows are among them: of the head's own store by ``id``, of other items by ``content_hash``.

        None if no other item is among them, none has a hash, or the head's store is not on this machine any more.
        """
        if not self.rows or "content_hash" not in rows.column_names:
            return None
        if store is not None and store.table_id == self.table_id:
            return self._by_id(rows["id"], store)
        hashes = rows["content_hash"]
        if (store := self.own_store()) is None:
            return None
        try:
            stored = _stored_beginnings(self.store, store.table_id, store.version)
            if not pc.any(pc.is_in(stored, value_set=_beginnings(hashes).drop_null())).as_py():
                return None
            same = pc.field("content_hash").isin(hashes.drop_null())
            rows = store.to_dataset().to_table(["id", "content_hash"], filter=same)
            fitted = rows.filter(self._by_id(rows["id"], store)) if rows.num_rows else rows
        except (EmbedpipeError, OSError):  # predictions do not need this store
            return None
        return pc.is_in(hashes, value_set=fitted["content_hash"].combine_chunks()) if fitted.num_rows else None

    def own_store(self) -> FeatureStore | None:
        """Return the store that the head was fitted on; None if there is none, or not on this machine any more."""
        try:
            if not self.rows or is_url(self.store) or not FeatureStore.exists(self.store):
                return None
            store = FeatureStore(self.store)
        except (EmbedpipeError, OSError):  # predictions do not need this store
            return None
        return store if store.table_id == self.table_id else None

    def _by_id(self, ids: pa.ChunkedArray, store: FeatureStore) -> pa.ChunkedArray:
        return pc.is_in(ids, value_set=fitted_ids(store, self.version, self.label, self.measured_on))


@functools.lru_cache(maxsize=2)
def _stored_beginnings(path: str, table_id: str, version: int) -> pa.ChunkedArray:
    """Return the beginnings of the content hashes of a store: 20 MB of a million rows, for the next predictions too."""
    return _beginnings(FeatureStore(path).to_dataset().to_table(["content_hash"]).column(0))


def _beginnings(hashes: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.binary_slice(hashes.cast(pa.binary()), 0, 16)


def add_fitted_on(table: pa.Table, fitted: pa.ChunkedArray | None) -> pa.Table:
    """Return a table of predictions with the column before ``error``; rows after those of ``fitted`` have failed."""
    if fitted is None:
        return table
    failed = pa.array([False] * (len(table) - len(fitted)), pa.bool_())
    column = pa.chunked_array([*fitted.chunks, failed], pa.bool_())
    return table.add_column(table.column_names.index("error"), FITTED_ON, column)
