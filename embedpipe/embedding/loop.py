"""The embedding loop: threads prepare items, the backbone embeds batches of them, the writer thread commits them."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe.backbones.backbone import Backbone
from embedpipe.embedding.hash_index import HashIndex
from embedpipe.embedding.preparing import Prepared, Preparer, Window, failure_of, prepare_windows
from embedpipe.embedding.summary import StageTimer
from embedpipe.embedding.writer import Embedded, Message, Reused
from embedpipe.errors import BackboneError, Failure, ForwardError
from embedpipe.sources.listing import Listing

LayerVectors = dict[str, npt.NDArray[np.float32]]

#: A batch for the backbone, or what needs none.
Job = list[Prepared] | list[Reused | Failure]


class Forwarder:
    """Runs the backbone on batches, one at a time, with half the batch size whenever memory runs out."""

    def __init__(self, backbone: Backbone, batch_size: int | None = None, timer: StageTimer | None = None) -> None:
        self.backbone = backbone
        self.batch_size = batch_size or backbone.usual_batch
        #: How many items have been through.
        self.done = 0
        self._timer, self._lock = timer or StageTimer(), threading.Lock()

    def __call__(self, batch: Sequence[Any]) -> LayerVectors:
        """Embed the values of items into column -> float32 (n, dim).

        Raises BackboneError if a single item does not fit into memory.
        """
        if len(batch) > (size := self.batch_size):
            parts = [self(batch[i : i + size]) for i in range(0, len(batch), size)]
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        try:
            with self._lock, self._timer("forward"):
                vectors = self.backbone.forward(batch)
                self.done += len(batch)
                return vectors
        except Exception as error:
            if not _out_of_memory(error):
                raise
            if len(batch) == 1:
                raise BackboneError(
                    f"{self.backbone.device} has too little memory for a single item: "
                    "use a smaller backbone, or device='cpu'"
                ) from error
            self.batch_size = len(batch) // 2
        _free_memory()
        return self(batch)


def _out_of_memory(error: Exception) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)


def _free_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def embed_rows(
    listing: Listing,
    rows: npt.NDArray[np.int64],
    forward: Forwarder,
    index: HashIndex,
    threads: int,
    timer: StageTimer,
) -> Generator[Message, None, None]:
    """Read, prepare and embed rows of a listing; yield what the writer takes, every row exactly once.

    Threads read and prepare ahead (decoders and tokenizers release Python's lock); windows of prepared items are
    taken in order, so memory is bounded and runs are alike. On a processor preparing and embedding take turns, each
    at full width: at once they are slower. On a GPU two batches are in flight, so that it never waits for the
    next one. A row that fails yields a Failure.
    """
    backbone = forward.backbone
    on_processor = backbone.device.type == "cpu"
    prepare = Preparer(listing, backbone, index.find, timer)
    window = max(forward.batch_size, backbone.sorted_items)
    alternate = on_processor and not backbone.one_thread  # which looks up and computes nothing
    windows = prepare_windows(rows, prepare, threads, window, timer, alternate=alternate)
    with contextlib.closing(windows):
        jobs = _jobs(windows, forward)
        work = partial(_embed_batch, listing=listing, forward=forward, timer=timer)
        for found in map(work, jobs) if on_processor else _in_flight(jobs, work):
            yield from found


def _jobs(windows: Iterable[Window], forward: Forwarder) -> Iterator[list[Prepared] | list[Reused | Failure]]:
    """Yield what needs no backbone, and batches of items of like sizes, the largest first, as memory is short there."""
    for prepared, others in windows:
        yield others
        prepared.sort(key=lambda one: -one.item.size)
        at = 0
        while at < len(prepared):
            batch = prepared[at : at + forward.batch_size]
            yield batch
            at += len(batch)


def _in_flight(jobs: Iterator[Job], work: Callable[[Job], list[Message]]) -> Iterator[list[Message]]:
    """Work on jobs in two threads, and yield what comes of them in order."""
    with ThreadPoolExecutor(2, thread_name_prefix="embedpipe-forward") as pool:
        futures: deque[Future[list[Message]]] = deque()
        try:
            for job in jobs:
                futures.append(pool.submit(work, job))
                if len(futures) > 2:
                    yield futures.popleft().result()
            while futures:
                yield futures.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _embed_batch(job: Job, listing: Listing, forward: Forwarder, timer: StageTimer) -> list[Message]:
    """Embed a batch; what is none goes through as it is."""
    batch = [one for one in job if isinstance(one, Prepared)]
    if not batch:
        return [one for one in job if not isinstance(one, Prepared)]
    try:
        with timer("copy"):
            values = forward.backbone.collate([one.item.value for one in batch])
        vectors = forward(values)
    except BackboneError:
        raise
    except Exception as error:
        if len(batch) == 1:
            return [failure_of(listing, batch[0].row, error, "forward")]
        # Find the item that the backbone refuses.
        halves = batch[: len(batch) // 2], batch[len(batch) // 2 :]
        return [message for half in halves for message in _embed_batch(half, listing, forward, timer)]
    finite = np.logical_and.reduce([np.isfinite(block).all(axis=1) for block in vectors.values()])
    messages: list[Message] = [
        failure_of(listing, one.row, ForwardError("the backbone's vector has NaN or infinite values"), "forward")
        for one, good in zip(batch, finite, strict=True)
        if not good
    ]
    kept = [one for one, good in zip(batch, finite, strict=True) if good]
    if kept:
        counts: Counter[str] = Counter()
        for one in kept:
            for name, count in one.item.counts.items():
                counts[name] += count
        messages.append(
            Embedded(
                [one.row for one in kept],
                [one.hash for one in kept],
                vectors if finite.all() else {name: block[finite] for name, block in vectors.items()},
                counts,
                [one.item.text for one in kept],
            )
        )
    return messages
