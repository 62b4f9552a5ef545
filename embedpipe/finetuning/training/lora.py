"""Low-rank adaptation (LoRA; Hu et al., ICLR 2022) of the linear layers of a network, by peft."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from embedpipe._utils.importing import import_extra
from embedpipe.errors import UsageError


def add_lora(module: nn.Module, rank: int, name: str, seed: int) -> None:
    """Freeze a network, and add to each linear layer that was trained the product of two small matrices, first 0.

    A layer that shares its weight with another gets none: each would add to both.

    Parameters
    ----------
    module : Module
        Is changed; `merge_lora` makes it what it was, with other weights.
    rank : int
        Columns of the first matrix.
    name : str
        The network's, for messages.
    seed : int
        Of the first matrix.

    Raises
    ------
    UsageError
        If it has no linear layer.
    MissingExtraError
        Without the extra.
    """
    peft = import_extra("peft", "finetune")
    shared = Counter(id(weight) for _, weight in module.named_parameters(remove_duplicate=False))
    targets = [
        path
        for path, part in module.named_modules()
        if type(part) is nn.Linear and part.weight.requires_grad and shared[id(part.weight)] == 1
    ]
    if not targets:
        raise UsageError(f"lora={rank}: {name} has no linear layers to add to, as transformers have: leave it out")
    config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=targets)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        peft.inject_adapter_in_model(config, module)


def merge_lora(module: nn.Module) -> None:
    """Add the products to the weights of their layers, and make them ordinary layers again."""
    for path, part in list(_adapted(module)):
        part.merge()
        parent, _, own = path.rpartition(".")
        setattr(module.get_submodule(parent), own, part.get_base_layer())


def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of the tensors that a network has once merged; of one without LoRA of those that it has."""
    if next(_adapted(module), None) is None:
        return {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module = copy.deepcopy(module)
    merge_lora(module)
    return module.state_dict()


def _adapted(module: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((path, part) for path, part in module.named_modules() if hasattr(part, "lora_A"))
