"""Rows of a listing made ready for the backbone by threads, ahead of the forward pass."""

from __future__ import annotations

import contextlib
import gc
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embedpipe.backbones import Backbone, Item
from embedpipe.decoding import payload_hash
from embedpipe.embedding.summary import StageTimer
from embedpipe.embedding.writer import Reused
from embedpipe.errors import Failure
from embedpipe.sources import Listing

#: Rows that one task of a thread prepares, at most: cheap ones in large parts, or the tasks cost more than they do.
LARGEST_TASK = 256

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
        self._listing, self._backbone, self._find, self._timer = listing, backbone, find, timer

    def __call__(self, rows: list[int]) -> Window:
        """Return what became of the rows; one that cannot be read or prepared is a Failure."""
        done = Window([], [])
        read: list[tuple[int, str, Any]] = []
        start = time.perf_counter()
        for row in rows:
            try:
                payload = self._listing.read(row)
                digest = payload_hash(payload)
            except Exception as error:  # one bad item never stops a job
                done.others.append(failure_of(self._listing, row, error, "read"))
                continue
            if (known := self._find(digest)) is None:
                read.append((row, digest, payload))
            else:
                done.others.append(Reused(row, digest, known))
        between = time.perf_counter()
        self._timer.add("read", between - start)
        for row, digest, payload in read:
            try:
                done.prepared.append(Prepared(row, digest, self._backbone.prepare(payload)))
            except Exception as error:
                done.others.append(failure_of(self._listing, row, error, "decode"))
        self._timer.add("decode", time.perf_counter() - between)
        return done


def failure_of(listing: Listing, row: int, error: Exception, stage: str) -> Failure:
    """Return the failure of a row of a listing."""
    table = listing.table
    return Failure.of(table.column("id")[row].as_py(), table.column("uri")[row].as_py(), error, stage)


def prepare_windows(
    rows: npt.NDArray[np.int64], prepare: Preparer, threads: int, window: int, timer: StageTimer
) -> Generator[Window, None, None]:
    """Prepare rows in threads, in order, and yield them in windows.

    A window has at least so many prepared items, and besides whatever is not to be embedded; a smaller one
    comes when its items weigh much, and at the end. What is ahead is bounded in rows and, as far as the items
    before it tell, in weight.
    """
    weight = LARGEST_WAIT / 64  # of an item; a guess on the careful side, to begin with
    with ThreadPoolExecutor(threads, thread_name_prefix="embedpipe-prepare") as pool, _rare_collections():
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
                    ahead.append((len(part), pool.submit(prepare, part)))
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
                    yield waiting
                    waiting, held = Window([], []), 0
            yield waiting
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
