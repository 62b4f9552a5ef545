"""What is taken from a forward pass: outputs of named layers, and how each becomes one vector an item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from embedpipe.backbones.layers.token_pooling import pool_tokens
from embedpipe.backbones.network import ImageNetwork, TextNetwork
from embedpipe.backbones.spec import FEATURES, LayerSpec, Pooling
from embedpipe.errors import BackboneError, UsageError, nearest

#: Items in a trial run: two, so that an output without one row an item shows.
TRIAL = 2

#: What a network is run on: normalised pixels (n, 3, h, w), or a tokenizer's tensors.
Batch = Tensor | dict[str, Tensor]


def trial_batch(network: ImageNetwork | TextNetwork) -> Batch:
    """Return a batch of two blank pictures, (2, 3, h, w) float32, or two short texts, on the network's device."""
    device = next((p.device for p in network.module.parameters()), torch.device("cpu"))
    if isinstance(network, ImageNetwork):
        return torch.zeros(TRIAL, 3, *network.preprocessing.crop, device=device)
    piece = network.tokenizer.split("the of", whole=False).pieces[0]
    return {name: tensor.to(device) for name, tensor in network.tokenizer.collate([piece] * TRIAL).items()}


def run_layers(
    network: ImageNetwork | TextNetwork, names: Sequence[str], batch: Batch, take: Callable[[str, Any], Tensor]
) -> dict[str, Tensor]:
    """Run a network once and return ``take(name, output)`` of each named layer.

    Outputs are taken the moment a module returns, since later layers may overwrite them in place. Of a
    module that runs several times in one pass, the last output counts.

    Raises
    ------
    BackboneError
        If a module is never called.
    """
    taken: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            taken[name] = take(name, output)

        return keep

    inner = [name for name in names if name != FEATURES]
    handles = [network.module.get_submodule(name).register_forward_hook(hook(name)) for name in inner]
    try:
        if FEATURES in names or isinstance(network, TextNetwork):
            features = network.features(network.module, batch)
            if FEATURES in names:
                taken[FEATURES] = take(FEATURES, features)
        if len(taken) < len(names) and isinstance(network, ImageNetwork):  # some lie behind the features, or are all
            network.module(batch)
    finally:
        for handle in handles:
            handle.remove()
    if missing := [name for name in names if name not in taken]:
        raise BackboneError(
            f"the layer {missing[0]!r} is never called in a forward pass: take another; "
            "`embedpipe backbones NAME --layers` lists the stages"
        )
    return {name: taken[name] for name in names}


def plan_layers(
    network: ImageNetwork | TextNetwork, names: Sequence[str], pooling: Pooling | None
) -> tuple[LayerSpec, ...]:
    """Run a network on a trial batch and decide how each named layer becomes a vector, and of how many values.

    Raises
    ------
    UsageError
        If there is no such layer, or the pooling does not apply.
    BackboneError
        If a layer's output cannot become one vector an item.
    """
    pooling = "avg" if pooling == "mean" else pooling
    known = {FEATURES, *(name for name, _ in network.module.named_modules() if name)}
    for name in names:
        if name not in known:
            raise UsageError(
                f"{network.name} has no layer {name!r}{nearest(name, known)}; "
                "`embedpipe backbones NAME --layers` lists them"
            )
    chosen: dict[str, Pooling] = {}
    batch = trial_batch(network)

    def take(name: str, output: Any) -> Tensor:
        check_output(name, output, TRIAL)
        chosen[name] = "none" if output.ndim == 2 else pooling or default_pooling(network, output)
        return pool(network, output, chosen[name], name, batch)

    vectors = run_layers(network, names, batch, take)
    if pooling not in (None, "none") and set(chosen.values()) == {"none"}:
        raise UsageError(
            f"pooling={pooling!r} has nothing to pool: {', '.join(names)} give vectors already; leave it out"
        )
    layers = tuple(LayerSpec(name, chosen[name], vectors[name].shape[1]) for name in names)
    if len({layer.column for layer in layers}) < len(layers):
        raise UsageError(f"the layers {', '.join(names)} would share a column: embed them into stores of their own")
    return layers


def check_output(name: str, output: Any, n: int | None) -> None:
    """Raise BackboneError unless ``output`` is a tensor with one row for each of ``n`` items, where that is known."""
    if not isinstance(output, Tensor):
        raise BackboneError(
            f"the layer {name!r} gives a {type(output).__name__}, not a tensor: take a module inside or after it"
        )
    if output.ndim < 2 or (n is not None and output.shape[0] != n):
        raise BackboneError(
            f"the layer {name!r} gives {tuple(output.shape)} for {n} items, not one row an item: take another"
        )


def default_pooling(network: ImageNetwork | TextNetwork, output: Tensor) -> Pooling:
    """Return how an output (n, ...) becomes vectors where the user does not say.

    Vectors stay, maps and a text's tokens are averaged, and of patches it is the class token, or their average.
    """
    if output.ndim == 2:
        return "none"
    if isinstance(network, TextNetwork):
        return "avg"
    if output.ndim == 3:
        return "cls" if network.class_token and _prefix(network, output) else "avg"
    return "avg" if output.ndim == 4 else "flatten"


def pool(
    network: ImageNetwork | TextNetwork, output: Tensor, pooling: Pooling, name: str, batch: Batch | None = None
) -> Tensor:
    """Turn an output (n, ...) into new float32 vectors (n, dim).

    ``avg`` and ``max`` are over the places of a map, or over the patch tokens; ``cls`` is the class token. For
    texts see `pool_tokens`, which needs the ``batch`` that gave the output.

    Raises
    ------
    UsageError
        If the pooling does not apply to such an output.
    """
    if isinstance(network, TextNetwork):
        return pool_tokens(network, output, batch if isinstance(batch, dict) else {}, pooling, name)
    if pooling == "sif":
        raise UsageError("pooling='sif' is for word-vectors/; take avg, max or cls")
    shape = tuple(output.shape)
    output = output.to(torch.float32, copy=True)
    if pooling == "flatten" or output.ndim == 2:
        return output.flatten(1)
    if pooling == "none":
        raise UsageError(f"pooling='none': the layer {name!r} gives {shape}, no vectors; take avg, max or flatten")
    if pooling == "cls":
        if output.ndim != 3 or not network.class_token or not _prefix(network, output):
            raise UsageError(f"pooling='cls': the layer {name!r} gives {shape} without a class token; take avg or max")
        return output[:, 0]
    if output.ndim == 3:
        output, places = output[:, _prefix(network, output) :], [1]
    elif output.ndim == 4:
        places = [1, 2] if _is_channels_last(network, output) else [2, 3]
    else:
        raise UsageError(f"pooling={pooling!r}: the layer {name!r} gives {shape}, no map and no tokens; take flatten")
    return output.mean(places) if pooling == "avg" else output.amax(places)


def _prefix(network: ImageNetwork, tokens: Tensor) -> int:
    """Return how many tokens of (n, length, dim) are no patches: none where there are as many as patches."""
    patches = getattr(getattr(network.module, "patch_embed", None), "num_patches", None)
    return 0 if tokens.shape[1] == patches else network.prefix_tokens


def _is_channels_last(network: ImageNetwork, maps: Tensor) -> bool:
    """Tell (n, h, w, c) from (n, c, h, w): places have the picture's proportions, channels have not."""
    height, width = network.preprocessing.crop
    _, a, b, c = maps.shape
    last, first = a * width == b * height, b * width == c * height
    return last if last != first else network.channels_last
