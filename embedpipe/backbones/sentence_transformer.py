"""``sentence-transformers/NAME``: every model of the library that embeds texts, as its ``encode`` gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from embedpipe.backbones.hugging_face import PACKAGES, FastTokenizer, find_folder, hash_configuration, quiet
from embedpipe.backbones.network import TextNetwork, Tokens, Weights
from embedpipe.backbones.spec import TextPreprocessing
from embedpipe.errors import UsageError, WeightsError
from embedpipe.importing import import_extra
from embedpipe.sources.options import Modality

_PREFIX = "sentence-transformers/"


class SentenceTransformerProvider:
    """The models of sentence-transformers, from a folder, the hub or an installed package."""

    modalities: tuple[Modality, ...] = ("text",)
    reads_files = True

    def names(self) -> list[str]:
        """Return those that are on this machine without a hub."""
        return [name.removeprefix(_PREFIX) for name in PACKAGES]

    def load(self, name: str, weights: Weights, offline: bool) -> TextNetwork:
        """Load a model; see `Provider.load`. Features are what its ``encode`` gives, with its prompt if it has one."""
        if weights == "none":
            raise UsageError("weights='none': a sentence-transformers/ model has no random form; take transformers/")
        library = import_extra("sentence_transformers", "text")
        repository = name if "/" in name else _PREFIX + name
        folder, spec_name, origin = find_folder(name, repository, weights, offline)
        try:
            with quiet():
                model = library.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        except Exception as error:
            raise WeightsError(
                f"{origin} is no model that sentence-transformers loads: {type(error).__name__}: {error}"
            ) from error
        prompt = model.prompts.get(model.default_prompt_name) or ""
        limit = model.max_seq_length
        tokenizer, limit = _tokenizer(model, prompt, limit if isinstance(limit, int) and limit < 1 << 30 else None)
        return TextNetwork(
            name=spec_name.removeprefix(_PREFIX),
            module=model,
            preprocessing=TextPreprocessing(hash_configuration(folder), limit, prompt=prompt),
            tokenizer=tokenizer,
            origin=origin,
            pretrained=True,
            features=_features,
            normalised=type(model[-1]).__name__ == "Normalize",
            libraries=("sentence-transformers", "transformers", "tokenizers"),
        )


def _features(module: nn.Module, batch: dict[str, Tensor]) -> Any:
    vectors = module(dict(batch))["sentence_embedding"]
    return vectors[:, : getattr(module, "truncate_dim", None)]


def _tokenizer(model: Any, prompt: str, limit: int | None) -> tuple[FastTokenizer | _OwnTokenizer, int | None]:
    """Return the fast tokenizer of a plain network of texts, and the library's own of any other."""
    first = model[0]
    plain = (
        type(first).__name__ == "Transformer"
        and hasattr(first.tokenizer, "backend_tokenizer")
        and first.processor is first.tokenizer
        and list(first.modality_config) == ["text"]
        and not first.processing_kwargs
        and all(getattr(part, "include_prompt", True) or not prompt for part in model)
    )
    if not plain or limit is None:
        return _OwnTokenizer(model), None
    return FastTokenizer(first.tokenizer, limit, bool(first.do_lower_case)), limit


class _OwnTokenizer:
    """The library's own preprocessing, for models that are no plain network of texts; truncation is not counted."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def split(self, text: str, whole: bool) -> Tokens:
        """Return the text: it is cut into tokens with its batch."""
        return Tokens((text,), (len(text),))

    def collate(self, pieces: Sequence[str]) -> dict[str, Tensor]:
        """Return the library's features of texts, prompts included already."""
        return {k: v for k, v in self._model.preprocess(list(pieces)).items() if isinstance(v, Tensor)}
