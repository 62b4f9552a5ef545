"""`Batcher`: items of concurrent requests go through a function together."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from embedpipe.errors import BusyError

#: Items that wait at most; more are refused, as they would wait too long.
MOST_WAITING = 1_000


class Batcher:
    """Runs a function on all items that wait, in one thread. Nobody waits for a batch to fill.

    Parameters
    ----------
    run : callable
        Takes a list of items, and returns as many results. If it raises, it is called again with halves of the list.
    most : int
        Items of a batch.
    """

    def __init__(self, run: Callable[[list[Any]], Sequence[Any]], most: int) -> None:
        self._run, self._most = run, most
        self._waiting: queue.Queue[tuple[Any, Future[Any]]] = queue.Queue(MOST_WAITING)
        threading.Thread(target=self._work, daemon=True).start()

    def __call__(self, item: Any) -> Any:
        """Return the result of an item. Raises what the function raises, and BusyError if too many items wait."""
        future: Future[Any] = Future()
        try:
            self._waiting.put_nowait((item, future))
        except queue.Full as error:
            raise BusyError(f"{MOST_WAITING:,} requests wait already: try again later") from error
        return future.result()

    def _work(self) -> None:
        while True:
            batch = [self._waiting.get()]
            while len(batch) < self._most:
                try:
                    batch.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
            self._answer(batch)

    def _answer(self, batch: list[tuple[Any, Future[Any]]]) -> None:
        """Run a batch; one that fails goes in halves, so that the others do not fail with one item."""
        try:
            results = self._run([item for item, _ in batch])
        except Exception as error:
            if len(batch) == 1:  # goes to the one who waits
                batch[0][1].set_exception(error)
                return
        else:
            for (_, future), result in zip(batch, results, strict=True):
                future.set_result(result)
            return
        half = len(batch) // 2  # outside of the handler, where the error would hold the memory of the batch
        self._answer(batch[:half])
        self._answer(batch[half:])
