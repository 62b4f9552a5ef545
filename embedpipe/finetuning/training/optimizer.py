"""The optimizer of a network, and the schedule of its learning rate."""

from __future__ import annotations

import math

import torch
from timm.optim._param_groups import param_groups_layer_decay, param_groups_weight_decay

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
        groups = param_groups_layer_decay(module, weight_decay=options.weight_decay, layer_decay=decay)
    else:
        groups = param_groups_weight_decay(module, weight_decay=options.weight_decay)
    last = param_groups_weight_decay(network.last, weight_decay=options.weight_decay)
    groups += [{**group, "lr_scale": last_layer_rate} for group in last]
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=options.peak_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=options.peak_rate)


def share_of_rate(step: int, total: int, warmup: float) -> float:
    """Return the learning rate of a step as a share of the peak: linear warmup, then half a cosine down to 0."""
    warm = round(warmup * total)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
