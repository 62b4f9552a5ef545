"""The backbone of images: from images to pixels, from pixels to vectors."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embedpipe._utils.device import cores
from embedpipe.backbones.backbone import Backbone, Item, Vectors
from embedpipe.backbones.engines.choice import Trial
from embedpipe.backbones.engines.engine import PART
from embedpipe.backbones.layers.embedder import Embedder
from embedpipe.backbones.network import ImageNetwork
from embedpipe.decoding import Picture, decode_pixels, to_pixels
from embedpipe.decoding.hashing.perceptual import perceptual_hash
from embedpipe.decoding.memory import room
from embedpipe.decoding.recipe import Preprocessing
from embedpipe.errors import BackboneError

#: The names of the tensors that an `Embedder` of images takes.
NAMES = ("pixels",)


@dataclasses.dataclass(frozen=True)
class ImageBackbone(Backbone):
    """A `Backbone` that embeds images."""

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
            If the payload is not an image that can be decoded.
        """
        with self.room(payload):
            return self._resize(self._decode(payload))

    def room(self, payload: Any) -> contextlib.AbstractContextManager[None]:
        """Wait until other threads leave enough memory to decode an image."""
        return room(payload)

    @property
    def steps(self) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
        """Decode, then resize; see `Backbone.steps`."""
        return (("decode", self._decode), ("resize", self._resize))

    def _decode(self, payload: Any) -> Picture:
        return decode_pixels(payload, self._recipe)

    def _resize(self, picture: Picture) -> Item:
        pixels = to_pixels(picture, self._recipe)
        return Item(pixels, counts=picture.counts, perceptual_hash=perceptual_hash(picture))

    def _captured(self, values: Sequence[npt.NDArray[np.uint8]] | npt.NDArray[np.uint8] | Tensor) -> Vectors:
        """Embed images of shape (h, w, 3), or an array of them (n, h, w, 3); see `Backbone.forward`."""
        batch = self.collate(values)
        return self._run([(batch,)], [len(batch)], NAMES)[0]

    def collate(self, values: Sequence[npt.NDArray[np.uint8]] | npt.NDArray[np.uint8] | Tensor) -> Tensor:
        """Return images as one tensor on the device, uint8 (n, h, w, 3). Raises BackboneError for other arrays."""
        if isinstance(values, Tensor):
            return values
        expected = (*self._recipe.crop, 3)
        if not isinstance(values, np.ndarray) and len(shapes := {np.shape(value) for value in values}) != 1:
            got = f"images of {' and '.join(map(str, sorted(shapes)))}" if shapes else "no image"
            raise BackboneError(f"the batch must be images of {expected}, got {got}")
        batch = values if isinstance(values, np.ndarray) else np.stack(values)
        if batch.dtype != np.uint8 or batch.shape[1:] != expected:
            raise BackboneError(
                f"the batch must be uint8 (n, {', '.join(map(str, expected))}), got {batch.dtype} {batch.shape}"
            )
        pixels = torch.from_numpy(np.require(batch, requirements=["C", "W"]))
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()
        return pixels.to(self.device, non_blocking=True)

    def _trial(self) -> Trial:
        height, width = self._recipe.crop
        rng = np.random.default_rng(0)
        # Blocks of noise have edges, so that every layer has input to respond to.
        blocks = rng.integers(0, 256, (2 * PART * cores(), height // 8 + 1, width // 8 + 1, 3))
        images = blocks.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width].astype(np.uint8)
        load = torch.from_numpy(np.ascontiguousarray(images))
        spec = self.spec.captured
        return Trial(Embedder(self.network, spec.layers, NAMES), spec, self.device, NAMES, (load[:3],), [(load,)])
