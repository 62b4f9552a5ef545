"""A small real network of texts for tests that need speed, made by ``python:tiny_text_backbone.make``.

Words are hashed into 97 vectors of 12 values. Where the environment variable TINY_LOG names a file, every text that
goes through the network adds a byte to it.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from embedpipe.backbones import TextNetwork, TextPreprocessing, Tokens

TINY_TEXT = "python:tiny_text_backbone.make"

#: Words that the network reads at a time.
LIMIT = 6


class Words(nn.Module):
    """A vector a word."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(97, 12)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        if path := os.environ.get("TINY_LOG"):
            with Path(path).open("ab") as log:
                log.write(b"." * len(batch["input_ids"]))
        time.sleep(float(os.environ.get("TINY_SECONDS", "0")) * len(batch["input_ids"]))
        return self.table(batch["input_ids"])


class Splitter:
    """Words between white space."""

    def split(self, text: str, whole: bool) -> Tokens:
        ids = [zlib.crc32(word.encode()) % 97 for word in text.split()]
        pieces = [ids[i : i + LIMIT] for i in range(0, len(ids), LIMIT)]
        counts = {"truncated texts": 1} if len(pieces) > 1 and not whole else {}
        pieces = pieces if whole else pieces[:1]
        return Tokens(tuple(pieces), tuple(len(piece) for piece in pieces), counts)

    def collate(self, pieces: Sequence[list[int]]) -> dict[str, Tensor]:
        width = max(len(piece) for piece in pieces)
        ids = torch.tensor([piece + [0] * (width - len(piece)) for piece in pieces])
        mask = torch.tensor([[1] * len(piece) + [0] * (width - len(piece)) for piece in pieces])
        return {"input_ids": ids, "attention_mask": mask}


def make() -> TextNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        module = Words()
    return TextNetwork("tiny", module, TextPreprocessing("0" * 64, LIMIT), Splitter(), "made up", pretrained=True)
