"""Joining the rows of a store with the vectors that were staged for them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.option_names import option
from embedpipe._utils.progress import Advance, uncounted
from embedpipe.embedding.plan import content_columns
from embedpipe.embedding.verification.drift import drifts
from embedpipe.embedding.verification.verify import MIN_COSINE
from embedpipe.errors import Failure, PruneRefusedError, SpecMismatchError, StoreError
from embedpipe.store import FeatureStore
from embedpipe.store.layers.projections import project
from embedpipe.store.schema import differ, matrix, vector_column

#: What the source of a row said when it was embedded.
_SOURCE = ["id", "content_hash", "source_size", "source_modified"]


class NewRowsError(Exception):
    """The store has rows that were not staged, as another process has added or changed them."""


class RowJoin:
    """Adds staged vectors to the rows of a store.

    A row whose item has changed takes all that the content decides from the staged row: content hash, the vectors of
    all layers, the beginning of a text. Its label and other values stay.

    Parameters
    ----------
    store : FeatureStore
    staged : FeatureStore
        The same items, with the layers of the store and more.
    prune : bool
        Leave out rows whose item cannot be embedded. Otherwise they are an error.
    force : bool
        Leave them out even if they are more than half.
    """

    def __init__(self, store: FeatureStore, staged: FeatureStore, *, prune: bool, force: bool) -> None:
        self._store, self._staged = store, staged
        self._prune, self._force = prune, force
        self._old, self._all = store.dims, staged.dims
        self._dropped = pa.array([], pa.string())
        self.changed = 0
        self.advance: Advance = uncounted

    @property
    def dropped(self) -> int:
        """Number of rows that are left out."""
        return len(self._dropped)

    @property
    def notes(self) -> list[str]:
        """What became of changed and dropped items, as sentences."""
        notes = []
        if self.changed:
            notes.append(
                f"items that have changed since they were embedded, and got new vectors in all layers: {self.changed:,}"
            )
        if self.dropped:
            notes.append(f"rows of items that cannot be read or embedded any more, dropped: {self.dropped:,}")
        return notes

    def check(self) -> None:
        """Compare the rows of the store with the staged rows.

        Raises
        ------
        NewRowsError
            Rows were added or changed meanwhile.
        StoreError
            Items failed. `PruneRefusedError` if more than half are to be left out.
        """
        self.changed = 0
        rows, staged = (store.table.read(_SOURCE) for store in (self._store, self._staged))
        place = pc.index_in(rows.column("id"), value_set=staged.column("id").combine_chunks())
        missing = np.asarray(pc.is_null(place)).copy()
        for name in ("source_size", "source_modified"):
            missing |= np.asarray(differ(rows.column(name), staged.column(name).take(place)))
        ids = rows.column("id").filter(pa.array(missing)).combine_chunks()
        failures = self._staged.failures()
        failures = failures.filter(pc.is_in(failures.column("id"), value_set=ids))
        if failures.num_rows < len(ids):
            raise NewRowsError
        self._dropped = ids
        if not len(ids):
            return
        first = failures.slice(0, 1).to_pylist()[0]
        failed = f"{len(ids):,} of {len(rows):,} items failed, the first {first['id']!r}: {first['message']}"
        if not self._prune:
            raise StoreError(
                f"every row must have a vector of the new layer, but {failed}. Restore the items and run it again, or "
                f"drop their rows with {option('prune', True)}: what was embedded is kept"
            )
        if len(ids) > len(rows) / 2 and not self._force:
            raise PruneRefusedError(
                f"{failed}. Check that the source is there and complete, then pass {option('force', True)}"
            )

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Return rows of the store with the vectors of all layers. Raises SpecMismatchError if the old ones differ."""
        self.advance(len(rows))
        rows = rows.filter(pc.invert(pc.is_in(rows.column("id"), value_set=self._dropped)))
        content = [name for name in content_columns(self._store) if name in rows.column_names]
        known = [name for name in content if name in self._staged.columns]
        staged = self._staged.table.rows(rows.column("id").combine_chunks(), ["id", "content_hash", *known, *self._all])
        staged = staged.take(pc.index_in(rows.column("id"), value_set=staged.column("id").combine_chunks()))
        changed = np.asarray(pc.not_equal(rows.column("content_hash"), staged.column("content_hash")))
        self.changed += int(changed.sum())
        for name in ["content_hash", *content]:
            is_known = name in staged.column_names
            new = staged.column(name) if is_known else pa.nulls(len(rows), rows.schema.field(name).type)
            rows = _with(rows, name, pc.if_else(pa.array(changed), new, rows.column(name)))
        for name, dim in self._all.items():
            column = staged.column(name)
            if name in self._old:
                stored, new = matrix(rows.column(name), dim, name), matrix(column, dim, name)
                self._check_same(name, rows, stored, new, ~changed)
                if not changed.any():
                    continue
                column = pa.chunked_array([vector_column(np.where(changed[:, None], new, stored))])
            rows = _with(rows, name, column)
        return project(rows, self._store.spec) if changed.any() else rows

    def _check_same(
        self,
        name: str,
        rows: pa.Table,
        stored: npt.NDArray[np.float32],
        new: npt.NDArray[np.float32],
        same: npt.NDArray[np.bool_],
    ) -> None:
        if not same.any():
            return
        moved = np.where(same, drifts(stored, new), 0)
        worst = int(moved.argmax())
        least = MIN_COSINE[self._store.spec.precision]
        if 1 - moved[worst] < least:
            raise SpecMismatchError(
                f"the network must give the stored vectors again, with a cosine >= {least}, but {name} of "
                f"{rows.column('id')[worst].as_py()!r} has {1 - moved[worst]:.6f}: a library has changed what it "
                "computes. Nothing was added; embed into a new store"
            )

    def record_dropped(self) -> None:
        """Record the failures of the rows that were left out in the failures table of the store."""
        failures = self._staged.failures()
        for row in failures.filter(pc.is_in(failures.column("id"), value_set=self._dropped)).to_pylist():
            failure = Failure(row["id"], row["uri"], row["stage"], row["exception"], row["message"])
            self._store.failures_table.record([failure], row["source_root"])


def _with(rows: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    """Return rows with a column in place of the one of that name, or as the last."""
    at = rows.schema.get_field_index(name)
    return rows.append_column(name, column) if at < 0 else rows.set_column(at, rows.schema.field(name), column)
