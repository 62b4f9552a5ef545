"""The text encoder beside an image encoder of transformers, as of CLIP and SigLIP: words in the space of photos."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from embedpipe.backbones.network import ImageNetwork, TextNetwork, Tokenizer, Tokens
from embedpipe.backbones.providers.hugging_face.folder import hash_configuration
from embedpipe.backbones.providers.hugging_face.tokenizer import CHARACTERS, FastTokenizer
from embedpipe.backbones.providers.hugging_face.vocabulary import count_embeddings, require_vocabulary
from embedpipe.backbones.spec import TextPreprocessing

#: Networks that were trained on texts padded to their full length, and use the last token, whatever it is.
_PADDED = ("siglip", "siglip2")


def describe_text(images: ImageNetwork, tokenizer: Any, folder: Path) -> TextNetwork:
    """Return the text encoder of a network with two, whose features are ``get_text_features``.

    Raises WeightsError if the tokenizer is not the network's.
    """
    module: Any = images.module
    rows = count_embeddings(module.text_model)
    require_vocabulary(tokenizer, rows, images.origin)
    limit = int(module.config.text_config.max_position_embeddings)
    is_padded = module.config.model_type in _PADDED
    own: Tokenizer = _PaddedTokenizer(tokenizer, limit) if is_padded else FastTokenizer(tokenizer, limit, rows=rows)
    return TextNetwork(
        name=images.name,
        module=module,
        preprocessing=TextPreprocessing(hash_configuration(folder), limit),
        tokenizer=own,
        origin=images.origin,
        pretrained=images.pretrained,
        features=_text_features,
        chunks=not is_padded,
        libraries=("transformers", "tokenizers"),
        gaps=images.gaps,
        notes=images.notes,
        files=images.files,
    )


def _text_features(module: nn.Module, batch: dict[str, Tensor]) -> Any:
    output = module.get_text_features(**batch)  # type: ignore[operator]
    return getattr(output, "pooler_output", output)


class _PaddedTokenizer:
    """The library's tokenizer, with every text padded to the full length and without a mask."""

    def __init__(self, tokenizer: Any, limit: int) -> None:
        self._tokenizer, self._limit = tokenizer, limit
        self._lock = threading.Lock()  # a call changes the state of the tokenizer

    def split(self, text: str, whole: bool) -> Tokens:
        """Return the tokens of a text; see `Tokenizer.split`."""
        with self._lock:
            ids = self._tokenizer(text[: CHARACTERS * self._limit], truncation=False)["input_ids"]
            padded = self._tokenizer(text, padding="max_length", truncation=True, max_length=self._limit)["input_ids"]
        counts = {"truncated texts": 1} if len(ids) > self._limit else {}
        return Tokens((np.array(padded, np.int64),), (self._limit,), counts)

    def collate(self, pieces: Sequence[npt.NDArray[np.int64]]) -> dict[str, Tensor]:
        """Return the batch of pieces; see `Tokenizer.collate`."""
        return {"input_ids": torch.from_numpy(np.stack(pieces))}
