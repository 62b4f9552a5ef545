"""What a network is given: a batch of pixels, or of the tokens of texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embedpipe.backbones.backbone import Backbone, Vectors
from embedpipe.backbones.network import ImageNetwork, TextNetwork, Tokenizer, Tokens
from embedpipe.backbones.text_backbone import TOKENS_IN_PASS, split_into_passes

CPU = torch.device("cpu")


@dataclass(frozen=True)
class TokenBatch:
    """The tokens of texts, with the methods of a tensor of pixels that training needs.

    Parameters
    ----------
    tokens : sequence of Tokens
        One for each text.
    tokenizer : Tokenizer
        Collates them.
    device : torch.device
        Where the tensors of `passes` are.
    """

    tokens: Sequence[Tokens]
    tokenizer: Tokenizer
    device: torch.device = CPU

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> TokenBatch:
        """Return the batch for a device. It is collated there, when the network takes it."""
        return dataclasses.replace(self, device=device)

    def tensor_split(self, sections: int) -> list[TokenBatch]:
        """Return parts of sizes that differ by one at most, as `torch.tensor_split` does."""
        parts = np.array_split(np.arange(len(self)), sections)
        return [dataclasses.replace(self, tokens=[self.tokens[i] for i in part.tolist()]) for part in parts]

    def passes(self) -> tuple[list[dict[str, Tensor]], Tensor]:
        """Return the tensors of each pass through the network, and for each piece its row among their outputs.

        The largest pieces come first, and a pass has as many tokens as suit the device; see `TextBackbone`.
        """
        pieces = [piece for tokens in self.tokens for piece in tokens.pieces]
        sizes = np.array([size for tokens in self.tokens for size in tokens.sizes])
        parts = split_into_passes(sizes, TOKENS_IN_PASS[self.device.type == "cuda"])
        batches = [self.tokenizer.collate([pieces[i] for i in part.tolist()]) for part in parts]
        tensors = [{name: tensor.to(self.device) for name, tensor in batch.items()} for batch in batches]
        return tensors, torch.from_numpy(np.argsort(np.concatenate(parts))).to(self.device)


#: uint8 (n, h, w, 3) for images.
Batch = Tensor | TokenBatch


def embed_batch(backbone: Backbone, batch: Batch) -> Vectors:
    """Return the vectors of a batch by column."""
    values: Any = batch.tokens if isinstance(batch, TokenBatch) else batch.to(backbone.device)
    return backbone.forward(values)


def blank_batch(network: ImageNetwork | TextNetwork) -> Batch:
    """Return a batch of one blank image or short text."""
    if isinstance(network, TextNetwork):
        return TokenBatch([network.tokenizer.split("the of", whole=False)], network.tokenizer)
    return torch.zeros((1, *network.preprocessing.crop, 3), dtype=torch.uint8)
