"""Running a network for the shapes of its outputs, without the arithmetic, which takes minutes for a large one."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from embedpipe.backbones.network import ImageNetwork, TextNetwork
from embedpipe.errors import EmbedpipeError

T = TypeVar("T")

#: Items in a trial run: two, so that an output that does not have one row per item is detected.
TRIAL = 2

#: Parameters times pixels of an image, from which on arithmetic takes longer: between EfficientNet-Lite0 and ResNet-18.
LARGE = 4e11

META = torch.device("meta")


def try_out(network: ImageNetwork | TextNetwork, run: Callable[[ImageNetwork | TextNetwork], T]) -> T:
    """Return ``run(network)``, which calls the network on a `trial_batch`.

    A large network for images is tried as a copy on the meta device first, whose tensors have shapes and no values;
    gradients tell there which outputs depend on tensors that the weights lack. It is run as it is where that is not
    possible, as its forward pass looks at values.
    """
    if isinstance(network, ImageNetwork) and _is_large(network):
        try:
            with META, torch.enable_grad():
                return run(dataclasses.replace(network, module=without_values(network.module, network.gaps.names)))
        except EmbedpipeError:
            raise
        except Exception:
            pass
    with torch.inference_mode():
        return run(network)


def _is_large(network: ImageNetwork) -> bool:
    """Whether the arithmetic takes longer than finding the shapes without it, and all gaps are parameters."""
    parameters = dict(network.module.named_parameters(remove_duplicate=False))
    work = sum(map(Tensor.numel, parameters.values())) * math.prod(network.preprocessing.crop)
    return work >= LARGE and network.gaps.names <= parameters.keys()


def without_values(module: nn.Module, traced: frozenset[str] = frozenset()) -> nn.Module:
    """Return a copy of a module on the meta device; only the ``traced`` tensors require gradients."""
    memo: dict[int, object] = {}
    for name, tensor in module.named_parameters(remove_duplicate=False):
        memo[id(tensor)] = nn.Parameter(torch.empty_like(tensor, device=META), requires_grad=name in traced)
    for part in module.modules():
        for value in (*part._buffers.values(), *vars(part).values()):
            if isinstance(value, Tensor):
                memo[id(value)] = torch.empty_like(value, device=META)
    return copy.deepcopy(module, memo)


def trial_batch(network: ImageNetwork | TextNetwork) -> Tensor | dict[str, Tensor]:
    """Return a batch of two blank images, (2, 3, h, w) float32, or two short texts, on the network's device."""
    device = next((p.device for p in network.module.parameters()), torch.device("cpu"))
    if isinstance(network, ImageNetwork):
        return torch.zeros(TRIAL, 3, *network.preprocessing.crop, device=device)
    piece = network.tokenizer.split("the of", whole=False).pieces[0]
    return {name: tensor.to(device) for name, tensor in network.tokenizer.collate([piece] * TRIAL).items()}


def lacks_values(network: ImageNetwork | TextNetwork, vectors: Tensor) -> bool:
    """Return whether vectors of a trial depend on tensors that the weights lack, which hold NaN."""
    if not network.gaps.names:
        return False
    return vectors.requires_grad if vectors.is_meta else not bool(vectors.isfinite().all())
