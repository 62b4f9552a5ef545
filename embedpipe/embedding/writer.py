"""The writer thread: collects finished rows and commits them to the store in bounded atomic steps."""

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

#: A commit is due after this many rows or seconds, with at least the pause between commits. A kill loses these rows,
#: the rows that arrive during a commit, and the two batches in and before the backbone: under 2,048 rows for batches
#: up to 256, or the work of a second.
FLUSH_ROWS = 768
FLUSH_SECONDS = 20.0
FLUSH_PAUSE = 0.5

#: Most messages in the queue, so that the loop need not wait for a commit of a few tenths of a second.
MOST_WAITING = 16

#: Most rows that wait for a commit.
MOST_ROWS = 1 << 16

#: Columns that are never copied from another row.
KEY_COLUMNS = {field.name for field in KEY_FIELDS}


@dataclass(frozen=True)
class Embedded:
    """Rows of the listing with new vectors: column -> float32 (n, dim).

    ``counts`` are the summed counts of the items. ``texts`` are the beginnings of the texts, None for images.
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
    """Commits rows from its own thread, so that the loop does not wait for the disk.

    The next `put` or `close` raises an exception of the thread again.
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
        # Vectors are reused from the version of the plan, as this run may change ids of rows.
        self._planned = KeyedTable(store.path, store.version)
        self._values = _source_values(listing, store)
        self._queue: queue.Queue[Message | None] = queue.Queue(maxsize=MOST_WAITING)
        self._pending: list[Message] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="embedpipe-writer", daemon=True)
        self._thread.start()

    def put(self, message: Message) -> None:
        """Add finished rows to the queue, and wait if it is full."""
        self._raise()
        self._queue.put(message)

    def close(self) -> None:
        """Commit the remaining rows and end the thread."""
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
            due = count >= FLUSH_ROWS and (since >= FLUSH_PAUSE or count >= MOST_ROWS)
            if closing or due or since >= FLUSH_SECONDS:
                if self._error is None:
                    try:
                        self._flush()
                    except BaseException as error:  # raised again in the thread of the loop
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
        # Unchanged rows beyond the reused ones were committed by another writer meanwhile, so they count as reused.
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
        # A label that was set later belongs to the content if that is known, else to the id.
        same_id = pc.equal(from_ids, rows.column("id"))
        rows = self._fill(rows, pc.if_else(same_id, from_ids, None), self._store.table)
        rows = self._fill(rows, pc.if_else(same_id, None, from_ids), self._planned)
        stored = self._planned.rows(pc.unique(from_ids), ["id", *self._store.dims])
        place = pc.index_in(from_ids, value_set=stored.column("id").combine_chunks())
        for name in self._store.dims:
            rows = rows.append_column(self._store.schema.field(name), stored.column(name).take(place))
        return rows

    def _source_rows(self, rows: list[int], hashes: list[str]) -> pa.Table:
        table = take_near(self._values, np.array(rows, np.int64))
        table = table.append_column("content_hash", pa.array(hashes, pa.string()))
        return table.append_column("source_root", pa.array([self._listing.root] * len(rows), pa.string()))

    def _fill(self, rows: pa.Table, from_ids: pa.Array, table: KeyedTable) -> pa.Table:
        """Keep the stored value where the source has none, such as a label set later or a column of another source."""
        names = [name for name in table.schema.names if name not in KEY_COLUMNS and name not in self._store.dims]
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


def _source_values(listing: Listing, store: FeatureStore) -> pa.Table:
    """Return the columns of the listing in the types of the store, without columns of nulls only.

    A label that is set later can then have any type. Raises StoreError before anything is embedded.
    """
    table = storable(listing.table)
    empty = [name for name in table.column_names if name != "id" and table.column(name).null_count == table.num_rows]
    table = table.drop_columns(empty)
    fields = [store.schema.field(f.name) if f.name in store.schema.names else f for f in table.schema]
    return conform(table, pa.schema(fields))
