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
        Takes a list of items, and returns as many results.
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
            try:
                results = self._run([item for item, _ in batch])
            except Exception as error:  # goes to those who wait
                for _, future in batch:
                    future.set_exception(error)
            else:
                for (_, future), result in zip(batch, results, strict=True):
                    future.set_result(result)
