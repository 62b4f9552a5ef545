"""`ClassifierNetwork`: the network of a backbone with a linear layer behind it, as one trainable module."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from embedpipe._utils.option_names import option
from embedpipe.backbones.backbone import Backbone
from embedpipe.backbones.image_backbone import NAMES
from embedpipe.backbones.layers.embedder import Embedder
from embedpipe.backbones.network import TextNetwork
from embedpipe.backbones.spec import FEATURES
from embedpipe.errors import UsageError, nearest
from embedpipe.finetuning.training.items.batches import Batch, TokenBatch, blank_batch
from embedpipe.finetuning.training.lora import add_lora, merge_lora, merged_state
from embedpipe.heads.conversion.linear_head import LinearHead
from embedpipe.sources.options import Modality

#: Factor of the fitted head before all weights are trained. A head that is right and certain on nearly all training
#: rows gives the features little to learn (Ren, Guo, Bae and Sutherland, "How to prepare your task head for
#: finetuning", ICLR 2023; they stop the fit of the head early instead, which lowers the accuracy at the start).
SOFTENING = 0.25
BATCH_NORMS = nn.modules.batchnorm._BatchNorm


class ClassifierNetwork(nn.Module):
    """Maps pixels or tokens to logits: the network, its layers and their pooling, then a linear layer.

    Parameters
    ----------
    backbone : Backbone
        Its network is copied; the original stays frozen.
    head : LinearHead
        The initial weights of the last layer.
    batch_norm : str
        ``frozen``: batch-norms keep the statistics of pretraining; their scales and shifts are trained.
        ``trained``: their statistics follow the batches.
    lora : int, optional
        Train low-rank additions of this rank to the linear layers, and freeze the rest; see
        `embedpipe.finetuning.training.lora`.
    seed : int
        Of the low-rank additions.

    Notes
    -----
    Before training, the logits are those of the head on the vectors of the backbone. Batch-norms are frozen by default
    because the statistics of small batches, or of batches with few classes, would change the features at once.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: LinearHead,
        batch_norm: str = "frozen",
        lora: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        module = copy.deepcopy(backbone.network.module).requires_grad_(True)
        self.network = dataclasses.replace(backbone.network, module=module)
        self.layers = backbone.spec.layers
        blank = blank_batch(self.network)
        names = tuple(blank.passes()[0][0]) if isinstance(blank, TokenBatch) else NAMES
        self.embedder = Embedder(self.network, self.layers, names)
        self.batch_norm = batch_norm
        last = nn.Linear(head.weight.shape[1], len(head.classes), device="meta")  # draws no random numbers
        self.last = last.to_empty(device="cpu")
        self.set_head(head)
        self.to(backbone.device)
        self._freeze_unused(blank.to(backbone.device))
        if lora is not None:
            add_lora(module, lora, self.network.name, seed)
        self.to(backbone.device)

    @property
    def modality(self) -> Modality:
        """What the network is for."""
        return "text" if isinstance(self.network, TextNetwork) else "image"

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits, float32 (n, n_classes), of a batch on the device of the network."""
        vectors = self.vectors(batch)
        logits: Tensor = self.last(normalize(vectors) if self.unit else vectors)
        return logits

    def vectors(self, batch: Batch) -> Tensor:
        """Return the vectors that the last layer is applied to, float32 (n, dim)."""
        layers = self._embed_texts(batch) if isinstance(batch, TokenBatch) else self.embedder(batch)
        return torch.cat(layers, dim=1)

    def _embed_texts(self, batch: TokenBatch) -> list[Tensor]:
        """Return float32 (n, dim) of each layer, with the pieces of long texts joined as in `TextBackbone.forward`."""
        passes, order = batch.passes()
        outputs = [self.embedder(*tensors.values()) for tensors in passes]
        by_piece = [torch.cat(parts)[order] for parts in zip(*outputs, strict=True)]
        counts = [len(tokens.pieces) for tokens in batch.tokens]
        if max(counts) == 1:
            return by_piece
        sizes = [torch.tensor(tokens.sizes, dtype=torch.float32, device=batch.device) for tokens in batch.tokens]
        layers = []
        for layer, pieces in zip(self.layers, by_piece, strict=True):
            texts = torch.split(pieces, counts)
            if layer.pooling == "max":
                layers.append(torch.stack([text.amax(0) for text in texts]))
                continue
            mean = torch.stack([(size / size.sum()) @ text for size, text in zip(sizes, texts, strict=True)])
            unit = isinstance(self.network, TextNetwork) and self.network.normalised and layer.name == FEATURES
            layers.append(normalize(mean) if unit else mean)
        return layers

    def train(self, mode: bool = True) -> ClassifierNetwork:
        """Set train mode, except for frozen batch-norms."""
        super().train(mode)
        if mode and self.batch_norm == "frozen":
            for part in self.modules():
                if isinstance(part, BATCH_NORMS):
                    part.eval()
        return self

    def _freeze_unused(self, blank: Batch) -> None:
        """Freeze parameters that the logits do not depend on, such as the pretrained classifier of the network."""
        self.eval()
        parameters = list(self.parameters())
        gradients = torch.autograd.grad(self(blank).sum(), parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)

    def freeze_before(self, stage: str) -> None:
        """Freeze the modules before a stage, in the order of the network's modules.

        Raises UsageError if the network has no such stage.
        """
        names = [name for name, _ in self.network.module.named_modules() if name]
        if stage not in names:
            raise UsageError(
                f"{option('freeze_until')} must be a stage of {self.network.name}, got "
                f"{stage!r}{nearest(stage, names)}: "
                "`embedpipe backbones NAME --layers` lists the stages"
            )
        for name, part in self.network.module.named_modules():
            if name == stage:
                return
            for parameter in part.parameters(recurse=False):
                parameter.requires_grad_(False)

    def set_head(self, head: LinearHead) -> None:
        """Set the weights of the last layer to those of a head on the same vectors."""
        self.unit = head.unit
        with torch.no_grad():
            self.last.weight.copy_(torch.from_numpy(head.weight))
            self.last.bias.copy_(torch.from_numpy(head.bias))

    def soften(self, factor: float) -> None:
        """Multiply the last layer by a factor below 1: predictions stay, and probabilities become less certain."""
        with torch.no_grad():
            self.last.weight.mul_(factor)
            self.last.bias.mul_(factor)

    def backbone_state(self) -> dict[str, Tensor]:
        """Return copies of the tensors of the backbone, with LoRA merged into them."""
        return merged_state(self.network.module)

    def merge(self) -> None:
        """Merge LoRA into the weights of the backbone."""
        merge_lora(self.network.module)

    def head(self, classes: npt.NDArray[Any]) -> LinearHead:
        """Return the last layer as a head."""
        weight, bias = (tensor.detach().cpu().double().numpy() for tensor in (self.last.weight, self.last.bias))
        return LinearHead(weight, bias, classes, self.unit)

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the names and values of the parameters that are trained."""
        return ((name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad)
