"""Pictures for training and measuring: read, checked, decoded and augmented by threads, a few batches ahead."""

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
#: The share of a process that trains alone.
EVERYTHING = slice(None)
#: Batches that are being prepared while one is trained on.
AHEAD = 2


@dataclass(frozen=True)
class ImageSet:
    """The pictures of a data set, by position.

    Parameters
    ----------
    read : callable
        ``read(position)`` returns what `embedpipe.decoding.decode_pixels` takes, or raises ItemError.
    ids, uris : sequence of str
    recipe : Preprocessing
        The network's.
    seed : int
        Of the augmentation: that of a picture in an epoch does not depend on anything else.
    failed : dict of int to Failure
        Pictures that could not be read and are left out, by position.
    pinned : bool
        Whether batches lie in memory that a GPU copies from by itself.
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
        """Ids of the pictures that could not be read -> why."""
        return {failure.id: failure.why for failure in self.failed.values()}

    def require(self, read: int, wanted: int, what: str) -> None:
        """Raise TrainingDataError, with a reason, if not one of so many pictures could be read."""
        if not read:
            why = next((f": {one.id}: {one.message}" for one in self.failed.values()), "")
            raise TrainingDataError(f"none of the {wanted} {what} pictures can be read{why}")

    def batches(
        self, rows: Rows, size: int, strength: Strength = "none", epoch: int = 0, share: slice = EVERYTHING
    ) -> Iterator[tuple[Rows, Tensor]]:
        """Yield positions and pictures, uint8 (n, h, w, 3), in the order of ``rows``, a share of ``size`` at a time.

        Pictures that fail are missing from their batch, and are in ``failed``; a batch may have none left.
        """
        parts = [rows[start : start + size][share] for start in range(0, len(rows), size)]
        with ThreadPoolExecutor(usable_cores()) as pool:
            waiting: deque[tuple[Rows, list[Future[Pixels | None]]]] = deque()
            for part in parts:
                futures = [pool.submit(self._pixels, row, strength, epoch) for row in part.tolist()]
                waiting.append((part, futures))
                if len(waiting) > AHEAD:
                    yield self._joined(*waiting.popleft())
            while waiting:
                yield self._joined(*waiting.popleft())

    def _pixels(self, row: int, strength: Strength, epoch: int) -> Pixels | None:
        try:
            picture = decode_pixels(self.read(row), self.recipe)
            return augment(picture, self.recipe, strength, np.random.default_rng([self.seed, epoch, row]))
        except ItemError as error:
            self.failed[row] = Failure.of(self.ids[row], self.uris[row], error)
            return None

    def _joined(self, part: Rows, futures: list[Future[Pixels | None]]) -> tuple[Rows, Tensor]:
        found = [future.result() for future in futures]
        good = [pixels for pixels in found if pixels is not None]
        pixels = torch.empty((len(good), *self.recipe.crop, 3), dtype=torch.uint8, pin_memory=self.pinned)
        if good:
            np.stack(good, out=pixels.numpy())
        return part[np.array([one is not None for one in found], bool)], pixels
