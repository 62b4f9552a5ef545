"""The writer thread: collects finished rows and commits them to the store in bounded atomic steps."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from embedpipe.embedding.summary import StageTimer
from embedpipe.embedding.writing.messages import Embedded, Message, Reused, Written, add_counts, count_rows
from embedpipe.embedding.writing.rows import RowAssembler
from embedpipe.errors import Failure
from embedpipe.sources.listing import Listing
from embedpipe.store import FeatureStore
from embedpipe.store.adopting import adopt, require_present
from embedpipe.store.editing.labelling import Outcome
from embedpipe.store.keyed_table import KeyedTable

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

#: Files that workers wrote are committed so often that this share of the run is lost by a kill, as long as commits,
#: which take longer as the log grows, take at most that share of the time.
LOST_SHARE = 0.01
ADOPTING_SHARE = 0.25


class RowWriter:
    """Commits rows from its own thread, so that the loop does not wait for the disk.

    The next `put` or `close` raises an exception of the thread again.

    Parameters
    ----------
    store : FeatureStore
    listing : Listing
    values : pyarrow.Table
        The columns of the listing in the types of the store (`EmbedPlan.values`).
    note : callable
        Returns the metadata of a commit.
    timer : StageTimer
    labels_from_source : bool
        Take the values of the source in place of those that were set by hand.
    """

    def __init__(
        self,
        store: FeatureStore,
        listing: Listing,
        values: pa.Table,
        note: Callable[[], Mapping[str, Any]],
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
        self._rows = RowAssembler(values, listing.root, store, listing.excerpts)
        #: Data files without any of the rows that workers embed: those of the plan, and what this run adopts.
        self._trusted = {file.path for file in self._planned.files}
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
        start = last = time.monotonic()
        count, pause, closing = 0, FLUSH_PAUSE, False
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
                count += count_rows(message)
            since = time.monotonic() - last
            adopting = any(isinstance(message, Written) for message in self._pending)
            many = count >= MOST_ROWS and not adopting
            due = (count >= FLUSH_ROWS or adopting) and (since >= pause or many)
            if closing or due or since >= FLUSH_SECONDS:
                begin = time.monotonic()
                self._try_flush()
                last, count = time.monotonic(), 0
                lasted, so_far = last - begin, last - start
                pause = max(lasted / ADOPTING_SHARE, so_far * LOST_SHARE) if adopting else FLUSH_PAUSE

    def _try_flush(self) -> None:
        if self._error is None:
            try:
                self._flush()
            except BaseException as error:  # raised again in the thread of the loop
                self._error = error
        self._pending = []

    def _flush(self) -> None:
        embedded = [m for m in self._pending if isinstance(m, Embedded)]
        written = [m for m in self._pending if isinstance(m, Written)]
        reused = [m for m in self._pending if isinstance(m, Reused)]
        failures = [m for m in self._pending if isinstance(m, Failure)]
        with self._timer("write"):
            taken = self._adopt(written)
            unchanged = 0
            if embedded or reused or taken:
                outcome = Outcome()

                def make_rows() -> pa.Table:  # anew if another writer, such as `label`, commits first
                    nonlocal outcome
                    outcome = Outcome()
                    table = self._store.table
                    parts = [self._rows.embedded(embedded)] if embedded else []
                    parts += [table.read_file(m.file.entry, m.file.schema.names) for m in taken]
                    parts = [self._rows.keep(rows, rows["id"], table, outcome, self._from_source) for rows in parts]
                    parts += self._rows.reused(reused, self._planned, outcome, self._from_source) if reused else []
                    return pa.concat_tables(parts, promote_options="default")

                unchanged = self._store.write(make_rows, self._note()).unchanged
                self.outcome.add(outcome)
            for message in taken:
                with contextlib.suppress(OSError):  # `vacuum` deletes what is left
                    self._store.table.delete_file(message.file.action.path)
            self._store.failures_table.record(failures, self._listing.root)
        count = sum(len(m.rows) for m in embedded) + sum(len(m.rows) for m in written)
        # Unchanged rows beyond the reused ones were committed by another writer meanwhile, so they count as reused.
        already = min(count, max(0, unchanged - len(reused)))
        self.embedded += count - already
        self.reused += len(reused) + already
        self.failed_ids += [failure.id for failure in failures]
        add_counts(self.counts, [*(counts for m in embedded for counts in m.counts), *(m.counts for m in written)])

    def _adopt(self, written: list[Written]) -> list[Written]:
        """Commit the files of workers. Return those whose rows are to be written as others are: the store has some."""
        new = {id(message.file): message for message in written if not message.known}
        table, files = self._store.table, [message.file for message in new.values()]
        require_present(table, files)
        left = adopt(table, files, self._trusted, self._note()) if files else []
        return [message for message in written if message.known] + [new[id(file)] for file in left]
