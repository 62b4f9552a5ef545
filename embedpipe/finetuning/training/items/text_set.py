"""`TextSet`: texts, decoded and tokenised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from embedpipe.backbones.network import Tokens
from embedpipe.backbones.text_backbone import TextBackbone
from embedpipe.decoding import decode_text
from embedpipe.errors import Failure, ItemError
from embedpipe.finetuning.training.items.augmentation import Strength
from embedpipe.finetuning.training.items.batches import TokenBatch
from embedpipe.finetuning.training.items.item_set import ItemSet, Rows
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

    def texts(self, rows: Rows) -> dict[int, str]:
        """Return the texts that can be read by position; the others are added to ``failed``."""
        texts = {}
        for row in rows.tolist():
            try:
                texts[row] = decode_text(self.read(row)).text
            except ItemError as error:
                self.failed[row] = Failure.of(self.ids[row], self.uris[row], error)
        return texts

    def _prepare(self, row: int, strength: Strength, epoch: int) -> Tokens:
        tokens: Tokens = self.backbone.prepare(self.read(row)).value
        return tokens

    def _join(self, values: list[Tokens]) -> TokenBatch:
        return TokenBatch(values, self.backbone.network.tokenizer)
