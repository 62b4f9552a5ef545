"""The backbone of texts: from texts to tokens, from tokens to vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from embedpipe.backbones.backbone import Backbone, Item, Vectors
from embedpipe.backbones.engines.choice import Trial
from embedpipe.backbones.layers.embedder import Embedder
from embedpipe.backbones.network import TextNetwork, Tokens
from embedpipe.backbones.spec import FEATURES
from embedpipe.decoding import decode_text
from embedpipe.errors import BackboneError

#: Tokens, with padding, in one pass through the network: on a CPU as many as fit its caches, on a GPU as many as
#: occupy its cores.
TOKENS_IN_PASS = (1024, 1 << 15)

#: The same for a network that only looks up vectors.
TOKENS_IN_LOOKUP = 1 << 13

#: Characters of a text that are stored, so that results can be read.
EXCERPT = 1000


def split_into_passes(sizes: npt.NDArray[np.int64], limit: int) -> list[npt.NDArray[np.int64]]:
    """Return the positions of pieces, the largest first, in parts of at most ``limit`` tokens with their padding."""
    order = np.argsort(-sizes, kind="stable")
    parts, start = [], 0
    while start < len(order):
        parts.append(order[start : start + max(1, limit // int(sizes[order[start]]))])
        start += len(parts[-1])
    return parts


@dataclasses.dataclass(frozen=True)
class TextBackbone(Backbone):
    """A `Backbone` that embeds texts.

    A long text may be read in pieces. Its vector is then the mean of the pieces' vectors, weighted by their numbers of
    tokens, or their maximum with the pooling ``max``.
    """

    network: TextNetwork = dataclasses.field(repr=False)

    sorted_items: ClassVar[int] = 2048

    @property
    def usual_batch(self) -> int:
        """The default number of items in a forward pass."""
        return self.network.batch_size or max(256, 2 * super().usual_batch)

    def prepare(self, payload: Any) -> Item:
        """Decode a text, file or e-mail and tokenise it.

        Returns
        -------
        Item
            Its value is a `Tokens`.

        Raises
        ------
        DecodeError
            If the payload is not a text, or is empty.
        """
        decoded = decode_text(payload)
        tokens = self.network.tokenizer.split(decoded.text, self.network.preprocessing.chunk)
        counts = tokens.counts
        if decoded.encoding is not None:
            counts = {**counts, f"encoding {decoded.encoding}": 1}
        return Item(tokens, max(tokens.sizes), sum(tokens.sizes), counts, decoded.text[:EXCERPT])

    def _captured(self, values: Sequence[Tokens]) -> Vectors:
        """Embed texts; see `Backbone.forward`."""
        if not values:
            raise BackboneError("the batch must be at least one text, got none")
        pieces = [piece for tokens in values for piece in tokens.pieces]
        sizes = np.array([size for tokens in values for size in tokens.sizes])
        by_piece = self._embed_all(pieces, sizes)
        if len(pieces) == len(values):
            return by_piece
        weights = sizes[:, None].astype(np.float32)
        starts = np.cumsum([0, *(len(tokens.pieces) for tokens in values)])[:-1]
        weights /= np.repeat(np.add.reduceat(weights, starts), np.diff([*starts, len(weights)]), axis=0)
        vectors = {}
        for layer in self.spec.captured.layers:
            if layer.pooling == "max":
                vectors[layer.column] = np.maximum.reduceat(by_piece[layer.column], starts)
                continue
            mean: npt.NDArray[np.float32] = np.add.reduceat(by_piece[layer.column] * weights, starts)
            if self.network.normalised and layer.name == FEATURES:
                mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), np.float32(1e-12))
            vectors[layer.column] = mean
        return vectors

    def _embed_all(self, pieces: list[Any], sizes: npt.NDArray[np.int64]) -> Vectors:
        """Embed pieces, the largest first, in parts of as many tokens as suit the device."""
        limit = TOKENS_IN_LOOKUP if self.one_thread else TOKENS_IN_PASS[self.device.type == "cuda"]
        if self.engine is not None:
            limit //= self.engine.parts
        parts = split_into_passes(sizes, limit)
        vectors = self._embed([[pieces[i] for i in part.tolist()] for part in parts])
        order = np.concatenate(parts)
        if len(vectors) == 1 and (np.diff(order) == 1).all():
            return vectors[0]
        original_order = np.argsort(order)
        return {name: np.concatenate([part[name] for part in vectors])[original_order] for name in vectors[0]}

    def _embed(self, parts: Sequence[Sequence[Any]]) -> list[Vectors]:
        batches = [self.network.tokenizer.collate(part) for part in parts]
        inputs = [tuple(tensor.to(self.device) for tensor in batch.values()) for batch in batches]
        return self._run(inputs, [len(part) for part in parts], tuple(batches[0]))

    def _trial(self) -> Trial:
        split = self.network.tokenizer.split
        words = ("a frozen network reads short texts and long ones alike " * 20).split()
        pieces = [split(" ".join(words[:count]), whole=False).pieces[0] for count in (3, 12, 40, 150)]
        parts = (pieces[:3], pieces[1:2] * 64, pieces[2:3] * 24, pieces[3:] * 6)
        check, *load = (self.network.tokenizer.collate(part) for part in parts)
        names = tuple(check)
        tensors = [tuple(batch.values()) for batch in (check, *load * 2)]
        spec = self.spec.captured
        return Trial(Embedder(self.network, spec.layers, names), spec, self.device, names, tensors[0], tensors[1:])
