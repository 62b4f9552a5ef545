"""The writer thread: collects finished rows and commits them to the store in bounded atomic steps."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.embedding.plan import content_columns, source_values, take_near
from embedpipe.embedding.summary import StageTimer
from embedpipe.errors import Failure
from embedpipe.sources.listing import Listing
from embedpipe.store import FeatureStore
from embedpipe.store.keyed_table import KeyedTable
from embedpipe.store.labelling import Outcome, forget_by_hand, keep_by_hand
from embedpipe.store.schema import KEY_FIELDS, PICTURE_COUNTS, vector_column

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

    ``counts`` are those of each item. ``texts`` are the beginnings of the texts, None for images.
    """

    rows: list[int]
    hashes: list[str]
    vectors: dict[str, npt.NDArray[np.float32]]
    counts: list[Mapping[str, int]]
    texts: list[str | None]


@dataclass(frozen=True)
class Reused:
    """A row of the listing that takes the stored vector of ``from_id``.

    ``takes`` says whose hand-set values it takes: those of the stored row with its own id, those of ``from_id`` from
    which it moved, or none. If it ``leaves``, the row of ``from_id`` loses them in the same commit.
    """

    row: int
    hash: str
    from_id: str
    takes: Literal["own", "moved", "nothing"] = "own"
    leaves: bool = False


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
        *,
        labels_from_source: bool = False,
    ):
        self.embedded = self.reused = 0
        #: Values of written rows that differ from the source's, or that the source no longer has.
        self.outcome = Outcome()
        self._from_source = labels_from_source
        self.counts: Counter[str] = Counter()
        self.failed_ids: list[str] = []
        self._store, self._listing, self._note, self._timer = store, listing, note, timer
        # Vectors are reused from the version of the plan, as this run may change ids of rows.
        self._planned = KeyedTable(store.path, store.version)
        self._values = source_values(listing, store)
        self._of_content = {*store.dims, *content_columns(store)}
        self._queue: queue.Queue[Message | None] = queue.Queue(maxsize=MOST_WAITING)
        self._pending: list[Message] = []
        self._leaving = False
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
                leaves = isinstance(message, Reused) and message.leaves
                if leaves and not self._leaving:  # rows that are left may still be pending
                    self._try_flush()
                self._leaving |= leaves
                self._pending.append(message)
                count += len(message.rows) if isinstance(message, Embedded) else 1
            since = time.monotonic() - last
            due = count >= FLUSH_ROWS and (since >= FLUSH_PAUSE or count >= MOST_ROWS)
            if closing or due or since >= FLUSH_SECONDS:
                self._try_flush()
                last, count = time.monotonic(), 0

    def _try_flush(self) -> None:
        if self._error is None:
            try:
                self._flush()
            except BaseException as error:  # raised again in the thread of the loop
                self._error = error
        self._pending = []

    def _flush(self) -> None:
        embedded = [m for m in self._pending if isinstance(m, Embedded)]
        reused = [m for m in self._pending if isinstance(m, Reused)]
        failures = [m for m in self._pending if isinstance(m, Failure)]
        with self._timer("write"):
            unchanged = 0
            if embedded or reused:
                outcome = Outcome()

                def make_rows() -> pa.Table:  # anew if another writer, such as `label`, commits first
                    nonlocal outcome
                    outcome = Outcome()
                    parts = [self._embedded_rows(embedded, outcome)] if embedded else []
                    parts += self._reused_rows(reused, outcome) if reused else []
                    return pa.concat_tables(parts, promote_options="default")

                unchanged = self._store.write(make_rows, self._note).unchanged
                self.outcome.add(outcome)
            self._store.failures_table.record(failures, self._listing.root)
        count = sum(len(m.rows) for m in embedded)
        # Unchanged rows beyond the reused ones were committed by another writer meanwhile, so they count as reused.
        already = min(count, max(0, unchanged - len(reused)))
        self.embedded += count - already
        self.reused += len(reused) + already
        self.failed_ids += [failure.id for failure in failures]
        for message in embedded:
            for counts in filter(None, message.counts):
                self.counts.update(counts)

    def _embedded_rows(self, messages: list[Embedded], outcome: Outcome) -> pa.Table:
        rows = self._source_rows([row for m in messages for row in m.rows], [h for m in messages for h in m.hashes])
        rows = self._keep(rows, rows.column("id"), self._store.table, outcome)
        if self._listing.excerpts and messages[0].texts[0] is not None:
            rows = rows.append_column("text", pa.array([text for m in messages for text in m.texts], pa.string()))
        if self._store.spec.modality == "image":
            counts = [json.dumps(counts) if counts else None for m in messages for counts in m.counts]
            if any(counts) or PICTURE_COUNTS in self._store.schema.names:
                rows = rows.append_column(PICTURE_COUNTS, pa.array(counts, pa.string()))
        for column in messages[0].vectors:
            rows = rows.append_column(column, vector_column(np.concatenate([m.vectors[column] for m in messages])))
        return rows

    def _reused_rows(self, messages: list[Reused], outcome: Outcome) -> list[pa.Table]:
        parts = []
        for takes, table in (("own", self._store.table), ("moved", self._planned), ("nothing", self._planned)):
            group = [message for message in messages if message.takes == takes]
            if not group:
                continue
            rows = self._source_rows([m.row for m in group], [m.hash for m in group])
            from_ids = pa.array([m.from_id for m in group])
            late = {"own": rows.column("id"), "moved": from_ids, "nothing": pa.nulls(len(group), pa.string())}[takes]
            rows = self._keep(rows, late, table, outcome)
            names = [name for name in self._planned.schema.names if name in self._of_content]
            stored = self._planned.rows(pc.unique(from_ids), ["id", *names])
            place = pc.index_in(from_ids, value_set=stored.column("id").combine_chunks())
            for name in names:
                rows = rows.append_column(self._planned.schema.field(name), stored.column(name).take(place))
            parts.append(rows)
        if left := [message.from_id for message in messages if message.leaves]:
            parts.append(forget_by_hand(self._store.table.rows(pa.array(left))))
        return parts

    def _source_rows(self, rows: list[int], hashes: list[str]) -> pa.Table:
        table = take_near(self._values, np.array(rows, np.int64))
        table = table.append_column("content_hash", pa.array(hashes, pa.string()))
        return table.append_column("source_root", pa.array([self._listing.root] * len(rows), pa.string()))

    def _keep(self, rows: pa.Table, ids: pa.Array, table: KeyedTable, outcome: Outcome) -> pa.Table:
        """Keep what was set by hand, and columns that the source lacks, from the stored rows of these ids."""
        skipped = KEY_COLUMNS | self._of_content
        names = [name for name in table.schema.names if name not in skipped]
        stored = table.rows(pc.drop_null(pc.unique(ids)), ["id", *names])
        if stored.num_rows == 0:
            return rows
        place = pc.index_in(ids, value_set=stored.column("id").combine_chunks())
        own = np.asarray(pc.fill_null(pc.equal(ids, rows.column("id")), False))
        return keep_by_hand(rows, stored.select(names).take(place), own, outcome, self._from_source)
