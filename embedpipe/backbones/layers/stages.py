"""A network's stages: the coarse steps that ``--layers`` lists and ``--drop-last`` leaves out.

They are found by watching one forward pass, with one rule for all architectures: the parts before the
classifier that hold weights, in the order in which they run; while there are fewer than five, the largest is
replaced by its own parts. Norms, activations, pools and the like belong to the stage before them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from embedpipe.backbones.layers.capture import TRIAL, trial_batch
from embedpipe.backbones.layers.pooling import default_pooling, pool
from embedpipe.backbones.network import ImageNetwork, TextNetwork

#: A network is taken apart until it has this many stages: a ResNet's stem and four groups of blocks.
FEWEST = 5


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the feature extractor.

    Parameters
    ----------
    name : str
        Dotted name of its module.
    tap : str
        The layer with the stage's output, after its norm, activation or pool: what ``--layer`` takes.
    shape : tuple of int
        Of that output, for one item; empty if it is no single tensor, and so cannot be taken.
    dim : int
        Values in its vector after default pooling; 0 if it cannot be taken.
    parameters : int
        How many weights its module holds.
    """

    name: str
    tap: str
    shape: tuple[int, ...]
    dim: int
    parameters: int


@dataclass
class _Call:
    """When a module first began, how often it finished, and its last output, without data, if it is a tensor."""

    first: int
    times: int = 0
    output: Tensor | None = None


def find_stages(network: ImageNetwork | TextNetwork) -> list[Stage]:
    """Run a network on a trial batch and return its stages, in the order in which they run."""
    watch = _Watch(network)
    parts = watch.parts("")
    while True:
        stages = [part for part in parts if watch.has_weights(part)]
        lists = [part for part in stages if part not in watch.calls]  # module lists have no output of their own
        large = [part for part in stages if any(watch.has_weights(inner) for inner in watch.parts(part))]
        if lists:
            target = lists[0]
        # The encoders of transformers give a structure: their blocks can be taken.
        elif opaque := [part for part in large if watch.gives_structure(part)]:
            target = opaque[0]
        elif len(stages) < FEWEST and large:
            target = max(large, key=watch.parameters)
        else:
            break
        at = parts.index(target)
        parts[at : at + 1] = watch.parts(target)
    found: list[tuple[str, str]] = []
    for part in sorted(parts, key=watch.first):
        if watch.has_weights(part):
            found.append((part, part))
        elif found and watch.continues(found[-1][1], part):
            found[-1] = (found[-1][0], part)
    return [watch.stage(name, tap) for name, tap in found]


class _Watch:
    """What one forward pass up to the classifier called, and what came out."""

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
            with torch.inference_mode():
                network.features(network.module, self.batch)
        finally:
            for handle in handles:
                handle.remove()
        # The classifier and the modules around it began, but features() left before they finished.
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
        """Return the called modules within a module, with itself."""
        return [other for other in self.calls if other == name or other.startswith(f"{name}.")]

    def first(self, name: str) -> int:
        """Return when a module, or the first within it, ran."""
        return min(self.calls[other].first for other in self.inside(name))

    def parts(self, name: str) -> list[str]:
        """Return the direct children of a module that ran, or hold some that ran, in that order."""
        children = [f"{name}.{child}" if name else child for child, _ in self.modules[name].named_children()]
        return sorted((child for child in children if self.inside(child)), key=self.first)

    def has_weights(self, name: str) -> bool:
        """Whether a module that ran holds weights of its own, beyond those of norms and activations."""
        ran = (self.modules[other] for other in self.inside(name))
        return any(next(m.parameters(recurse=False), None) is not None and not _is_minor(m) for m in ran)

    def gives_structure(self, name: str) -> bool:
        """Whether a module of a network of texts gave no single tensor."""
        return isinstance(self.network, TextNetwork) and self.calls[name].output is None

    def parameters(self, name: str) -> int:
        """Return how many values the parameters of a module hold."""
        return sum(parameter.numel() for parameter in self.modules[name].parameters())

    def continues(self, tap: str, part: str) -> bool:
        """Whether a part goes on with a tap's output: run once, same kind of tensor, not yet pooled to a vector."""
        before, after = self.calls[tap].output, self.calls[part].output if part in self.calls else None
        if before is None or after is None or isinstance(self.modules[part], nn.Identity):
            return False
        same_kind = before.ndim == after.ndim and self.calls[part].times == 1
        return same_kind and (after.ndim == 2 or _places(after) > 1 or _places(before) == 1)

    def stage(self, name: str, tap: str) -> Stage:
        """Describe a stage."""
        output = self.calls[tap].output
        if output is None:
            return Stage(name, tap, (), 0, self.parameters(name))
        vectors = pool(self.network, output, default_pooling(self.network, output), tap, self.batch)
        return Stage(name, tap, tuple(output.shape[1:]), vectors.shape[1], self.parameters(name))


def _is_minor(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower() or isinstance(module, nn.PReLU)


def _places(output: Tensor) -> int:
    """Return the number of places of a map, in either layout, or of tokens."""
    return min(math.prod(output.shape[1:3]), math.prod(output.shape[2:])) if output.ndim == 4 else output.shape[1]
