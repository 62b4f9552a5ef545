"""Low-rank adaptation (LoRA; Hu et al., ICLR 2022) of the linear layers of a network, by peft."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from embedpipe._utils.importing import import_extra
from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError


def add_lora(module: nn.Module, rank: int, name: str, seed: int) -> None:
    """Freeze a network and add a trainable low-rank matrix, which starts at 0, to each of its trainable linear layers.

    Layers that share their weight are left out, because each addition would change both.

    Parameters
    ----------
    module : Module
        Is changed in place; `merge_lora` merges the additions into its weights.
    rank : int
        Rank of the additions.
    name : str
        Name of the network, for error messages.
    seed : int
        Of the random start.

    Raises
    ------
    UsageError
        If the network has no linear layer.
    MissingExtraError
        If peft is not installed.
    """
    peft = import_extra("peft", "finetune")
    shared = Counter(id(weight) for _, weight in module.named_parameters(remove_duplicate=False))
    targets = [
        path
        for path, part in module.named_modules()
        if type(part) is nn.Linear and part.weight.requires_grad and shared[id(part.weight)] == 1
    ]
    if not targets:
        raise UsageError(
            f"{option('lora')} needs linear layers, as transformers have, and {name} has none: leave it out"
        )
    config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=targets)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        peft.inject_adapter_in_model(config, module)


def merge_lora(module: nn.Module) -> None:
    """Merge the additions into the weights of their layers, and restore the original layers."""
    for path, part in list(_lora_layers(module)):
        part.merge()
        parent, _, name = path.rpartition(".")
        setattr(module.get_submodule(parent), name, part.get_base_layer())


def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of the tensors of a network, with LoRA merged into them."""
    if next(_lora_layers(module), None) is None:
        return {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module = copy.deepcopy(module)
    merge_lora(module)
    return module.state_dict()


def _lora_layers(module: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((path, part) for path, part in module.named_modules() if hasattr(part, "lora_A"))
