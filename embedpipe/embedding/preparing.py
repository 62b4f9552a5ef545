"""Rows of a listing made ready for the backbone by threads, ahead of the forward pass."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

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


Result = Prepared | Reused | Failure


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

    def __call__(self, rows: list[int]) -> list[Result]:
        """Return one result for each row; one that cannot be read or prepared is a Failure."""
        results: list[Result] = []
        seconds = {"read": 0.0, "decode": 0.0}
        for row in rows:
            stage, start = "read", time.perf_counter()
            try:
                payload = self._listing.read(row)
                digest = payload_hash(payload)
                if (known := self._find(digest)) is not None:
                    results.append(Reused(row, digest, known))
                    continue
                now = time.perf_counter()
                seconds["read"] += now - start
                stage, start = "decode", now
                results.append(Prepared(row, digest, self._backbone.prepare(payload)))
            except Exception as error:  # one bad item never stops a job
                results.append(failure_of(self._listing, row, error, stage))
            finally:
                seconds[stage] += time.perf_counter() - start
        for stage, spent in seconds.items():
            self._timer.add(stage, spent)
        return results


def failure_of(listing: Listing, row: int, error: Exception, stage: str) -> Failure:
    """Return the failure of a row of a listing."""
    table = listing.table
    return Failure.of(table.column("id")[row].as_py(), table.column("uri")[row].as_py(), error, stage)


def weight_of(results: list[Result]) -> int:
    """Return the weight of what was prepared."""
    return sum(result.item.weight for result in results if isinstance(result, Prepared))


def prepare_windows(
    rows: npt.NDArray[np.int64], prepare: Preparer, threads: int, window: int, timer: StageTimer
) -> Generator[list[Result], None, None]:
    """Prepare rows in threads, in order, and yield them in windows.

    A window has at least so many prepared items, and besides whatever is not to be embedded; a smaller one
    comes when its items weigh much, and at the end. What is ahead is bounded in rows and, as far as the items
    before it tell, in weight.
    """
    weight = LARGEST_WAIT / 64  # of an item; a guess on the careful side, to begin with
    with ThreadPoolExecutor(threads, thread_name_prefix="embedpipe-prepare") as pool:
        ahead: deque[tuple[int, Future[list[Result]]]] = deque()
        waiting: list[Result] = []
        at = counted = submitted = held = 0
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
                    results = future.result()
                submitted -= count
                weight = max(1.0, (weight + weight_of(results) / count) / 2)
                waiting += results
                counted += sum(isinstance(result, Prepared) for result in results)
                held += weight_of(results)
                if counted >= window or held >= LARGEST_WAIT:
                    yield waiting
                    waiting, counted, held = [], 0, 0
            if waiting:
                yield waiting
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
