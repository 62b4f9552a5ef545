"""How the vectors of a text's tokens become one, whatever padding its batch has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from embedpipe.backbones.network import TextNetwork
from embedpipe.backbones.spec import Pooling
from embedpipe.errors import UsageError

Batch = dict[str, Tensor]


def pool_tokens(network: TextNetwork, output: Tensor, batch: Batch, pooling: Pooling, name: str) -> Tensor:
    """Turn an output (n, length, dim), or (n, dim), into float32 vectors (n, dim).

    ``avg`` and ``max`` are over the tokens that are no padding, ``cls`` is the first one; ``sif`` is the mean of
    the tokens times their weights, which fall with how frequent a word is (Arora, Liang, Ma: A simple but
    tough-to-beat baseline for sentence embeddings, ICLR 2017). A text without a token is zeros.

    Raises
    ------
    UsageError
        If the pooling does not apply to such an output.
    """
    output = output.to(torch.float32)
    if output.ndim == 2:
        return output.clone()
    mask = batch.get("attention_mask", torch.ones(output.shape[:2])).to(output.device)
    if output.ndim != 3 or output.shape[:2] != mask.shape:
        raise UsageError(f"the layer {name!r} gives {tuple(output.shape)}, not one vector a token: take another")
    match pooling:
        case "avg" | "sif":
            weights = mask.to(torch.float32)
            if pooling == "sif":
                weights = weights * _weights(network, batch)
            total = (weights[:, None] @ output)[:, 0]
            return total / mask.sum(1, keepdim=True).clamp(min=1)
        case "max":
            best = output.masked_fill(mask[..., None] == 0, -torch.inf).amax(1)
            return torch.where(mask.any(1, keepdim=True), best, 0.0)
        case "cls" if network.class_token:
            return output[:, 0].clone()
        case "cls":
            raise UsageError(f"pooling='cls': {network.name} has no class token; take avg or max")
    raise UsageError(f"pooling={pooling!r} is not for texts: take avg, cls, max or sif")


def _weights(network: TextNetwork, batch: Batch) -> Any:
    if network.token_weights is None:
        raise UsageError(f"pooling='sif': {network.name} has no word frequencies, only word-vectors/ have; take avg")
    return network.token_weights(network.module, batch)
