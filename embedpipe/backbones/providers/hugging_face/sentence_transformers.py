"""``sentence-transformers/NAME``: every model of the library for texts or images, by the vectors of ``encode``."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from embedpipe._utils.importing import import_extra
from embedpipe._utils.option_names import option
from embedpipe.backbones.network import Gaps, ImageNetwork, TextNetwork, Tokens, Weights
from embedpipe.backbones.providers.hugging_face.folder import find_folder, hash_configuration, says_matryoshka
from embedpipe.backbones.providers.hugging_face.image_modules import describe_images
from embedpipe.backbones.providers.hugging_face.library import logged_warnings, quiet
from embedpipe.backbones.providers.hugging_face.loading import find_gaps, load_reports
from embedpipe.backbones.providers.hugging_face.modality import modules_in, repository_of
from embedpipe.backbones.providers.hugging_face.packages import PACKAGES
from embedpipe.backbones.providers.hugging_face.tokenizer import CHARACTERS, FastTokenizer, UnknownCounter
from embedpipe.backbones.providers.hugging_face.vision import require_files
from embedpipe.backbones.providers.hugging_face.vocabulary import count_embeddings, require_vocabulary
from embedpipe.backbones.spec import TextPreprocessing
from embedpipe.backbones.weights.download import with_revision
from embedpipe.errors import UsageError, WeightsError

_GUESSED = (
    "the folder has no modules.json, which says how tokens become a vector: they are averaged, as "
    "sentence-transformers does then"
)

_PREFIX = "sentence-transformers/"

#: The tensor of a batch with the number of tokens of each text.
_LENGTHS = "lengths"


class SentenceTransformerProvider:
    """Provider of the models of sentence-transformers, from a folder, the hub or an installed package."""

    reads_files = True
    takes_image_size = True

    def names(self) -> list[str]:
        """Return the models in installed packages."""
        return [name.removeprefix(_PREFIX) for name in PACKAGES]

    def load(
        self, name: str, weights: Weights, offline: bool, image_size: int | None = None
    ) -> ImageNetwork | TextNetwork:
        """Load a model; see `Provider.load`. Features are the vectors of its ``encode``, of texts with its prompt."""
        if weights == "none":
            raise UsageError(
                f"{option('weights', 'none')} does not apply to sentence-transformers/: use transformers/ for random "
                "weights"
            )
        repository = repository_of(name)
        folder, spec_name, origin = find_folder(name, repository, weights, offline)
        modules = modules_in(str(folder), repository, "default", offline)
        if "image" in modules:
            require_files(modules["image"], random=False)
        model, gaps, notes = _load_model(folder, origin)
        known: dict[str, Any] = {"name": spec_name.removeprefix(_PREFIX), "files": with_revision(folder, repository)}
        if "image" not in modules:
            return dataclasses.replace(_describe_texts(model, folder, origin, gaps, notes), **known)
        images = dataclasses.replace(describe_images(model, folder, origin, image_size, gaps), **known)
        images = dataclasses.replace(images, notes=(*notes, *images.notes))
        if "text" not in modules:
            return images
        texts = _describe_texts(model, folder, origin, gaps, images.notes)
        return dataclasses.replace(images, text=dataclasses.replace(texts, **known))


def _load_model(folder: Path, origin: str) -> tuple[Any, Gaps, tuple[str, ...]]:
    """Return a model, its gaps, and notes for the user."""
    library = import_extra("sentence_transformers", "text")
    try:
        with quiet(), load_reports() as reports, logged_warnings("sentence_transformers") as warnings:
            model = library.SentenceTransformer(
                str(folder), device="cpu", local_files_only=True, trust_remote_code=False
            )
    except Exception as error:
        reason = " ".join(str(error)[:300].split())  # which may go on with a list of hundreds of classes
        raise WeightsError(f"sentence-transformers cannot load {origin}: {type(error).__name__}: {reason}") from error
    if untrusted := [warning for warning in warnings if "is not trusted" in warning]:
        raise WeightsError(
            f"the folder of {origin} names a function outside of torch, which is never run, and without it the "
            f"vectors would be others: {untrusted[0]}"
        )
    gaps = find_gaps(model, reports, origin)
    if (folder / "modules.json").is_file():
        return model, gaps, tuple(warnings)
    return model, gaps, (_GUESSED,) if any(type(part).__name__ == "Pooling" for part in model) else ()


def _describe_texts(model: Any, folder: Path, origin: str, gaps: Gaps, notes: tuple[str, ...]) -> TextNetwork:
    _require_vocabulary(model[0], origin)
    prompt = model.prompts.get(model.default_prompt_name) or ""
    limit = model.max_seq_length
    limit = limit if isinstance(limit, int) and limit < 1 << 30 else None
    tokenizer = _tokenizer(model, prompt, limit)
    return TextNetwork(
        name="",
        module=model,
        preprocessing=TextPreprocessing(hash_configuration(folder), limit, prompt=prompt),
        tokenizer=tokenizer,
        origin=origin,
        pretrained=True,
        features=_features_by_length if _has_text_encoder(model) else _features,
        normalised=type(model[-1]).__name__ == "Normalize",
        matryoshka=says_matryoshka(folder),
        chunks=isinstance(tokenizer, FastTokenizer),
        libraries=("sentence-transformers", "transformers", "tokenizers"),
        gaps=gaps,
        notes=notes,
    )


def _features(module: nn.Module, batch: dict[str, Tensor]) -> Any:
    vectors = module({"modality": "text", **batch})["sentence_embedding"]
    return vectors[:, : getattr(module, "truncate_dim", None)]


def _features_by_length(module: nn.Module, batch: dict[str, Tensor]) -> Any:
    """Return the vectors of texts without padding: some networks (SigLIP) take the last token, whatever it is."""
    tensors = {name: tensor for name, tensor in batch.items() if name != _LENGTHS}
    lengths = batch[_LENGTHS]
    vectors: dict[int, Tensor] = {}
    for length in set(lengths.tolist()):
        rows = (lengths == length).nonzero()[:, 0]
        part = {name: tensor[rows, :length] for name, tensor in tensors.items()}
        vectors |= dict(zip(rows.tolist(), _features(module, part), strict=True))
    return torch.stack([vectors[row] for row in range(len(lengths))])


def _has_text_encoder(model: Any) -> bool:
    """Return whether texts have an encoder beside that of images, such as CLIP's, which pools its tokens itself."""
    texts: dict[str, Any] = getattr(model[0], "modality_config", {}).get("text") or {}
    return bool(texts.get("method", "forward") != "forward")


def _require_vocabulary(first: Any, origin: str) -> None:
    tokenizer = first.tokenizer
    if hasattr(tokenizer, "backend_tokenizer") and hasattr(first, "model"):
        rows = count_embeddings(getattr(first.model, "text_model", first.model))
        require_vocabulary(tokenizer, rows, origin)
    elif hasattr(tokenizer, "get_vocab") and hasattr(first, "embedding"):
        rows, largest = len(first.embedding.weight), max(tokenizer.get_vocab().values(), default=0)
        if largest >= rows:
            raise WeightsError(
                f"the tokenizer of {origin} must be the network's, but it numbers its tokens up to {largest} and the "
                f"network has {rows} vectors of tokens: use the tokenizer.json of this model"
            )


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
    rows = count_embeddings(first.model)
    return FastTokenizer(first.tokenizer, limit, prompt, bool(first.do_lower_case), rows)


class _LibraryTokenizer:
    """The library's own preprocessing, for models that are not a single transformer."""

    def __init__(self, model: Any, prompt: str, limit: int | None) -> None:
        self._model, self._prompt, self._limit = model, prompt, limit
        self._lock = threading.Lock()  # every call changes the state of the tokenizer
        self._by_length = _has_text_encoder(model)
        own = model.tokenizer
        core = own if type(own).__name__ == "Tokenizer" else getattr(own, "backend_tokenizer", None)
        self._core = self._count = None
        if core is not None:
            self._core = type(core).from_str(core.to_str())
            self._core.no_padding()
            self._count = UnknownCounter(self._core, getattr(own, "unk_token_id", None), self._core.encode(prompt).ids)

    def split(self, text: str, whole: bool) -> Tokens:
        """Return the text itself, which is tokenised with its batch; count it if it is known to be too long.

        The size is in characters.
        """
        counts = self._unknown(text)
        # A token has at least one character.
        is_short = self._limit is None or len(self._prompt) + len(text) <= self._limit
        if not is_short and callable(self._model.tokenizer):
            with self._lock, quiet():
                ids = self._model.tokenizer(self._prompt + text, truncation=False)["input_ids"]
            counts |= {"truncated texts": 1} if len(ids) > (self._limit or 0) else {}
        return Tokens((text,), (len(text),), counts)

    def _unknown(self, text: str) -> dict[str, int]:
        if self._core is not None and self._count is not None:
            read = text if self._limit is None else text[: CHARACTERS * self._limit]
            return self._count([self._core.encode(self._prompt + read).ids])
        words = getattr(self._model.tokenizer, "tokenize", None)  # of a model of word vectors
        return {"texts without a known token": 1} if words is not None and not words(text) else {}

    def collate(self, pieces: Sequence[str]) -> dict[str, Tensor]:
        """Return the library's input tensors for texts."""
        if self._by_length:
            rows = [self._preprocess([piece]) for piece in pieces]
            names = [name for name, value in rows[0].items() if isinstance(value, Tensor)]
            pad = partial(nn.utils.rnn.pad_sequence, batch_first=True)
            batch = {name: pad([row[name][0] for row in rows]) for name in names}
            return {**batch, _LENGTHS: torch.tensor([row["input_ids"].shape[1] for row in rows])}
        features = self._preprocess(pieces)
        if "prompt_length" in features:
            features["prompt_length"] = torch.tensor([features["prompt_length"]])
        return {name: value for name, value in features.items() if isinstance(value, Tensor)}

    def _preprocess(self, pieces: Sequence[str]) -> dict[str, Any]:
        with self._lock:
            features: dict[str, Any] = self._model.preprocess(list(pieces), prompt=self._prompt or None)
        return features
