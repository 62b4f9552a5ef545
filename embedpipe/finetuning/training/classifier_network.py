"""A backbone's network with a linear layer behind it, as one module that can be trained."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from embedpipe.backbones.image_backbone import NAMES, ImageBackbone
from embedpipe.backbones.layers.embedder import Embedder
from embedpipe.errors import UsageError, nearest
from embedpipe.finetuning.training.linear_head import LinearHead
from embedpipe.finetuning.training.lora import add_lora, merge_lora, merged_state

#: What a fitted head is multiplied by before all is trained. It is right on nearly all training rows, and so sure that
#: the features would learn little from them but to be shaken (Ren, Guo, Bae and Sutherland, "How to prepare your task
#: head for finetuning", ICLR 2023; they stop fitting the head early, which would cost accuracy at the start).
SOFTENED = 0.25
#: Their statistics are of batches; they may be kept as they are.
BATCH_NORMS = nn.modules.batchnorm._BatchNorm


class ClassifierNetwork(nn.Module):
    """Takes uint8 pixels, and returns logits: the network, its layers and their pooling, then the linear head.

    Parameters
    ----------
    backbone : ImageBackbone
        Its network is copied: the shared one stays frozen.
    head : LinearHead
        The first weights of the last layer.
    batch_norm : str
        ``frozen``: batch-norms keep the statistics of the pretraining, and their scales and shifts are trained.
        ``trained``: statistics follow the batches, too.
    lora : int, optional
        Train additions of this rank to its linear layers, see `embedpipe.finetuning.training.lora`, and leave the rest.
    seed : int
        Of these.

    Notes
    -----
    At first the logits are the head's on the backbone's vectors. Batches that are small, or of few classes, have
    statistics of their own: to train by these would move the features before any gradient has.
    """

    def __init__(
        self,
        backbone: ImageBackbone,
        head: LinearHead,
        batch_norm: str = "frozen",
        lora: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        module = copy.deepcopy(backbone.network.module).requires_grad_(True)
        self.network = dataclasses.replace(backbone.network, module=module)
        self.embedder = Embedder(self.network, backbone.spec.layers, NAMES)
        self.unit, self.batch_norm = head.unit, batch_norm
        self.last = nn.Linear(head.weight.shape[1], len(head.classes))
        self.put_head(head)
        self._freeze_unused()
        if lora is not None:
            add_lora(module, lora, self.network.name, seed)
        self.to(backbone.device)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits, float32 (n, n_classes), of pictures, uint8 (n, h, w, 3)."""
        vectors = torch.cat(self.embedder(pixels), dim=1)
        logits: Tensor = self.last(normalize(vectors) if self.unit else vectors)
        return logits

    def train(self, mode: bool = True) -> ClassifierNetwork:
        """Put it into train mode, but for batch-norms whose statistics stay."""
        super().train(mode)
        if mode and self.batch_norm == "frozen":
            for part in self.modules():
                if isinstance(part, BATCH_NORMS):
                    part.eval()
        return self

    def _freeze_unused(self) -> None:
        """Freeze what the logits do not depend on, such as the network's own classifier behind its features."""
        self.eval()
        blank = torch.zeros((1, *self.network.preprocessing.crop, 3), dtype=torch.uint8)
        parameters = list(self.parameters())
        gradients = torch.autograd.grad(self(blank).sum(), parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)

    def freeze_before(self, stage: str) -> None:
        """Freeze all that comes before a stage, by the order in which the network holds its parts.

        Raises UsageError if there is no such stage.
        """
        names = [name for name, _ in self.network.module.named_modules() if name]
        if stage not in names:
            raise UsageError(
                f"freeze_until={stage!r} is no part of {self.network.name}{nearest(stage, names)}: "
                "`embedpipe backbones NAME --layers` lists its stages"
            )
        for name, part in self.network.module.named_modules():
            if name == stage:
                return
            for parameter in part.parameters(recurse=False):
                parameter.requires_grad_(False)

    def put_head(self, head: LinearHead) -> None:
        """Make a head of the same vectors the last layer."""
        with torch.no_grad():
            self.last.weight.copy_(torch.from_numpy(head.weight))
            self.last.bias.copy_(torch.from_numpy(head.bias))

    def soften(self, share: float) -> None:
        """Multiply the last layer, and with it the logits: the classes stay, and their probabilities even out."""
        with torch.no_grad():
            self.last.weight.mul_(share)
            self.last.bias.mul_(share)

    def backbone_state(self) -> dict[str, Tensor]:
        """Return copies of the tensors before the last layer, whatever was added merged."""
        return merged_state(self.network.module)

    def merge(self) -> None:
        """Make what was added part of the network's own weights: it is as it was before, with other values."""
        merge_lora(self.network.module)

    def head(self, classes: npt.NDArray[Any]) -> LinearHead:
        """Return the last layer as it is now."""
        weight, bias = (tensor.detach().cpu().double().numpy() for tensor in (self.last.weight, self.last.bias))
        return LinearHead(weight, bias, classes, self.unit)

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the parameters that gradients change, with their names."""
        return ((name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad)
