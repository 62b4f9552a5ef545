"""The embedding loop: threads prepare items, the backbone embeds batches of them, the writer thread commits them."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe.backbones import Backbone, Item
from embedpipe.decoding import payload_hash
from embedpipe.embedding.summary import StageTimer
from embedpipe.embedding.writer import Embedded, Message, Reused
from embedpipe.errors import BackboneError, Failure, ForwardError
from embedpipe.sources import Listing

Vectors = dict[str, npt.NDArray[np.float32]]


#: Items that one task of a thread prepares, at most: cheap ones in large parts, or the tasks cost more than they do.
LARGEST_TASK = 256


class HashIndex:
    """Finds the id of a stored item by its content hash, at 24 bytes a row."""

    def __init__(self, hashes: pa.ChunkedArray, ids: pa.ChunkedArray) -> None:
        keys = np.array(hashes.to_pylist(), dtype="S64")
        self._order = np.argsort(keys)
        self._keys = keys[self._order]
        self._ids = ids.combine_chunks()

    def find(self, digest: str) -> str | None:
        """Return the id of an item with this content, or None."""
        if not len(self._keys):
            return None
        key = np.bytes_(digest.encode())
        at = int(np.searchsorted(self._keys, key))
        if at < len(self._keys) and self._keys[at] == key:
            return str(self._ids[int(self._order[at])].as_py())
        return None


class Prepared(NamedTuple):
    """One item that is ready for the backbone."""

    row: int
    hash: str
    item: Item


class Forwarder:
    """Runs the backbone on batches, with half the batch size whenever memory runs out."""

    def __init__(self, backbone: Backbone, batch_size: int) -> None:
        self.backbone = backbone
        self.batch_size = batch_size

    def __call__(self, batch: Sequence[Any]) -> Vectors:
        """Embed the values of items into column -> float32 (n, dim).

        Raises BackboneError if a single item does not fit into memory.
        """
        if len(batch) > (size := self.batch_size):
            parts = [self(batch[i : i + size]) for i in range(0, len(batch), size)]
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        try:
            return self.backbone.forward(batch)
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

    Preparing runs a few batches ahead in threads (decoders and tokenizers release Python's lock); results are taken
    in order, so memory is bounded and runs are alike. A row that fails yields a Failure.
    """
    prepare = _Preparer(listing, forward.backbone, index, timer)
    window = forward.batch_size * forward.backbone.sorted_batches
    step = max(1, min(LARGEST_TASK, window // 8))
    with ThreadPoolExecutor(threads, thread_name_prefix="embedpipe-prepare") as pool:
        ahead: deque[Future[list[Prepared | Reused | Failure]]] = deque()
        todo = iter(range(0, len(rows), step))
        waiting: list[Prepared] = []
        try:
            while True:
                while len(ahead) * step < window + 2 * threads * step and (at := next(todo, None)) is not None:
                    ahead.append(pool.submit(prepare, rows[at : at + step].tolist()))
                if not ahead:
                    break
                with timer("wait"):
                    results = ahead.popleft().result()
                for result in results:
                    if isinstance(result, Prepared):
                        waiting.append(result)
                    else:
                        yield result
                while len(waiting) >= window:
                    yield from _embed_sorted(waiting[:window], listing, forward, timer)
                    waiting = waiting[window:]
            yield from _embed_sorted(waiting, listing, forward, timer)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class _Preparer:
    """Reads and prepares rows of a listing, in a thread."""

    def __init__(self, listing: Listing, backbone: Backbone, index: HashIndex, timer: StageTimer) -> None:
        self._listing, self._backbone, self._index, self._timer = listing, backbone, index, timer

    def __call__(self, rows: list[int]) -> list[Prepared | Reused | Failure]:
        """Return one result for each row."""
        results: list[Prepared | Reused | Failure] = []
        seconds = {"read": 0.0, "decode": 0.0}
        for row in rows:
            stage, start = "read", time.perf_counter()
            try:
                payload = self._listing.read(row)
                digest = payload_hash(payload)
                if (known := self._index.find(digest)) is not None:
                    results.append(Reused(row, digest, known))
                    continue
                read = time.perf_counter()
                seconds["read"] += read - start
                stage, start = "decode", read
                results.append(Prepared(row, digest, self._backbone.prepare(payload)))
            except Exception as error:  # one bad item never stops a job
                results.append(_failure(self._listing, row, error, stage))
            finally:
                seconds[stage] += time.perf_counter() - start
        for stage, spent in seconds.items():
            self._timer.add(stage, spent)
        return results


def _embed_sorted(
    prepared: list[Prepared], listing: Listing, forward: Forwarder, timer: StageTimer
) -> Iterator[Message]:
    """Embed items in batches of like sizes, the largest first: what does not fit into memory shows at once."""
    prepared.sort(key=lambda one: -one.item.size)
    at = 0
    while at < len(prepared):
        batch = prepared[at : at + forward.batch_size]
        yield from _embed_batch(batch, listing, forward, timer)
        at += len(batch)


def _embed_batch(batch: list[Prepared], listing: Listing, forward: Forwarder, timer: StageTimer) -> Iterator[Message]:
    try:
        with timer("forward"):
            vectors = forward([one.item.value for one in batch])
    except BackboneError:
        raise
    except Exception as error:
        if len(batch) == 1:
            yield _failure(listing, batch[0].row, error, "forward")
        else:  # find the item that the backbone refuses
            yield from _embed_batch(batch[: len(batch) // 2], listing, forward, timer)
            yield from _embed_batch(batch[len(batch) // 2 :], listing, forward, timer)
        return
    finite = np.logical_and.reduce([np.isfinite(block).all(axis=1) for block in vectors.values()])
    for one, good in zip(batch, finite, strict=True):
        if not good:
            yield _failure(
                listing, one.row, ForwardError("the backbone's vector has NaN or infinite values"), "forward"
            )
    kept = [one for one, good in zip(batch, finite, strict=True) if good]
    if kept:
        counts: Counter[str] = Counter()
        for one in kept:
            for name, count in one.item.counts.items():
                counts[name] += count
        yield Embedded(
            [one.row for one in kept],
            [one.hash for one in kept],
            vectors if finite.all() else {name: block[finite] for name, block in vectors.items()},
            counts,
            [one.item.text for one in kept],
        )


def _failure(listing: Listing, row: int, error: Exception, stage: str) -> Failure:
    table = listing.table
    return Failure.of(table.column("id")[row].as_py(), table.column("uri")[row].as_py(), error, stage)
