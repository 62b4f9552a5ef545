"""Texts to tokens, tokens to vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe.backbones.backbone import Backbone, Item
from embedpipe.backbones.network import TextNetwork, Tokens
from embedpipe.backbones.spec import FEATURES
from embedpipe.decoding import decode_text

Vectors = dict[str, npt.NDArray[np.float32]]

#: Characters of a text that go with its item, and into the store, so that results can be read.
EXCERPT = 1000


@dataclasses.dataclass(frozen=True)
class TextBackbone(Backbone):
    """A `Backbone` that embeds texts.

    The vector of a text that is read in pieces is the mean of theirs, weighted by their tokens, or with the pooling
    ``max`` their maximum.
    """

    network: TextNetwork = dataclasses.field(repr=False)

    @property
    def sorted_batches(self) -> int:
        """How many batches of items are put in order of size together, so that those of like sizes share one."""
        return 64

    @property
    def usual_batch(self) -> int:
        """Items a forward pass takes where nobody says."""
        return self.network.batch_size or super().usual_batch

    def prepare(self, payload: Any) -> Item:
        """Decode a text, file or e-mail and cut it into tokens.

        Returns
        -------
        Item
            Its value is a `Tokens`.

        Raises
        ------
        DecodeError
            If the payload is no text, or an empty one.
        """
        decoded = decode_text(payload)
        tokens = self.network.tokenizer.split(decoded.text, self.network.preprocessing.chunk)
        counts = tokens.counts
        if decoded.encoding is not None:
            counts = {**counts, f"encoding {decoded.encoding}": 1}
        return Item(tokens, max(tokens.sizes), sum(tokens.sizes), counts, decoded.text[:EXCERPT])

    def forward(self, values: Sequence[Tokens]) -> Vectors:
        """Embed texts; see `Backbone.forward`."""
        if all(len(tokens.pieces) == 1 for tokens in values):
            return self._embed([tokens.pieces[0] for tokens in values])
        # In batches of like sizes: one text may be a book, of more pieces than there are texts.
        pieces = [piece for tokens in values for piece in tokens.pieces]
        sizes = np.array([size for tokens in values for size in tokens.sizes])
        order = np.argsort(-sizes, kind="stable").tolist()
        width = max(len(values), self.usual_batch)
        parts = [order[i : i + width] for i in range(0, len(order), width)]
        found = [self._embed([pieces[i] for i in part]) for part in parts]
        back = np.argsort(order)
        weights = sizes[:, None].astype(np.float32)
        starts = np.cumsum([0, *(len(tokens.pieces) for tokens in values)])[:-1]
        weights /= np.repeat(np.add.reduceat(weights, starts), np.diff([*starts, len(weights)]), axis=0)
        vectors = {}
        for layer in self.spec.layers:
            each = np.concatenate([part[layer.column] for part in found])[back]
            if layer.pooling == "max":
                vectors[layer.column] = np.maximum.reduceat(each, starts)
                continue
            mean: npt.NDArray[np.float32] = np.add.reduceat(each * weights, starts)
            if self.network.normalised and layer.name == FEATURES:
                mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), np.float32(1e-12))
            vectors[layer.column] = mean
        return vectors

    def _embed(self, pieces: Sequence[Any]) -> Vectors:
        batch = self.network.tokenizer.collate(pieces)
        return self._run({name: tensor.to(self.device) for name, tensor in batch.items()}, len(pieces))
