"""What a worker of an engine such as Ray does: it embeds a task, a part of a listing, into a data file of the store.

The worker commits nothing. It returns the files, and messages about rows that have no vector of their own, numbered
within the task. Any engine that gives a task to `EmbedWorker.embed`, and begins a task again when a process dies, will
do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.device import choose_device
from embedpipe.backbones.load import load_with_options
from embedpipe.embedding.hash_index import Contents
from embedpipe.embedding.loop import Forwarder, embed_rows
from embedpipe.embedding.runners.attempts import MOST_ATTEMPTS, Attempts
from embedpipe.embedding.runners.runner import Execution
from embedpipe.embedding.runners.tasks import Task, TaskResult, WorkerJob
from embedpipe.embedding.summary import StageTimer
from embedpipe.embedding.writing.messages import Embedded, Message, Reused, Written, add_counts
from embedpipe.embedding.writing.rows import RowAssembler
from embedpipe.errors import EmbedpipeError, Failure, WorkerDied
from embedpipe.sources.reading import RowNumbers
from embedpipe.store import FeatureStore
from embedpipe.store.adopting import write_new_files


class EmbedWorker:
    """Embeds tasks, one after the other.

    Parameters
    ----------
    job : WorkerJob
    contents : Contents
        The contents of the store at the plan, for the listing of the run.
    """

    def __init__(self, job: WorkerJob, contents: Contents) -> None:
        self._job, self._contents = job, contents
        self._error: EmbedpipeError | None = None
        try:
            self._load()
        except EmbedpipeError as error:  # an engine would begin a worker again for ever
            self._error = error

    def _load(self) -> None:
        job = self._job
        backbone = load_with_options(job.backbone, choose_device(job.compute.device)[0])
        captured = job.spec.captured
        if backbone.spec != captured:
            where = f"the backbone on {platform.node()!r} differs from that of the store {job.store!r}"
            captured.require(backbone.spec, where, "in the store", "there", "Put the same weights on all machines.")
        backbone = backbone.reduced(job.spec)
        if job.compute.engine == "auto":
            backbone = backbone.accelerated(job.items)
        self._store = FeatureStore(job.store)
        self._timer = StageTimer()
        # It lives as long as the worker: the batch size that fits into memory, and the weight of items, are kept.
        self._forward = Forwarder(backbone, job.compute.batch_size, self._timer)
        self._execution = Execution.of(backbone)

    def embed(self, task: Task) -> TaskResult:
        """Embed a task. It raises nothing that embedpipe raises on purpose; see `TaskResult.error`."""
        result, start = TaskResult(task.number, error=self._error), time.perf_counter()
        if result.error is None:
            try:
                self._embed(task, result)
            except EmbedpipeError as error:
                result.error = error
        result.wall = time.perf_counter() - start
        return result

    def _embed(self, task: Task, result: TaskResult) -> None:
        job, forward, timer = self._job, self._forward, self._timer
        done = forward.done

        def find(row: int, digest: str) -> str | None:
            return self._contents.find(int(task.rows[row]), digest)

        attempts = Attempts(job.store, job.run, task.number)
        attempts.begin()

        def embed(rows: RowNumbers) -> Iterator[Message]:
            with contextlib.closing(embed_rows(task.listing, rows, forward, find, job.threads, timer)) as messages:
                yield from messages

        rows = np.arange(len(task.listing))
        messages = list(embed(rows) if attempts.earlier < MOST_ATTEMPTS else _one_by_one(task, rows, embed, attempts))
        with timer("write"):
            result.messages = [
                *self._write(task, [m for m in messages if isinstance(m, Embedded)]),
                *(m for m in messages if isinstance(m, Reused | Failure)),
            ]
        result.seconds, result.done = timer.take(), forward.done - done
        result.execution = dataclasses.replace(self._execution, batch_size=forward.batch_size)

    def _write(self, task: Task, embedded: list[Embedded]) -> Iterator[Written]:
        if not embedded:
            return
        assembler = RowAssembler(task.values, task.listing.root, self._store, task.listing.excerpts)
        rows = assembler.embedded(embedded)
        numbers = np.array([row for message in embedded for row in message.rows])
        counts = [counts for message in embedded for counts in message.counts]
        order = np.asarray(pc.sort_indices(rows.column("id")))
        start = 0
        for file in write_new_files(rows.take(pa.array(order)), self._store.table):
            part = order[start : start + len(file.ids)]
            start += len(part)
            total: Counter[str] = Counter()
            add_counts(total, (counts[row] for row in part.tolist()))
            yield Written(numbers[part].tolist(), file, total, task.known)


def _one_by_one(
    task: Task,
    rows: RowNumbers,
    embed: Callable[[RowNumbers], Iterator[Message]],
    attempts: Attempts,
) -> Iterator[Message]:
    """Embed each row by itself. A row during which a worker died fails."""
    for row in rows.tolist():
        if row in attempts.deadly:
            died = WorkerDied("the worker process died while it embedded this item")
            yield task.listing.failure(row, died, "forward")
            continue
        attempts.begin_row(row)
        yield from embed(rows[row : row + 1])
        attempts.end_row(row)
