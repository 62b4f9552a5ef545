"""Rows of a listing made ready for the backbone by threads, ahead of the forward pass."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embedpipe.backbones import Item
from embedpipe.backbones.backbone import Backbone
from embedpipe.decoding import payload_hash
from embedpipe.embedding.summary import StageTimer
from embedpipe.embedding.writer import Reused
from embedpipe.errors import Failure
from embedpipe.sources.listing import Listing

#: Rows that one task of a thread prepares, at most: cheap ones in large parts, or the tasks cost more than they do.
LARGEST_TASK = 256

#: Threads that read from a server.
REMOTE_READERS = 16

#: Weight (`Item.weight`) of the items that are prepared and wait, about 8 bytes each: so that books fit into memory.
LARGEST_WAIT = 1 << 23


class Prepared(NamedTuple):
    """One item that is ready for the backbone."""

    row: int
    hash: str
    item: Item


class Window(NamedTuple):
    """What became of some rows: items that are ready for the backbone, and what needs none."""

    prepared: list[Prepared]
    others: list[Reused | Failure]


@contextlib.contextmanager
def _rare_collections() -> Iterator[None]:
    """Look for cycles less often: thousands of waiting items make Python do so all the time, and find none."""
    first, *others = gc.get_threshold()
    gc.set_threshold(max(first, 100_000) if first else 0, *others)
    try:
        yield
    finally:
        gc.set_threshold(first, *others)


class Fetched(NamedTuple):
    """What reading some rows gave: row, hash and payload of each that is new to the store, and the others."""

    payloads: list[tuple[int, str, Any]]
    others: list[Reused | Failure]


class Preparer:
    """Reads and prepares rows of a listing; safe to use from several threads.

    Parameters
    ----------
    listing : Listing
    backbone : Backbone
    find : callable
        ``find(digest)`` returns the id of a stored item of that content, or None.
    timer : StageTimer
    """

    def __init__(
        self, listing: Listing, backbone: Backbone, find: Callable[[str], str | None], timer: StageTimer
    ) -> None:
        self._listing, self._find, self._timer = listing, find, timer
        self._steps = backbone.steps
        self._modality = backbone.spec.modality
        #: Closed while nothing is to be prepared.
        self.gate = threading.Event()
        self.gate.set()

    @property
    def is_remote(self) -> bool:
        """Whether rows come from a server: those who read them wait most of the time."""
        return "://" in self._listing.root

    def read(self, rows: list[int]) -> Fetched:
        """Read rows; one that cannot be read is a Failure."""
        fetched = Fetched([], [])
        start = time.perf_counter()
        for row in rows:
            try:
                payload = self._listing.read(row)
                digest = payload_hash(payload)
            except Exception as error:  # one bad item never stops a job
                fetched.others.append(failure_of(self._listing, row, error, "read"))
                continue
            if (known := self._find(digest)) is None:
                fetched.payloads.append((row, digest, payload))
            else:
                fetched.others.append(Reused(row, digest, known))
        self._timer.add("read", time.perf_counter() - start)
        return fetched

    def __call__(self, rows: list[int], reading: Future[Fetched] | None = None) -> Window:
        """Return what became of rows, which may be being read already; one that cannot be prepared is a Failure."""
        payloads, others = self.read(rows) if reading is None else reading.result()
        done = Window([], others)
        *earlier, (last, finish) = self._steps
        spent = dict.fromkeys((stage for stage, _ in self._steps), 0.0)
        start = time.perf_counter()
        for row, digest, value in payloads:
            if not self.gate.is_set():
                spent[last] += time.perf_counter() - start
                self.gate.wait()
                start = time.perf_counter()
            try:
                for stage, step in earlier:
                    begin = time.perf_counter()
                    value = step(value)
                    between = time.perf_counter()
                    spent[stage] += between - begin
                    spent[last] -= between - begin
                done.prepared.append(Prepared(row, digest, finish(value)))
            except Exception as error:
                done.others.append(failure_of(self._listing, row, error, "decode"))
        spent[last] += time.perf_counter() - start
        for stage, seconds in spent.items():
            self._timer.add(stage, seconds)
        return done


def failure_of(listing: Listing, row: int, error: Exception, stage: str) -> Failure:
    """Return the failure of a row of a listing."""
    table = listing.table
    return Failure.of(table.column("id")[row].as_py(), table.column("uri")[row].as_py(), error, stage)


def prepare_windows(
    rows: npt.NDArray[np.int64], prepare: Preparer, threads: int, window: int, timer: StageTimer, *, alternate: bool
) -> Generator[Window, None, None]:
    """Read and prepare rows in threads, in order, and yield them in windows.

    A window has at least so many prepared items, and besides whatever is not to be embedded; a smaller one
    comes when its items weigh much, and at the end. What is ahead is bounded in rows and, as far as the items
    before it tell, in weight.

    Parameters
    ----------
    alternate : bool
        Prepare nothing while the caller works on a window, since that needs the same cores. Reading goes on.
    """
    weight = LARGEST_WAIT / 64  # of an item; a guess on the careful side, to begin with
    with (
        ThreadPoolExecutor(REMOTE_READERS, thread_name_prefix="embedpipe-read") as readers,
        _threads_of_one() as one,
        ThreadPoolExecutor(threads, thread_name_prefix="embedpipe-prepare", initializer=one) as pool,
        _rare_collections(),
    ):
        ahead: deque[tuple[int, Future[Window]]] = deque()
        waiting = Window([], [])
        at = submitted = held = 0
        try:
            while True:
                while at < len(rows):
                    step = max(1, min(LARGEST_TASK, window // 8, int(LARGEST_WAIT / 64 / weight)))
                    full = submitted >= window + 2 * threads * step or held + submitted * weight >= LARGEST_WAIT
                    if ahead and full:
                        break
                    part = rows[at : at + step].tolist()
                    reading = readers.submit(prepare.read, part) if prepare.is_remote else None
                    ahead.append((len(part), pool.submit(prepare, part, reading)))
                    at, submitted = at + len(part), submitted + len(part)
                if not ahead:
                    break
                count, future = ahead.popleft()
                with timer("wait"):
                    found = future.result()
                submitted -= count
                total = sum([one.item.weight for one in found.prepared])
                weight = max(1.0, (weight + total / count) / 2)
                held += total
                waiting.prepared.extend(found.prepared)
                waiting.others.extend(found.others)
                if len(waiting.prepared) >= window or held >= LARGEST_WAIT:
                    if alternate:
                        prepare.gate.clear()
                    yield waiting
                    prepare.gate.set()
                    waiting, held = Window([], []), 0
            yield waiting
        finally:
            prepare.gate.set()
            pool.shutdown(wait=False, cancel_futures=True)
            readers.shutdown(wait=True, cancel_futures=True)
            pool.shutdown(wait=True)


@contextlib.contextmanager
def _threads_of_one() -> Iterator[Callable[[], None]]:
    """Give a function that holds torch's operators in the thread that calls it to that one thread."""
    import torch

    before = torch.get_num_threads()
    try:
        yield lambda: torch.set_num_threads(1)
    finally:
        torch.set_num_threads(before)  # torch takes the last setting for threads that are yet to come
