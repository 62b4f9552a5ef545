"""Capturing the outputs of named layers in a forward pass, and planning how each becomes a vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from embedpipe._utils.option_names import option
from embedpipe.backbones.layers.dry_run import TRIAL, lacks_values, trial_batch, try_out
from embedpipe.backbones.layers.pooling import Batch, default_pooling, pool
from embedpipe.backbones.network import ImageNetwork, TextNetwork
from embedpipe.backbones.spec import FEATURES, LayerSpec, Pooling
from embedpipe.errors import BackboneError, UsageError, WeightsError, nearest


def run_layers(
    network: ImageNetwork | TextNetwork, names: Sequence[str], batch: Batch, take: Callable[[str, Any], Tensor]
) -> dict[str, Tensor]:
    """Run a network once and return ``take(name, output)`` of each named layer.

    ``take`` is called as soon as a module returns, since later layers may overwrite its output in place. If a module
    runs several times in one pass, its last output counts.

    Raises
    ------
    BackboneError
        If a module is never called.
    """
    captured: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            captured[name] = take(name, output)

        return keep

    inner = [name for name in names if name != FEATURES]
    handles = [network.module.get_submodule(name).register_forward_hook(hook(name)) for name in inner]
    try:
        features = network.features(network.module, batch)
        if FEATURES in names:
            captured[FEATURES] = take(FEATURES, features)
        if len(captured) < len(names) and isinstance(network, ImageNetwork):  # some layers run after the features
            network.module(batch)
    finally:
        for handle in handles:
            handle.remove()
    if missing := [name for name in names if name not in captured]:
        raise BackboneError(
            f"the forward pass never calls the layer {missing[0]!r}: choose another; "
            "`embedpipe backbones NAME --layers` lists the stages"
        )
    return {name: captured[name] for name in names}


def plan_layers(
    network: ImageNetwork | TextNetwork, names: Sequence[str], poolings: Mapping[str, Pooling] = MappingProxyType({})
) -> tuple[LayerSpec, ...]:
    """Try a network out, and return the pooling and dimension of each named layer.

    ``poolings`` are those of layers that do not have their default.

    Raises
    ------
    UsageError
        If a layer does not exist, or the pooling does not apply to it.
    BackboneError
        If a layer's output cannot become one vector per item.
    WeightsError
        If a layer uses tensors that the weights lack.
    """
    known = {FEATURES, *(name for name, _ in network.module.named_modules() if name)}
    for name in names:
        if name not in known:
            raise UsageError(
                f"{network.name} has no layer {name!r}{nearest(name, known) or '.'} "
                "`embedpipe backbones NAME --layers` lists them"
            )
    chosen: dict[str, Pooling] = {}

    def run(tried: ImageNetwork | TextNetwork) -> dict[str, Tensor]:
        batch = trial_batch(tried)

        def take(name: str, output: Any) -> Tensor:
            check_output(name, output, TRIAL)
            if name == FEATURES and isinstance(tried, ImageNetwork) and tried.features is tried.pooler:
                chosen[name] = "pooler"
            else:
                wanted = poolings.get(name) or default_pooling(tried, output, name)
                chosen[name] = "none" if output.ndim == 2 else "avg" if wanted == "mean" else wanted
            return pool(tried, output, chosen[name], name, batch)

        return run_layers(tried, names, batch, take)

    vectors = try_out(network, run)
    for name in names:
        if lacks_values(network, vectors[name]):
            raise WeightsError(
                f"the weights of {network.origin} must have all tensors that the layer {name!r} uses, but they differ "
                f"from the network of the configuration. Get complete weights, or choose another layer:\n"
                f"{network.gaps.description}"
            )
    given = {*poolings.values()} - {"none"}
    if given and set(chosen.values()) == {"none"}:
        raise UsageError(
            f"{option('pooling', given.pop())} does not apply: {', '.join(names)} return vectors already. Leave it out"
        )
    layers = tuple(LayerSpec(name, chosen[name], vectors[name].shape[1]) for name in names)
    if len({layer.column for layer in layers}) < len(layers):
        raise UsageError(
            f"the layers {', '.join(names)} would have the same column name: embed them into separate stores"
        )
    return layers


def check_output(name: str, output: Any, n: int | None) -> None:
    """Raise BackboneError unless ``output`` is a tensor with one row for each of ``n`` items, if ``n`` is known."""
    if not isinstance(output, Tensor):
        raise BackboneError(
            f"the layer {name!r} must return a tensor, got {type(output).__name__}: choose a module inside or after it"
        )
    if output.ndim < 2 or (n is not None and output.shape[0] != n):
        raise BackboneError(
            f"the layer {name!r} must return one row per item, got {tuple(output.shape)} for {n} items: choose another"
        )
    if 0 in output.shape[1:]:
        raise BackboneError(f"the layer {name!r} must return values, got the shape {tuple(output.shape)}")
