"""`ImageSet`: images for training and evaluation, read, decoded and augmented by threads a few batches ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embedpipe._utils.config import usable_cores
from embedpipe.decoding import decode_pixels
from embedpipe.decoding.recipe import Preprocessing
from embedpipe.errors import Failure, ItemError, TrainingDataError
from embedpipe.finetuning.training.augmentation import Pixels, Strength, augment

Rows = npt.NDArray[np.int64]
#: The share of the only process.
EVERYTHING = slice(None)
#: Batches that are prepared while the network trains on one.
PREFETCHED_BATCHES = 2


@dataclass(frozen=True)
class ImageSet:
    """The images of a data set, by position.

    Parameters
    ----------
    read : callable
        ``read(position)`` returns what `embedpipe.decoding.decode_pixels` takes, or raises ItemError.
    ids, uris : sequence of str
    recipe : Preprocessing
        The preprocessing of the network.
    seed : int
        Of the augmentation, which depends only on seed, epoch and position.
    failed : dict of int to Failure
        Images that could not be read and are left out, by position.
    pinned : bool
        Whether batches are in pinned memory, from which a GPU copies faster.
    """

    read: Callable[[int], Any]
    ids: Sequence[str]
    uris: Sequence[str | None]
    recipe: Preprocessing
    seed: int = 0
    failed: dict[int, Failure] = field(default_factory=dict)
    pinned: bool = False

    @property
    def left_out(self) -> dict[str, str]:
        """Id of each image that could not be read -> reason."""
        return {failure.id: failure.why for failure in self.failed.values()}

    def require(self, read: int, wanted: int, what: str) -> None:
        """Raise TrainingDataError if none of the ``wanted`` images could be read; ``what`` is their name."""
        if not read:
            reason = next((f": {failure.id}: {failure.message}" for failure in self.failed.values()), "")
            raise TrainingDataError(f"none of the {wanted} {what} images can be read{reason}")

    def batches(
        self, rows: Rows, size: int, strength: Strength = "none", epoch: int = 0, share: slice = EVERYTHING
    ) -> Iterator[tuple[Rows, Tensor]]:
        """Yield the positions and pixels, uint8 (n, h, w, 3), of batches in the order of ``rows``.

        Images that fail are added to ``failed`` and left out of their batch, which may become empty.

        Parameters
        ----------
        rows : int64 array
            Positions.
        size : int
            Images per batch, over all processes.
        strength : str
            Of the augmentation.
        epoch : int
        share : slice
            The part of each batch that is returned.
        """
        parts = [rows[start : start + size][share] for start in range(0, len(rows), size)]
        with ThreadPoolExecutor(usable_cores()) as pool:
            waiting: deque[tuple[Rows, list[Future[Pixels | None]]]] = deque()
            for part in parts:
                futures = [pool.submit(self._load, row, strength, epoch) for row in part.tolist()]
                waiting.append((part, futures))
                if len(waiting) > PREFETCHED_BATCHES:
                    yield self._join_batch(*waiting.popleft())
            while waiting:
                yield self._join_batch(*waiting.popleft())

    def _load(self, row: int, strength: Strength, epoch: int) -> Pixels | None:
        try:
            picture = decode_pixels(self.read(row), self.recipe)
            return augment(picture, self.recipe, strength, np.random.default_rng([self.seed, epoch, row]))
        except ItemError as error:
            self.failed[row] = Failure.of(self.ids[row], self.uris[row], error)
            return None

    def _join_batch(self, part: Rows, futures: list[Future[Pixels | None]]) -> tuple[Rows, Tensor]:
        decoded = [future.result() for future in futures]
        good = [pixels for pixels in decoded if pixels is not None]
        pixels = torch.empty((len(good), *self.recipe.crop, 3), dtype=torch.uint8, pin_memory=self.pinned)
        if good:
            np.stack(good, out=pixels.numpy())
        return part[np.array([pixels is not None for pixels in decoded], bool)], pixels
