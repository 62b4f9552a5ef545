"""The stages of a network: the coarse steps that ``--layers`` lists and ``--drop-last`` leaves out.

They are derived from one forward pass by one rule for all architectures: the modules before the classifier that hold
weights, in the order in which they run. While there are fewer than five, the largest is replaced by its children.
Norms, activations, pools and similar modules belong to the stage before them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from embedpipe.backbones.layers.dry_run import TRIAL, trial_batch, try_out
from embedpipe.backbones.layers.pooling import default_pooling, pool
from embedpipe.backbones.network import ImageNetwork, TextNetwork

#: A network is split until it has this many stages, such as a ResNet's stem and four groups of blocks.
FEWEST = 5


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the feature extractor.

    Parameters
    ----------
    name : str
        Dotted name of the stage's module.
    tap : str
        The layer with the stage's output, after its norm, activation or pool; ``--layer`` takes this name.
    shape : tuple of int
        The shape of that output for one item; empty if it is not a single tensor and cannot be captured.
    dim : int
        The length of its vector after the default pooling; 0 if it cannot be captured.
    parameters : int
        The number of parameters of the stage's module.
    """

    name: str
    tap: str
    shape: tuple[int, ...]
    dim: int
    parameters: int


@dataclass
class _Call:
    """The order in which a module started, how often it finished, and its last output on the meta device."""

    first: int
    times: int = 0
    output: Tensor | None = None


def find_stages(network: ImageNetwork | TextNetwork) -> list[Stage]:
    """Try a network out and return its stages, in the order in which they run."""
    record = try_out(network, _CallRecord)
    parts = record.parts("")
    while True:
        stages = [part for part in parts if record.has_weights(part)]
        lists = [part for part in stages if part not in record.calls]  # module lists have no output
        large = [part for part in stages if any(record.has_weights(inner) for inner in record.parts(part))]
        if lists:
            target = lists[0]
        # The encoders of transformers return a structure; their blocks can be captured.
        elif opaque := [part for part in large if record.gives_structure(part)]:
            target = opaque[0]
        elif len(stages) < FEWEST and large:
            target = max(large, key=record.parameters)
        else:
            break
        place = parts.index(target)
        parts[place : place + 1] = record.parts(target)
    stages_and_taps: list[tuple[str, str]] = []
    for part in sorted(parts, key=record.first):
        if record.has_weights(part):
            stages_and_taps.append((part, part))
        elif stages_and_taps and record.continues(stages_and_taps[-1][1], part):
            stages_and_taps[-1] = (stages_and_taps[-1][0], part)
    return [record.stage(name, tap) for name, tap in stages_and_taps]


class _CallRecord:
    """The modules that one forward pass up to the classifier called, and their outputs."""

    def __init__(self, network: ImageNetwork | TextNetwork) -> None:
        self.network = network
        self.batch = trial_batch(network)
        self.modules = dict(network.module.named_modules())
        self.calls: dict[str, _Call] = {}
        handles = []
        for name, module in self.modules.items():
            handles.append(module.register_forward_pre_hook(self._enter(name)))
            handles.append(module.register_forward_hook(self._leave(name)))
        try:
            network.features(network.module, self.batch)
        finally:
            for handle in handles:
                handle.remove()
        # The classifier and the modules around it started, but features() returned before they finished.
        self.calls = {name: call for name, call in self.calls.items() if call.times}

    def _enter(self, name: str) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            self.calls.setdefault(name, _Call(first=len(self.calls)))

        return hook

    def _leave(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            usable = isinstance(output, Tensor) and output.ndim >= 2 and len(output) == TRIAL
            self.calls[name].times += 1
            self.calls[name].output = torch.empty_like(output, device="meta") if usable else None

        return hook

    def inside(self, name: str) -> list[str]:
        """Return the called modules inside a module, including itself."""
        return [other for other in self.calls if other == name or other.startswith(f"{name}.")]

    def first(self, name: str) -> int:
        """Return the order number of the first call inside a module."""
        return min(self.calls[other].first for other in self.inside(name))

    def parts(self, name: str) -> list[str]:
        """Return the children of a module that ran, or contain modules that ran, in the order of their calls."""
        children = [f"{name}.{child}" if name else child for child, _ in self.modules[name].named_children()]
        return sorted((child for child in children if self.inside(child)), key=self.first)

    def has_weights(self, name: str) -> bool:
        """Whether modules inside a module ran that hold weights and are not norms or activations."""
        called = (self.modules[other] for other in self.inside(name))
        return any(next(m.parameters(recurse=False), None) is not None and not _is_minor(m) for m in called)

    def gives_structure(self, name: str) -> bool:
        """Whether a module of a text network returned something else than one tensor."""
        return isinstance(self.network, TextNetwork) and self.calls[name].output is None

    def parameters(self, name: str) -> int:
        """Return the number of parameters of a module."""
        return sum(parameter.numel() for parameter in self.modules[name].parameters())

    def continues(self, tap: str, part: str) -> bool:
        """Whether a module continues a tap's output: it ran once, on the same kind of tensor, without pooling it."""
        before, after = self.calls[tap].output, self.calls[part].output if part in self.calls else None
        if before is None or after is None or isinstance(self.modules[part], nn.Identity):
            return False
        same_kind = before.ndim == after.ndim and self.calls[part].times == 1
        return same_kind and (after.ndim == 2 or _positions(after) > 1 or _positions(before) == 1)

    def stage(self, name: str, tap: str) -> Stage:
        """Return the description of a stage."""
        output = self.calls[tap].output
        if output is None:
            return Stage(name, tap, (), 0, self.parameters(name))
        vectors = pool(self.network, output, default_pooling(self.network, output, tap), tap, self.batch)
        return Stage(name, tap, tuple(output.shape[1:]), vectors.shape[1], self.parameters(name))


def _is_minor(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower() or isinstance(module, nn.PReLU)


def _positions(output: Tensor) -> int:
    """Return the number of positions of a feature map, in either layout, or the number of tokens."""
    return min(math.prod(output.shape[1:3]), math.prod(output.shape[2:])) if output.ndim == 4 else output.shape[1]
