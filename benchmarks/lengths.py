"""A network of texts that computes almost nothing, ``python:lengths.make``: what is left is the bookkeeping."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from embedpipe.backbones import TextNetwork, TextPreprocessing, Tokens

DIM = 16


class Lengths(nn.Module):
    """A table of one vector for each length of a text."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(97, DIM)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the vectors of the lengths."""
        vectors: torch.Tensor = self.table(batch["input_ids"])
        return vectors


class Splitter:
    """Makes a single token of a text, from its length."""

    def split(self, text: str, whole: bool) -> Tokens:
        """Return the token of a text."""
        return Tokens(([len(text) % 97],), (1,), {})

    def collate(self, pieces: Any) -> dict[str, torch.Tensor]:
        """Return a batch."""
        ids = torch.tensor(list(pieces))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def make() -> TextNetwork:
    """Return the network of the backbone ``python:lengths.make``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Lengths()
    return TextNetwork("lengths", module, TextPreprocessing("0" * 64, 6), Splitter(), "synthetic", pretrained=True)
