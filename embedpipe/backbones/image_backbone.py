"""Images to pixels, pixels to vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embedpipe.backbones.backbone import Backbone, Item
from embedpipe.backbones.network import ImageNetwork
from embedpipe.decoding import Preprocessing, decode_image, to_pixels
from embedpipe.errors import BackboneError


@dataclasses.dataclass(frozen=True)
class ImageBackbone(Backbone):
    """A `Backbone` that embeds pictures."""

    network: ImageNetwork = dataclasses.field(repr=False)

    @property
    def _recipe(self) -> Preprocessing:
        return self.network.preprocessing

    def prepare(self, payload: Any) -> Item:
        """Decode an encoded image, or take a PIL image or array, and resize and crop it for the network.

        Returns
        -------
        Item
            Its value is uint8 of shape (h, w, 3).

        Raises
        ------
        DecodeError
            If the payload is no picture.
        """
        return Item(to_pixels(decode_image(payload), self._recipe))

    def forward(self, values: Sequence[npt.NDArray[np.uint8]]) -> dict[str, npt.NDArray[np.float32]]:
        """Embed pictures of shape (h, w, 3), or an array of them (n, h, w, 3); see `Backbone.forward`."""
        batch = values if isinstance(values, np.ndarray) else np.stack(values)
        expected = (*self._recipe.crop, 3)
        if batch.dtype != np.uint8 or batch.shape[1:] != expected:
            raise BackboneError(
                f"the batch is {batch.dtype} {batch.shape}, not uint8 (n, {', '.join(map(str, expected))})"
            )
        return self._run(self._normalise(batch), len(batch))

    def _normalise(self, batch: npt.NDArray[np.uint8]) -> Tensor:
        """Return torchvision's ``ToTensor`` and ``Normalize`` of a batch: the same arithmetic, on the device."""
        pixels = torch.from_numpy(np.require(batch, requirements=["C", "W"]))
        if self.device.type == "cuda":
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        pixels = pixels.to(self.device).permute(0, 3, 1, 2)  # channels last in memory, as the network is
        mean, std = (
            torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (self._recipe.mean, self._recipe.std)
        )
        return pixels.to(torch.float32).div_(255).sub_(mean).div_(std)
