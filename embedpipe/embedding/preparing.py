"""Preparation of rows for the backbone in threads, ahead of the forward pass."""

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
from embedpipe.embedding.writing.messages import Reused
from embedpipe.errors import Failure
from embedpipe.sources.listing import Listing

#: Most rows per task of a thread. Cheap rows need large tasks to outweigh the cost of a task.
LARGEST_TASK = 256

#: Number of threads that read from a server.
REMOTE_READERS = 16

#: Largest weight (`Item.weight`, about 8 bytes per unit) of prepared items that wait, so that long texts fit.
LARGEST_WAIT = 1 << 23


Find = Callable[[int, str], str | None]


class Prepared(NamedTuple):
    """An item that is ready for the backbone."""

    row: int
    hash: str
    item: Item


class Window(NamedTuple):
    """Results of some rows: items that are ready for the backbone, and rows that need no forward pass."""

    prepared: list[Prepared]
    others: list[Reused | Failure]


@contextlib.contextmanager
def _rare_collections() -> Iterator[None]:
    """Collect garbage less often, as thousands of waiting items trigger useless collections."""
    first, *others = gc.get_threshold()
    gc.set_threshold(max(first, 100_000) if first else 0, *others)
    try:
        yield
    finally:
        gc.set_threshold(first, *others)


class WeightGuess:
    """The weight of an item (`Item.weight`), estimated from earlier ones. The first guess is high on purpose."""

    def __init__(self) -> None:
        self.value = LARGEST_WAIT / 64

    def learn(self, mean: float) -> None:
        """Take note of the mean weight of the next items."""
        self.value = max(1.0, (self.value + mean) / 2)


class Fetched(NamedTuple):
    """Results of reading some rows: row, hash and payload of new contents, and messages for the other rows."""

    payloads: list[tuple[int, str, Any]]
    others: list[Reused | Failure]


class Preparer:
    """Reads and prepares rows of a listing. Safe to use from several threads.

    Parameters
    ----------
    listing : Listing
    backbone : Backbone
    find : callable
        ``find(row, digest)`` returns the id of a stored item with that content, or None. The row's own id comes first.
    timer : StageTimer
    """

    def __init__(self, listing: Listing, backbone: Backbone, find: Find, timer: StageTimer) -> None:
        self._listing, self._find, self._timer = listing, find, timer
        self._steps, self._room = backbone.steps, backbone.room
        self._modality = backbone.spec.modality
        #: Cleared while nothing may be prepared.
        self.gate = threading.Event()
        self.gate.set()

    @property
    def is_remote(self) -> bool:
        """Whether rows come from a server, so that reading mostly waits."""
        return "://" in self._listing.root

    def read(self, rows: list[int]) -> Fetched:
        """Read rows. A row that cannot be read becomes a Failure."""
        fetched = Fetched([], [])
        start = time.perf_counter()
        for row in rows:
            try:
                payload = self._listing.read(row)
                digest = payload_hash(payload)
            except Exception as error:  # one bad item must not stop a run
                fetched.others.append(self._listing.failure(row, error, "read"))
                continue
            if (known := self._find(row, digest)) is None:
                fetched.payloads.append((row, digest, payload))
            else:
                fetched.others.append(Reused(row, digest, known))
        self._timer.add("read", time.perf_counter() - start)
        return fetched

    def __call__(self, rows: list[int], reading: Future[Fetched] | None = None) -> Window:
        """Prepare rows, which ``reading`` may already read. A row that cannot be prepared becomes a Failure."""
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
                with self._room(value):
                    for stage, step in earlier:
                        begin = time.perf_counter()
                        value = step(value)
                        between = time.perf_counter()
                        spent[stage] += between - begin
                        spent[last] -= between - begin
                    done.prepared.append(Prepared(row, digest, finish(value)))
                    value = None  # frees the pixels
            except Exception as error:
                done.others.append(self._listing.failure(row, error, "decode"))
        spent[last] += time.perf_counter() - start
        for stage, seconds in spent.items():
            self._timer.add(stage, seconds)
        return done


def prepare_windows(
    rows: npt.NDArray[np.int64],
    prepare: Preparer,
    threads: int,
    window: int,
    weight: WeightGuess,
    timer: StageTimer,
    *,
    alternate: bool,
) -> Generator[Window, None, None]:
    """Read and prepare rows in threads and yield them in windows, in order.

    A window has at least ``window`` prepared items, plus the rows that need no forward pass. It is smaller if its
    items are heavy, and at the end. The rows ahead are bounded in number and, estimated from earlier items, in weight.

    Parameters
    ----------
    alternate : bool
        Prepare nothing while the caller works on a window, which needs the same cores. Reading continues.
    """
    with (
        ThreadPoolExecutor(REMOTE_READERS, thread_name_prefix="embedpipe-read") as readers,
        _one_torch_thread() as limit_threads,
        ThreadPoolExecutor(threads, thread_name_prefix="embedpipe-prepare", initializer=limit_threads) as pool,
        _rare_collections(),
    ):
        ahead: deque[tuple[int, Future[Window]]] = deque()
        waiting = Window([], [])
        at = submitted = held = 0
        try:
            while True:
                while at < len(rows):
                    step = max(1, min(LARGEST_TASK, window // 8, int(LARGEST_WAIT / 64 / weight.value)))
                    full = submitted >= window + 2 * threads * step or held + submitted * weight.value >= LARGEST_WAIT
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
                    done = future.result()
                submitted -= count
                total = sum([each.item.weight for each in done.prepared])
                weight.learn(total / count)
                held += total
                waiting.prepared.extend(done.prepared)
                waiting.others.extend(done.others)
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
def _one_torch_thread() -> Iterator[Callable[[], None]]:
    """Yield a function that limits the operators of torch to one thread, in the thread that calls it."""
    import torch

    before = torch.get_num_threads()
    try:
        yield lambda: torch.set_num_threads(1)
    finally:
        torch.set_num_threads(before)  # new threads take the last setting
