"""The embedding loop: threads prepare items, the backbone embeds batches of them, the writer thread commits them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe.backbones import Backbone
from embedpipe.embedding.preparing import Prepared, Preparer, failure_of, prepare_windows
from embedpipe.embedding.summary import StageTimer
from embedpipe.embedding.writer import Embedded, Message
from embedpipe.errors import BackboneError, ForwardError
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
        if not len(self._keys):
            return None
        key = np.bytes_(digest.encode())
        at = int(np.searchsorted(self._keys, key))
        if at < len(self._keys) and self._keys[at] == key:
            return str(self._ids[int(self._order[at])].as_py())
        return None


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

    Preparing runs ahead in threads (decoders and tokenizers release Python's lock); windows of prepared items are
    taken in order, so memory is bounded and runs are alike. A row that fails yields a Failure.
    """
    prepare = Preparer(listing, forward.backbone, index.find, timer)
    window = forward.batch_size * forward.backbone.sorted_batches
    with contextlib.closing(prepare_windows(rows, prepare, threads, window, timer)) as windows:
        for prepared, others in windows:
            yield from others
            yield from _embed_sorted(prepared, listing, forward, timer)


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
            yield failure_of(listing, batch[0].row, error, "forward")
        else:  # find the item that the backbone refuses
            yield from _embed_batch(batch[: len(batch) // 2], listing, forward, timer)
            yield from _embed_batch(batch[len(batch) // 2 :], listing, forward, timer)
        return
    finite = np.logical_and.reduce([np.isfinite(block).all(axis=1) for block in vectors.values()])
    for one, good in zip(batch, finite, strict=True):
        if not good:
            yield failure_of(
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
