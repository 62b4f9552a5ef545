"""Pooling: how the output of a layer becomes one vector per item."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from embedpipe._utils.option_names import option
from embedpipe.backbones.network import ImageNetwork, TextNetwork
from embedpipe.backbones.spec import FEATURES, Pooling
from embedpipe.errors import UsageError

#: The input of a network: normalised pixels (n, 3, h, w), or a tokenizer's tensors.
Batch = Tensor | dict[str, Tensor]


def default_pooling(network: ImageNetwork | TextNetwork, output: Tensor, name: str) -> Pooling:
    """Return the pooling of a layer's output (n, ...) if the user sets none.

    Vectors stay as they are. Feature maps and the tokens of texts are averaged. Of patch tokens the class token is
    used, or the average if there is none. Features have the pooling with which the network was published.
    """
    if output.ndim == 2:
        return "none"
    if isinstance(network, TextNetwork):
        return "avg"
    if name == FEATURES and network.default_pooling is not None:
        return network.default_pooling
    if output.ndim == 3:
        return "cls" if network.class_token and _prefix(network, output) else "avg"
    return "avg" if output.ndim == 4 else "flatten"


def pool(
    network: ImageNetwork | TextNetwork, output: Tensor, pooling: Pooling, name: str, batch: Batch | None = None
) -> Tensor:
    """Turn an output (n, ...) into new float32 vectors (n, dim).

    ``avg`` and ``max`` are over the positions of a feature map, or over the patch tokens; ``cls`` is the class token,
    ``cls+mean`` the class token followed by the average of the patch tokens (n, 2 dim).
    For texts see `pool_tokens`, which needs the ``batch`` of the output.

    Raises
    ------
    UsageError
        If the pooling does not apply to such an output.
    """
    if isinstance(network, TextNetwork):
        return pool_tokens(network, output, batch if isinstance(batch, dict) else {}, pooling, name)
    if pooling == "sif":
        raise UsageError(f"{option('pooling', 'sif')} applies to word-vectors/ only: use avg, max or cls")
    shape = tuple(output.shape)
    output = output.to(torch.float32, copy=True)
    if pooling == "flatten" or output.ndim == 2:
        return output.flatten(1)
    if pooling == "none":
        raise UsageError(
            f"{option('pooling', 'none')} needs vectors, but the layer {name!r} returns {shape}: use avg, max or "
            "flatten"
        )
    if pooling == "pooler":
        raise UsageError(
            f"{option('pooling', 'pooler')} applies to the features only, not to the layer {name!r}: use avg or cls"
        )
    finish = partial(network.after_pooling, network.module) if network.after_pooling and name == FEATURES else None
    if pooling in ("cls", "cls+mean"):
        if output.ndim != 3 or not network.class_token or not _prefix(network, output):
            raise UsageError(
                f"{option('pooling', pooling)} needs a class token, but the layer {name!r} returns {shape} without "
                "one: use avg or max"
            )
        parts = [output[:, 0]] + ([output[:, _prefix(network, output) :].mean(1)] if pooling == "cls+mean" else [])
        return torch.cat([part if finish is None else finish(part) for part in parts], 1)
    if output.ndim == 3:
        output, positions = output[:, _prefix(network, output) :], [1]
    elif output.ndim == 4:
        positions = [1, 2] if _is_channels_last(network, output) else [2, 3]
    else:
        raise UsageError(
            f"{option('pooling', pooling)} needs a feature map or tokens, but the layer {name!r} returns {shape}: "
            "use flatten"
        )
    pooled = output.mean(positions) if pooling == "avg" else output.amax(positions)
    return pooled if finish is None else finish(pooled)


def _prefix(network: ImageNetwork, tokens: Tensor) -> int:
    """Return how many tokens of (n, length, dim) precede the patches: early layers may have fewer than the last."""
    before = network.prefix_tokens if network.patches is None else tokens.shape[1] - network.patches
    return before if 0 <= before <= network.prefix_tokens else network.prefix_tokens


def _is_channels_last(network: ImageNetwork, maps: Tensor) -> bool:
    """Tell (n, h, w, c) from (n, c, h, w): height and width have the proportions of the image."""
    height, width = network.preprocessing.crop
    _, a, b, c = maps.shape
    last, first = a * width == b * height, b * width == c * height
    return last if last != first else network.channels_last


def pool_tokens(network: TextNetwork, output: Tensor, batch: dict[str, Tensor], pooling: Pooling, name: str) -> Tensor:
    """Turn an output (n, length, dim), or (n, dim), into float32 vectors (n, dim).

    ``avg`` and ``max`` are over the tokens without padding, ``cls`` is the first token. ``sif`` is the mean of the
    tokens times their weights, which decrease with the frequency of a word (Arora, Liang, Ma: A simple but
    tough-to-beat baseline for sentence embeddings, ICLR 2017). The vector of a text without tokens is zero.

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
        raise UsageError(
            f"the layer {name!r} must return one vector per token, got {tuple(output.shape)}: choose another"
        )
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
            raise UsageError(
                f"{option('pooling', 'cls')} needs a class token, but {network.name} has none: use avg or max"
            )
    raise UsageError(f"{option('pooling', pooling)} does not apply to texts: use avg, cls, max or sif")


def _weights(network: TextNetwork, batch: dict[str, Tensor]) -> Any:
    if network.token_weights is None:
        raise UsageError(
            f"{option('pooling', 'sif')} needs word frequencies, which only word-vectors/ have, not {network.name}: "
            "use avg"
        )
    return network.token_weights(network.module, batch)
