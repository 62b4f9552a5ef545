"""`ItemSet`: the images or texts of a data set, read and prepared by threads a few batches ahead."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from embedpipe._utils.config import usable_cores
from embedpipe.errors import Failure, ItemError, TrainingDataError
from embedpipe.finetuning.training.items.augmentation import Strength
from embedpipe.finetuning.training.items.batches import Batch
from embedpipe.sources.options import Modality

Rows = npt.NDArray[np.int64]
#: The share of the only process.
EVERYTHING = slice(None)
#: Batches that are prepared while the network trains on one.
PREFETCHED_BATCHES = 2


@dataclass(frozen=True)
class ItemSet(ABC):
    """The items of a data set, by position.

    Parameters
    ----------
    read : callable
        ``read(position)`` returns a payload, or raises ItemError.
    ids, uris : sequence of str
    failed : dict of int to Failure
        Items that could not be read and are left out, by position.
    """

    modality: ClassVar[Modality]

    read: Callable[[int], Any]
    ids: Sequence[str]
    uris: Sequence[str | None]
    failed: dict[int, Failure] = field(default_factory=dict, kw_only=True)

    @property
    def noun(self) -> str:
        """The items in words: ``images`` or ``texts``."""
        return f"{self.modality}s"

    @property
    def left_out(self) -> dict[str, str]:
        """Id of each item that could not be read -> reason."""
        return {failure.id: failure.why for failure in self.failed.values()}

    def require(self, read: int, wanted: int, what: str) -> None:
        """Raise TrainingDataError if none of the ``wanted`` items could be read; ``what`` is their name."""
        if not read:
            reason = next((f": {failure.id}: {failure.message}" for failure in self.failed.values()), "")
            raise TrainingDataError(f"none of the {wanted} {what} {self.noun} can be read{reason}")

    def batches(
        self, rows: Rows, size: int, strength: Strength = "none", epoch: int = 0, share: slice = EVERYTHING
    ) -> Iterator[tuple[Rows, Batch]]:
        """Yield the positions and items of batches in the order of ``rows``.

        Items that fail are added to ``failed`` and left out of their batch, which may become empty.

        Parameters
        ----------
        rows : int64 array
            Positions.
        size : int
            Items per batch, over all processes.
        strength : str
            Of the augmentation of images.
        epoch : int
        share : slice
            The part of each batch that is returned.
        """
        parts = [rows[start : start + size][share] for start in range(0, len(rows), size)]
        with ThreadPoolExecutor(usable_cores()) as pool:
            waiting: deque[tuple[Rows, list[Future[Any]]]] = deque()
            for part in parts:
                waiting.append((part, [pool.submit(self._load, row, strength, epoch) for row in part.tolist()]))
                if len(waiting) > PREFETCHED_BATCHES:
                    yield self._join_batch(*waiting.popleft())
            while waiting:
                yield self._join_batch(*waiting.popleft())

    def _load(self, row: int, strength: Strength, epoch: int) -> Any:
        try:
            return self._prepare(row, strength, epoch)
        except ItemError as error:
            self.failed[row] = Failure.of(self.ids[row], self.uris[row], error)
            return None

    def _join_batch(self, part: Rows, futures: list[Future[Any]]) -> tuple[Rows, Batch]:
        values = [future.result() for future in futures]
        good = np.array([value is not None for value in values], bool)
        return part[good], self._join([value for value in values if value is not None])

    @abstractmethod
    def _prepare(self, row: int, strength: Strength, epoch: int) -> Any:
        """Read an item and prepare it for the network. Raises ItemError."""

    @abstractmethod
    def _join(self, values: list[Any]) -> Batch:
        """Return prepared items, of which there may be none, as a batch."""
