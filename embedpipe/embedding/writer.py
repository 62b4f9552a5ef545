"""The writer thread: collects finished rows and commits them to the store, in bounded atomic steps."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.embedding.plan import take_near
from embedpipe.embedding.summary import StageTimer
from embedpipe.errors import Failure
from embedpipe.sources.listing import Listing
from embedpipe.store import FeatureStore
from embedpipe.store.keyed_table import KeyedTable
from embedpipe.store.schema import KEY_FIELDS, conform, storable, vector_column

#: A commit is due after this many rows or seconds, but not sooner after the last one than the pause. A kill loses no
#: more than that, what comes while a commit is made, and one batch each in the backbone and before it: under 2,048 rows
#: for batches up to 256, or the work of a second.
FLUSH_ROWS = 768
FLUSH_SECONDS = 20.0
FLUSH_PAUSE = 0.5

#: Messages that may wait while a commit is made, a few tenths of a second, so that the loop does not.
MOST_WAITING = 16

#: However fast they come, no more rows than this wait for a commit.
MOST_ROWS = 1 << 16

#: Columns that are never carried over from another row.
KEPT_BY_THE_STORE = {field.name for field in KEY_FIELDS}


@dataclass(frozen=True)
class Embedded:
    """Rows of the listing with new vectors: column -> float32 (n, dim).

    ``counts`` are those of their items, summed; ``texts`` the beginnings of the texts that they were, None of images.
    """

    rows: list[int]
    hashes: list[str]
    vectors: dict[str, npt.NDArray[np.float32]]
    counts: Counter[str]
    texts: list[str | None]


@dataclass(frozen=True)
class Reused:
    """A row of the listing that takes the stored vector of ``from_id``."""

    row: int
    hash: str
    from_id: str


Message = Embedded | Reused | Failure


class RowWriter:
    """Commits rows from a thread of its own, so that the loop never waits for the disk.

    An exception in the thread is raised again by the next `put` or by `close`.
    """

    def __init__(
        self,
        store: FeatureStore,
        listing: Listing,
        note: Mapping[str, Any],
        timer: StageTimer,
    ):
        self.embedded = self.reused = 0
        self.counts: Counter[str] = Counter()
        self.failed_ids: list[str] = []
        self._store, self._listing, self._note, self._timer = store, listing, note, timer
        # Vectors are reused from the version that the plan was made on: rows may change places in this very run.
        self._planned = KeyedTable(store.path, store.version)
        self._said = _what_is_said(listing, store)
        self._queue: queue.Queue[Message | None] = queue.Queue(maxsize=MOST_WAITING)
        self._pending: list[Message] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="embedpipe-writer", daemon=True)
        self._thread.start()

    def put(self, message: Message) -> None:
        """Hand over finished rows; waits while the writer is behind."""
        self._raise()
        self._queue.put(message)

    def close(self) -> None:
        """Commit what is left and end the thread."""
        self._queue.put(None)
        self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        last, count, closing = time.monotonic(), 0, False
        while not closing:
            try:
                message = self._queue.get(timeout=max(0.01, last + FLUSH_SECONDS - time.monotonic()))
            except queue.Empty:
                message = None
            else:
                closing = message is None
            if message is not None and self._error is None:
                self._pending.append(message)
                count += len(message.rows) if isinstance(message, Embedded) else 1
            since = time.monotonic() - last
            ripe = count >= FLUSH_ROWS and (since >= FLUSH_PAUSE or count >= MOST_ROWS)
            if closing or ripe or since >= FLUSH_SECONDS:
                if self._error is None:
                    try:
                        self._flush()
                    except BaseException as error:  # raised again in the loop's own thread
                        self._error = error
                self._pending, last, count = [], time.monotonic(), 0

    def _flush(self) -> None:
        embedded = [m for m in self._pending if isinstance(m, Embedded)]
        reused = [m for m in self._pending if isinstance(m, Reused)]
        failures = [m for m in self._pending if isinstance(m, Failure)]
        with self._timer("write"):
            parts = [self._embedded_rows(embedded)] if embedded else []
            parts += [self._reused_rows(reused)] if reused else []
            unchanged = 0
            if parts:
                unchanged = self._store.write(pa.concat_tables(parts, promote_options="default"), self._note).unchanged
            self._store.failures_table.record(failures, self._listing.root)
        count = sum(len(m.rows) for m in embedded)
        # Rows that another writer has committed meanwhile, beyond those that were to stay as they are, are reused.
        already = min(count, max(0, unchanged - len(reused)))
        self.embedded += count - already
        self.reused += len(reused) + already
        self.failed_ids += [failure.id for failure in failures]
        for message in embedded:
            self.counts.update(message.counts)

    def _embedded_rows(self, messages: list[Embedded]) -> pa.Table:
        rows = self._source_rows([row for m in messages for row in m.rows], [h for m in messages for h in m.hashes])
        if self._listing.excerpts and messages[0].texts[0] is not None:
            rows = rows.append_column("text", pa.array([text for m in messages for text in m.texts], pa.string()))
        rows = self._fill(rows, rows.column("id"), self._store.table)
        for column in messages[0].vectors:
            rows = rows.append_column(column, vector_column(np.concatenate([m.vectors[column] for m in messages])))
        return rows

    def _reused_rows(self, messages: list[Reused]) -> pa.Table:
        rows = self._source_rows([m.row for m in messages], [m.hash for m in messages])
        from_ids = pa.array([m.from_id for m in messages])
        # What was said late belongs to the content where that is known, else to the id.
        own = pc.equal(from_ids, rows.column("id"))
        rows = self._fill(rows, pc.if_else(own, from_ids, None), self._store.table)
        rows = self._fill(rows, pc.if_else(own, None, from_ids), self._planned)
        stored = self._planned.rows(pc.unique(from_ids), ["id", *self._store.dims])
        place = pc.index_in(from_ids, value_set=stored.column("id").combine_chunks())
        for name in self._store.dims:
            rows = rows.append_column(self._store.schema.field(name), stored.column(name).take(place))
        return rows

    def _source_rows(self, rows: list[int], hashes: list[str]) -> pa.Table:
        table = take_near(self._said, np.array(rows, np.int64))
        table = table.append_column("content_hash", pa.array(hashes, pa.string()))
        return table.append_column("source_root", pa.array([self._listing.root] * len(rows), pa.string()))

    def _fill(self, rows: pa.Table, from_ids: pa.Array, table: KeyedTable) -> pa.Table:
        """Where the source says nothing (a late label, a column of another source), keep what is stored."""
        names = [name for name in table.schema.names if name not in KEPT_BY_THE_STORE and name not in self._store.dims]
        stored = table.rows(pc.drop_null(pc.unique(from_ids)), ["id", *names])
        if stored.num_rows == 0:
            return rows
        place = pc.index_in(from_ids, value_set=stored.column("id").combine_chunks())
        for name in names:
            kept = stored.column(name).take(place)
            if name in rows.column_names:
                index = rows.column_names.index(name)
                rows = rows.set_column(index, name, pc.coalesce(rows.column(name), kept))
            else:
                rows = rows.append_column(name, kept)
        return rows


def _what_is_said(listing: Listing, store: FeatureStore) -> pa.Table:
    """Return the listing's columns in the store's types; one in which the source says nothing is left out.

    So a label that comes late has a type of its own. Raises StoreError before anything is embedded in vain.
    """
    table = storable(listing.table)
    empty = [name for name in table.column_names if name != "id" and table.column(name).null_count == table.num_rows]
    table = table.drop_columns(empty)
    fields = [store.schema.field(f.name) if f.name in store.schema.names else f for f in table.schema]
    return conform(table, pa.schema(fields))
