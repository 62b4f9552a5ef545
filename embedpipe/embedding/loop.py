"""The embedding loop: threads prepare items, the backbone embeds batches, the writer thread commits rows."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedpipe._utils.option_names import option
from embedpipe.embedding.preparing import Find, Prepared, Preparer, WeightGuess, Window, prepare_windows
from embedpipe.embedding.summary import StageTimer
from embedpipe.embedding.writing.messages import Embedded, Message, Reused
from embedpipe.errors import BackboneError, Failure, ForwardError, TemporaryError
from embedpipe.sources.listing import Listing

if TYPE_CHECKING:
    from embedpipe.backbones.backbone import Backbone

LayerVectors = dict[str, npt.NDArray[np.float32]]

#: A batch for the backbone, or rows that need no forward pass.
Job = list[Prepared] | list[Reused | Failure]


class Forwarder:
    """Runs the backbone on one batch at a time. Halves the batch size when memory runs out."""

    def __init__(self, backbone: Backbone, batch_size: int | None = None, timer: StageTimer | None = None) -> None:
        self.backbone = backbone
        self.batch_size = batch_size or backbone.usual_batch
        #: Number of embedded items.
        self.done = 0
        #: The weight of items that are prepared for it.
        self.weight = WeightGuess()
        self._timer, self._lock = timer or StageTimer(), threading.Lock()

    def __call__(self, batch: Sequence[Any]) -> LayerVectors:
        """Embed prepared values. Returns column -> float32 (n, dim).

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
                    f"one item does not fit into the memory of {self.backbone.device}: "
                    f"use a smaller backbone, or {option('device', 'cpu')}"
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
    find: Find,
    threads: int,
    timer: StageTimer,
) -> Generator[Message, None, None]:
    """Read, prepare and embed rows of a listing. Yield messages for the writer, with every row exactly once.

    Threads read and prepare ahead (decoders and tokenizers release the GIL). Windows of prepared items are taken in
    order, so memory is bounded and runs are repeatable. On a CPU, preparing and embedding alternate, as both use all
    cores and are slower side by side. On a GPU, two batches are in flight, so that it does not wait for the next
    batch. A row that fails yields a Failure.
    """
    backbone = forward.backbone
    on_cpu = backbone.device.type == "cpu"
    prepare = Preparer(listing, backbone, find, timer)
    window = max(forward.batch_size, backbone.sorted_items)
    alternate = on_cpu and not backbone.one_thread  # a one-thread backbone only looks vectors up
    windows = prepare_windows(rows, prepare, threads, window, forward.weight, timer, alternate=alternate)
    with contextlib.closing(windows):
        jobs = _jobs(windows, forward)
        work = partial(_embed_batch, listing=listing, forward=forward, timer=timer)
        for messages in map(work, jobs) if on_cpu else _in_flight(jobs, work):
            yield from messages


def _jobs(windows: Iterable[Window], forward: Forwarder) -> Iterator[list[Prepared] | list[Reused | Failure]]:
    """Yield rows that need no forward pass, and batches of similar size, the largest first to fail early on memory."""
    for prepared, others in windows:
        yield others
        prepared.sort(key=lambda each: -each.item.size)
        at = 0
        while at < len(prepared):
            batch = prepared[at : at + forward.batch_size]
            yield batch
            at += len(batch)


def _in_flight(jobs: Iterator[Job], work: Callable[[Job], list[Message]]) -> Iterator[list[Message]]:
    """Work on jobs in two threads and yield their messages in order."""
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
    """Embed a batch. Jobs that need no forward pass are returned unchanged."""
    batch = [each for each in job if isinstance(each, Prepared)]
    if not batch:
        return [each for each in job if not isinstance(each, Prepared)]
    try:
        with timer("copy"):
            values = forward.backbone.collate([each.item.value for each in batch])
        vectors = forward(values)
    except (BackboneError, TemporaryError):  # no fault of an item
        raise
    except Exception as error:
        if len(batch) == 1:
            return [listing.failure(batch[0].row, error, "forward")]
        # Halving finds the item on which the backbone fails.
        halves = batch[: len(batch) // 2], batch[len(batch) // 2 :]
        return [message for half in halves for message in _embed_batch(half, listing, forward, timer)]
    finite = np.logical_and.reduce([np.isfinite(block).all(axis=1) for block in vectors.values()])
    messages: list[Message] = [
        listing.failure(each.row, ForwardError("the vector of the backbone has NaN or infinite values"), "forward")
        for each, good in zip(batch, finite, strict=True)
        if not good
    ]
    kept = [each for each, good in zip(batch, finite, strict=True) if good]
    if kept:
        messages.append(
            Embedded(
                [each.row for each in kept],
                [each.hash for each in kept],
                vectors if finite.all() else {name: block[finite] for name, block in vectors.items()},
                [each.item.counts for each in kept],
                [each.item.text for each in kept],
                [each.item.perceptual_hash for each in kept],
            )
        )
    return messages
