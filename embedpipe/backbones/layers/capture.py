"""What is taken from a forward pass: outputs of named layers, and how each becomes one vector an item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from embedpipe.backbones.layers.pooling import Batch, default_pooling, pool
from embedpipe.backbones.network import ImageNetwork, TextNetwork
from embedpipe.backbones.spec import FEATURES, LayerSpec, Pooling
from embedpipe.errors import BackboneError, UsageError, nearest

#: Items in a trial run: two, so that an output without one row an item shows.
TRIAL = 2


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
