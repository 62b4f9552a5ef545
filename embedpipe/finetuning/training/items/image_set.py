"""`ImageSet`: images, decoded and augmented."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from embedpipe.decoding import decode_pixels
from embedpipe.decoding.recipe import Preprocessing
from embedpipe.finetuning.training.items.augmentation import Pixels, Strength, augment
from embedpipe.finetuning.training.items.item_set import ItemSet
from embedpipe.sources.options import Modality


@dataclass(frozen=True)
class ImageSet(ItemSet):
    """An `ItemSet` of images, whose batches are uint8 (n, h, w, 3).

    Parameters
    ----------
    recipe : Preprocessing
        The preprocessing of the network.
    seed : int
        Of the augmentation, which depends only on seed, epoch and position.
    pinned : bool
        Whether batches are in pinned memory, from which a GPU copies faster.
    """

    modality: ClassVar[Modality] = "image"

    recipe: Preprocessing
    seed: int = 0
    pinned: bool = False

    def _prepare(self, row: int, strength: Strength, epoch: int) -> Pixels:
        picture = decode_pixels(self.read(row), self.recipe)
        return augment(picture, self.recipe, strength, np.random.default_rng([self.seed, epoch, row]))

    def _join(self, values: list[Pixels]) -> Tensor:
        pixels = torch.empty((len(values), *self.recipe.crop, 3), dtype=torch.uint8, pin_memory=self.pinned)
        if values:
            np.stack(values, out=pixels.numpy())
        return pixels
