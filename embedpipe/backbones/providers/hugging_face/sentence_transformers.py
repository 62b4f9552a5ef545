"""``sentence-transformers/NAME``: every text model of the library, with the vectors of its ``encode``."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from embedpipe._utils.importing import import_extra
from embedpipe.backbones.network import NO_COUNTS, TextNetwork, Tokens, Weights
from embedpipe.backbones.providers.hugging_face.folder import PACKAGES, find_folder, hash_configuration
from embedpipe.backbones.providers.hugging_face.library import quiet
from embedpipe.backbones.providers.hugging_face.tokenizer import FastTokenizer
from embedpipe.backbones.spec import TextPreprocessing
from embedpipe.errors import UsageError, WeightsError
from embedpipe.sources.options import Modality

_PREFIX = "sentence-transformers/"


class SentenceTransformerProvider:
    """Provider of the models of sentence-transformers, from a folder, the hub or an installed package."""

    modalities: tuple[Modality, ...] = ("text",)
    reads_files = True

    def names(self) -> list[str]:
        """Return the models in installed packages."""
        return [name.removeprefix(_PREFIX) for name in PACKAGES]

    def load(self, name: str, weights: Weights, offline: bool) -> TextNetwork:
        """Load a model; see `Provider.load`. Features are the vectors of its ``encode``, with its prompt."""
        if weights == "none":
            raise UsageError(
                "weights='none' does not apply to sentence-transformers/: use transformers/ for random weights"
            )
        library = import_extra("sentence_transformers", "text")
        repository = name if "/" in name else _PREFIX + name
        folder, spec_name, origin = find_folder(name, repository, weights, offline)
        try:
            with quiet():
                model = library.SentenceTransformer(
                    str(folder), device="cpu", local_files_only=True, trust_remote_code=False
                )
        except Exception as error:
            raise WeightsError(
                f"sentence-transformers cannot load {origin}: {type(error).__name__}: {error}"
            ) from error
        prompt = model.prompts.get(model.default_prompt_name) or ""
        limit = model.max_seq_length
        limit = limit if isinstance(limit, int) and limit < 1 << 30 else None
        tokenizer = _tokenizer(model, prompt, limit)
        return TextNetwork(
            name=spec_name.removeprefix(_PREFIX),
            module=model,
            preprocessing=TextPreprocessing(hash_configuration(folder), limit, prompt=prompt),
            tokenizer=tokenizer,
            origin=origin,
            pretrained=True,
            features=_features,
            normalised=type(model[-1]).__name__ == "Normalize",
            chunks=isinstance(tokenizer, FastTokenizer),
            libraries=("sentence-transformers", "transformers", "tokenizers"),
        )


def _features(module: nn.Module, batch: dict[str, Tensor]) -> Any:
    vectors = module(dict(batch))["sentence_embedding"]
    return vectors[:, : getattr(module, "truncate_dim", None)]


def _tokenizer(model: Any, prompt: str, limit: int | None) -> FastTokenizer | _LibraryTokenizer:
    """Return a `FastTokenizer` for a single transformer, and the library's preprocessing for other models."""
    first = model[0]
    is_single_transformer = (
        type(first).__name__ == "Transformer"
        and hasattr(first.tokenizer, "backend_tokenizer")
        and first.processor is first.tokenizer
        and list(first.modality_config) == ["text"]
        and not first.processing_kwargs
        and all(getattr(part, "include_prompt", True) or not prompt for part in model)
    )
    if not is_single_transformer or limit is None:
        return _LibraryTokenizer(model, prompt, limit)
    return FastTokenizer(first.tokenizer, limit, prompt, bool(first.do_lower_case))


class _LibraryTokenizer:
    """The library's own preprocessing, for models that are not a single transformer."""

    def __init__(self, model: Any, prompt: str, limit: int | None) -> None:
        self._model, self._prompt, self._limit = model, prompt, limit
        self._lock = threading.Lock()  # every call changes the state of the tokenizer

    def split(self, text: str, whole: bool) -> Tokens:
        """Return the text itself, which is tokenised with its batch; count it if it is known to be too long.

        The size is in characters.
        """
        # A token has at least one character.
        if self._limit is None or len(self._prompt) + len(text) <= self._limit or not callable(self._model.tokenizer):
            return Tokens((text,), (len(text),))
        with self._lock, quiet():
            ids = self._model.tokenizer(self._prompt + text, truncation=False)["input_ids"]
        return Tokens((text,), (len(text),), {"truncated texts": 1} if len(ids) > self._limit else NO_COUNTS)

    def collate(self, pieces: Sequence[str]) -> dict[str, Tensor]:
        """Return the library's input tensors for texts."""
        with self._lock:
            features = self._model.preprocess(list(pieces), prompt=self._prompt or None)
        if "prompt_length" in features:
            features["prompt_length"] = torch.tensor([features["prompt_length"]])
        return {name: value for name, value in features.items() if isinstance(value, Tensor)}
