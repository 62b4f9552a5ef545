"""A network with the capturing and pooling of its layers as one module, which engines run or export."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from embedpipe.backbones.layers.capture import check_output, run_layers
from embedpipe.backbones.layers.pooling import Batch, pool
from embedpipe.backbones.network import ImageNetwork, TextNetwork
from embedpipe.backbones.spec import LayerSpec
from embedpipe.decoding.recipe import Preprocessing


class Embedder(nn.Module):
    """Turns a prepared batch into the pooled vectors of each layer.

    Parameters
    ----------
    network : ImageNetwork or TextNetwork
    layers : sequence of LayerSpec

    Notes
    -----
    It takes tensors by position: for images one, uint8 of shape (n, h, w, 3); for texts those of the tokenizer, in the
    order of the names in ``inputs``.
    """

    def __init__(self, network: ImageNetwork | TextNetwork, layers: Sequence[LayerSpec], inputs: Sequence[str]) -> None:
        super().__init__()
        self.module = network.module
        self._network, self._inputs = network, tuple(inputs)
        self._layers = {layer.name: layer for layer in layers}

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return float32 (n, dim) of each layer, in the order of the layers."""
        batch = self._batch(tensors)
        # For some text models no tensor has one row per item; then `Backbone` checks the shape of the vectors.
        unknown = isinstance(batch, dict) and "attention_mask" not in batch
        n = None if unknown else tensors[0].shape[0]

        def take(name: str, output: Any) -> Tensor:
            check_output(name, output, n)
            return pool(self._network, output, self._layers[name].pooling, name, batch)

        vectors = run_layers(self._network, list(self._layers), batch, take)
        return tuple(vectors[name] for name in self._layers)

    def _batch(self, tensors: tuple[Tensor, ...]) -> Batch:
        if isinstance(self._network, TextNetwork):
            return dict(zip(self._inputs, tensors, strict=True))
        return normalise(tensors[0], self._network.preprocessing)


def normalise(pixels: Tensor, recipe: Preprocessing) -> Tensor:
    """Normalise a batch on its device as torchvision's ``ToTensor`` and ``Normalize`` do.

    Parameters
    ----------
    pixels : Tensor of uint8, shape (n, h, w, 3)
    recipe : Preprocessing

    Returns
    -------
    Tensor of float32, shape (n, 3, h, w)
        In the memory format channels_last, as the network's weights.
    """
    mean, std = (torch.tensor(v, device=pixels.device).view(1, 3, 1, 1) for v in (recipe.mean, recipe.std))
    return pixels.permute(0, 3, 1, 2).to(torch.float32).div(255).sub(mean).div(std)
