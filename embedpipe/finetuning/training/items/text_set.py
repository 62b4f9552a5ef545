"""`TextSet`: texts, decoded and tokenised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from embedpipe.backbones.network import Tokens
from embedpipe.backbones.text_backbone import TextBackbone
from embedpipe.finetuning.training.items.augmentation import Strength
from embedpipe.finetuning.training.items.batches import TokenBatch
from embedpipe.finetuning.training.items.item_set import ItemSet
from embedpipe.sources.options import Modality


@dataclass(frozen=True)
class TextSet(ItemSet):
    """An `ItemSet` of texts, which are not augmented.

    Parameters
    ----------
    backbone : TextBackbone
        Decodes and tokenises them.
    """

    modality: ClassVar[Modality] = "text"

    backbone: TextBackbone

    def _prepare(self, row: int, strength: Strength, epoch: int) -> Tokens:
        tokens: Tokens = self.backbone.prepare(self.read(row)).value
        return tokens

    def _join(self, values: list[Tokens]) -> TokenBatch:
        return TokenBatch(values, self.backbone.network.tokenizer)
