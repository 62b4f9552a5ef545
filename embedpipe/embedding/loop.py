"""The embedding loop: decode threads feed batches, the backbone embeds them, the writer thread commits them."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe.backbones import Backbone
from embedpipe.decoding import payload_hash
from embedpipe.embedding.summary import StageTimer
from embedpipe.embedding.writer import Embedded, Message, Reused
from embedpipe.errors import BackboneError, Failure, ForwardError
from embedpipe.sources import Listing

Vectors = dict[str, npt.NDArray[np.float32]]


class HashIndex:
    """Finds the id of a stored item by its content hash, at 24 bytes a row."""

    def __init__(self, hashes: pa.ChunkedArray, ids: pa.ChunkedArray) -> None:
        keys = np.array(hashes.to_pylist(), dtype="S64")
        self._order = np.argsort(keys)
        self._keys = keys[self._order]
        self._ids = ids.combine_chunks()

    def find(self, digest: str) -> str | None:
        """Return the id of an item with this content, or None."""
        key = np.bytes_(digest.encode())
        at = int(np.searchsorted(self._keys, key))
        if at < len(self._keys) and self._keys[at] == key:
            return str(self._ids[int(self._order[at])].as_py())
        return None


@dataclass(frozen=True)
class Prepared:
    """One item that is ready for the backbone."""

    row: int
    hash: str
    pixels: npt.NDArray[Any]


class Forwarder:
    """Runs the backbone on batches, with half the batch size whenever memory runs out."""

    def __init__(self, backbone: Backbone, batch_size: int) -> None:
        self.backbone = backbone
        self.batch_size = batch_size

    def __call__(self, batch: npt.NDArray[Any]) -> Vectors:
        """Embed a batch (n, ...) into column -> float32 (n, dim).

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
    """Read, decode and embed rows of a listing; yield what the writer takes, every row exactly once.

    Decoding runs a few batches ahead in threads (the decoders release Python's lock); results are taken in
    order, so memory is bounded and runs are alike. A row that fails yields a Failure.
    """
    uris = listing.table.column("uri")
    ids = listing.table.column("id")

    def failure(row: int, error: Exception, stage: str) -> Failure:
        return Failure.of(ids[row].as_py(), uris[row].as_py(), error, stage)

    def prepare(row: int) -> Prepared | Reused | Failure:
        stage = "read"
        try:
            with timer("read"):
                payload = listing.read(row)
                digest = payload_hash(payload)
            if (known := index.find(digest)) is not None:
                return Reused(row, digest, known)
            stage = "decode"
            with timer("decode"):
                return Prepared(row, digest, forward.backbone.prepare(payload))
        except Exception as error:  # one bad item never stops a job
            return failure(row, error, stage)

    def embed(batch: list[Prepared]) -> Iterator[Message]:
        try:
            with timer("forward"):
                vectors = forward(np.stack([item.pixels for item in batch]))
        except BackboneError:
            raise
        except Exception as error:
            if len(batch) == 1:
                yield failure(batch[0].row, error, "forward")
            else:  # find the item that the backbone refuses
                yield from embed(batch[: len(batch) // 2])
                yield from embed(batch[len(batch) // 2 :])
            return
        finite = np.logical_and.reduce([np.isfinite(block).all(axis=1) for block in vectors.values()])
        for item, good in zip(batch, finite, strict=True):
            if not good:
                yield failure(item.row, ForwardError("the backbone's vector has NaN or infinite values"), "forward")
        kept = [item for item, good in zip(batch, finite, strict=True) if good]
        if kept:
            yield Embedded([i.row for i in kept], [i.hash for i in kept], {k: v[finite] for k, v in vectors.items()})

    with ThreadPoolExecutor(threads, thread_name_prefix="embedpipe-decode") as pool:
        ahead: deque[Future[Prepared | Reused | Failure]] = deque()
        todo = iter(rows.tolist())
        batch: list[Prepared] = []
        try:
            while True:
                while len(ahead) < forward.batch_size + 2 * threads and (row := next(todo, None)) is not None:
                    ahead.append(pool.submit(prepare, row))
                if not ahead:
                    break
                with timer("wait"):
                    result = ahead.popleft().result()
                if not isinstance(result, Prepared):
                    yield result
                    continue
                batch.append(result)
                if len(batch) >= forward.batch_size:
                    yield from embed(batch)
                    batch = []
            if batch:
                yield from embed(batch)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
