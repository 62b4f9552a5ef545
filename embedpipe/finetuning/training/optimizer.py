"""The optimizer of a network, and the schedule of its learning rate."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from timm.optim._param_groups import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from embedpipe.finetuning.options import FineTuneOptions
from embedpipe.finetuning.training.classifier_network import ClassifierNetwork

#: Learning rate of a transformer block, as a share of the next block's (Bao et al., ICLR 2022); not used with LoRA.
TRANSFORMER_DECAY = 0.75


def make_optimizer(
    network: ClassifierNetwork, options: FineTuneOptions, last_layer_rate: float
) -> torch.optim.Optimizer:
    """Make the optimizer of a network.

    Weight decay is not applied to biases and normalisations. Earlier blocks of transformers have lower learning rates.

    Parameters
    ----------
    network : ClassifierNetwork
    options : FineTuneOptions
    last_layer_rate : float
        Learning rate of the last layer, as a multiple of the others'.
    """
    module = network.network.module
    has_attention = any("Attention" in type(part).__name__ for part in module.modules())
    decay = options.layer_decay or (TRANSFORMER_DECAY if has_attention and options.lora is None else 1.0)
    if decay < 1:
        _number_blocks(module)
        groups = param_groups_layer_decay(module, weight_decay=options.weight_decay, layer_decay=decay)
    else:
        groups = param_groups_weight_decay(module, weight_decay=options.weight_decay)
    last = param_groups_weight_decay(network.last, weight_decay=options.weight_decay)
    groups += [{**group, "lr_scale": last_layer_rate} for group in last]
    rate = options.peak_rate(network.modality)
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=rate)


def _number_blocks(module: Any) -> None:
    """Tell timm the blocks of a network that is not its own: the parts of its longest list of modules."""
    lists = {name: part for name, part in module.named_modules() if isinstance(part, nn.ModuleList)}
    if hasattr(module, "group_matcher") or not lists:
        return
    path = max(lists, key=lambda name: len(lists[name]))
    blocks = re.compile(rf"{re.escape(path)}\.(\d+)\.")
    numbers, number = {}, 0
    for name, _ in module.named_parameters():  # what follows a block, such as the last norm, has the number of the next
        match = blocks.match(name)
        number = int(match[1]) + 1 if match else number + (number == len(lists[path]))
        numbers[name] = number
    module.group_matcher = lambda coarse: numbers.__getitem__


def share_of_rate(step: int, total: int, warmup: float) -> float:
    """Return the learning rate of a step as a share of the peak: linear warmup, then half a cosine down to 0."""
    warm = round(warmup * total)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
