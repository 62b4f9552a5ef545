"""The tokenizers of open_clip, its own and Hugging Face's, called for one text at a time from any thread."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embedpipe._utils.importing import import_extra
from embedpipe.backbones.network import Tokenizer, Tokens
from embedpipe.backbones.providers.hugging_face.library import no_remote_code
from embedpipe.backbones.providers.hugging_face.tokenizer import UnknownCounter
from embedpipe.backbones.providers.hugging_face.vocabulary import require_vocabulary
from embedpipe.backbones.weights.download import fetch_from_hub
from embedpipe.errors import BackboneError, WeightsError

#: Token ids and mask of one piece, (2, length). open_clip pads every text to the same length.
Piece = npt.NDArray[np.int64]

#: The files of a tokenizer: of each row the first that the repository has.
_FILES = (
    ("tokenizer.json", "spiece.model", "sentencepiece.bpe.model", "vocab.txt"),
    ("tokenizer_config.json",),
)

#: The library's default number of tokens for which a network has a vector.
_VOCABULARY = 49408

#: The number of words whose tokens are cached.
_CACHED_WORDS = 100_000

#: The number of characters that are tokenised first if only the beginning of a text is needed.
_WINDOW = 100_000

#: Longer words are split, as the library's time grows with the square of a word's length.
_LONG_WORD = re.compile(r"[^\W\d_]{1000}")


def make_tokenizer(config: Mapping[str, Any], folder: Path | None, offline: bool) -> tuple[Tokenizer, str, int]:
    """Return a network's tokenizer, the SHA-256 of everything that decides its tokens, and the limit of tokens.

    Parameters
    ----------
    config : mapping
        ``text_cfg`` of open_clip's configuration of the network.
    folder : Path, optional
        The folder of a Hugging Face tokenizer; None for the hub's cache.
    offline : bool

    Notes
    -----
    If the files cannot be downloaded, the tokenizer raises WeightsError when it is used, since images need none.
    """
    library = import_extra("open_clip", "clip")
    length = int(config.get("context_length", library.tokenizer.DEFAULT_CONTEXT_LENGTH))
    # A configuration file must not permit running the code that it names.
    kwargs = {k: v for k, v in config.get("tokenizer_kwargs", {}).items() if k != "trust_remote_code"}
    declared = json.dumps([length, kwargs, config.get("tokenizer_mode")], sort_keys=True)
    digest = hashlib.sha256(declared.encode())
    if not (name := config.get("hf_tokenizer_name")):
        try:
            simple = _simple_tokenizer(length) if not kwargs else _SimpleTokenizer(length, **kwargs)
        except Exception as error:
            raise BackboneError(f"the tokenizer of the configuration cannot be built with {kwargs}: {error}") from error
        digest.update(simple.vocabulary)
        return simple, digest.hexdigest(), length
    try:
        folder = folder or _fetch(name, offline)
        with no_remote_code():
            tokenizer = library.tokenizer.HFTokenizer(
                str(folder), context_length=length, tokenizer_mode=config.get("tokenizer_mode"), **kwargs
            )
        rows = None if "hf_model_name" in config else int(config.get("vocab_size", _VOCABULARY))
        require_vocabulary(tokenizer.tokenizer, rows, str(folder))
    except Exception as error:  # the libraries raise many types of errors
        return _MissingTokenizer(name, str(error)), "", length
    for file in _vocabulary(folder):
        digest.update(file.read_bytes())
    return _HuggingFaceTokenizer(tokenizer, length), digest.hexdigest(), length


def _fetch(repository: str, offline: bool) -> Path:
    try:
        files = [fetch_from_hub(repository, names, offline) for names in _FILES]
    except WeightsError as error:
        names = " and ".join(repr(names[0]) for names in _FILES)
        raise WeightsError(f"{names} are not in the hub's cache and cannot be downloaded") from error
    with contextlib.suppress(WeightsError):  # may name the type of tokenizer
        fetch_from_hub(repository, ["config.json"], offline)
    return files[0].parent


def _vocabulary(folder: Path) -> list[Path]:
    """Return the files that decide the tokens of a Hugging Face tokenizer."""
    if (file := folder / "tokenizer.json").is_file():
        return [file]
    return [folder / name for name in (*_FILES[0], "vocab.json", "merges.txt") if (folder / name).is_file()]


def _without_padding(piece: Piece) -> list[int]:
    return [int(id) for id in piece[0][piece[1] == 1]]


class _FixedLengthTokenizer(ABC):
    """A tokenizer whose pieces are all padded to one length."""

    _count: UnknownCounter | None = None

    def split(self, text: str, whole: bool) -> Tokens:
        """Return the tokens of a text; see `Tokenizer.split`."""
        pieces = self._cut(text if whole else text[:_WINDOW])
        if not whole and len(pieces) == 1 and len(text) > _WINDOW:
            pieces = self._cut(text)  # its tokens are longer than expected
        kept = tuple(pieces if whole else pieces[:1])
        counts = {"truncated texts": 1} if len(kept) < len(pieces) else {}
        if self._count is not None:
            counts |= self._count([_without_padding(piece) for piece in kept])
        return Tokens(kept, tuple(int(piece[1].sum()) for piece in kept), counts)

    @abstractmethod
    def _cut(self, text: str) -> list[Piece]:
        """Return all pieces of a text; the first equals the library's tokens."""

    def collate(self, pieces: Sequence[Piece]) -> dict[str, Tensor]:
        """Return the batch of pieces; see `Tokenizer.collate`."""
        both = torch.from_numpy(np.stack(pieces, axis=1))
        return {"tokens": both[0], "attention_mask": both[1]}


class _SimpleTokenizer(_FixedLengthTokenizer):
    """open_clip's ``SimpleTokenizer``: byte pairs between a start and an end token."""

    def __init__(self, length: int, **kwargs: Any) -> None:
        self._tokenizer = import_extra("open_clip", "clip").SimpleTokenizer(context_length=length, **kwargs)
        self._length = length
        self._special = dict(self._tokenizer.cache)
        self._lock = threading.Lock()
        #: What decides its tokens.
        self.vocabulary = json.dumps([list(self._tokenizer.encoder), list(self._tokenizer.bpe_ranks)]).encode()

    def _cut(self, text: str) -> list[Piece]:
        with self._lock:  # the library caches every word without a limit
            if len(self._tokenizer.cache) > _CACHED_WORDS:
                self._tokenizer.cache = dict(self._special)
            ids = self._tokenizer.encode(_LONG_WORD.sub(r"\g<0> ", text))
        room = self._length - 2
        return [self._piece(ids[i : i + room]) for i in range(0, max(len(ids), 1), room)]

    def _piece(self, ids: list[int]) -> Piece:
        ids = [self._tokenizer.sot_token_id, *ids, self._tokenizer.eot_token_id]
        piece = np.zeros((2, self._length), np.int64)
        piece[0, : len(ids)], piece[1, : len(ids)] = ids, 1
        return piece


@lru_cache(maxsize=4)
def _simple_tokenizer(length: int) -> _SimpleTokenizer:
    """Return the tokenizer of almost all networks, built once: its 48,000 pairs take a tenth of a second."""
    return _SimpleTokenizer(length)


class _HuggingFaceTokenizer(_FixedLengthTokenizer):
    """open_clip's ``HFTokenizer``."""

    def __init__(self, tokenizer: Any, length: int) -> None:
        self._tokenizer = tokenizer
        self._length = length
        self._lock = threading.Lock()  # every call changes the limits of the tokenizer
        core = getattr(tokenizer.tokenizer, "backend_tokenizer", None)
        if core is not None:
            (empty,) = self._cut("")
            self._count = UnknownCounter(core, tokenizer.tokenizer.unk_token_id, _without_padding(empty))

    def _cut(self, text: str) -> list[Piece]:
        text = self._tokenizer.clean_fn(text)
        with self._lock:
            return self._cut_by_class(text) if self._tokenizer.tokenizer_mode == "clips" else self._cut_plainly(text)

    def _cut_plainly(self, text: str) -> list[Piece]:
        encoded = self._tokenizer.tokenizer(
            [text], max_length=self._length, padding="max_length", truncation=True, return_overflowing_tokens=True
        )
        pieces = [np.array(rows, np.int64) for rows in zip(encoded.input_ids, encoded.attention_mask, strict=True)]
        if self._tokenizer.strip_sep_token:
            for piece in pieces:
                piece[0][piece[0] == self._tokenizer.tokenizer.sep_token_id] = 0
        return pieces

    def _cut_by_class(self, text: str) -> list[Piece]:
        """Return pieces in the library's mode ``clips``, with a class token after the padding."""
        core = self._tokenizer.tokenizer
        ids = core([text], add_special_tokens=False, padding=False, truncation=False).input_ids[0]
        room = self._length - 3
        pieces = []
        for start in range(0, max(len(ids), 1), room):
            tokens = [core.bos_token_id, *ids[start : start + room], core.eos_token_id]
            padding = self._length - 1 - len(tokens)
            row = [*tokens, *[core.pad_token_id] * padding, core.cls_token_id]
            pieces.append(np.array([row, [1] * len(tokens) + [0] * padding + [1]], np.int64))
        return pieces


class _MissingTokenizer(_FixedLengthTokenizer):
    """A tokenizer whose files could not be loaded; it raises an error when it is used."""

    def __init__(self, repository: str, why: str) -> None:
        self._message = (
            f"texts need the tokenizer of the hub repository {repository!r}, which cannot be loaded: {why}. Put its "
            "files into a folder with open_clip_config.json and use open_clip/local-dir:PATH. Images do not need it"
        )

    def _cut(self, text: str) -> list[Piece]:
        raise WeightsError(self._message)
