"""open_clip's tokenizers: its own and those of Hugging Face, a text at a time from any thread."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embedpipe._utils.importing import import_extra
from embedpipe.backbones.network import Tokenizer, Tokens
from embedpipe.backbones.providers.hugging_face.library import no_remote_code
from embedpipe.backbones.weights.download import fetch_from_hub
from embedpipe.errors import BackboneError, WeightsError

#: Ids and mask of one piece, (2, length): open_clip pads every text to the same length.
Piece = npt.NDArray[np.int64]

#: The files of a repository that make a tokenizer: of each row the first that there is.
_FILES = (
    ("tokenizer.json", "spiece.model", "sentencepiece.bpe.model", "vocab.txt"),
    ("tokenizer_config.json",),
)

#: Words whose tokens are remembered.
_KEPT = 100_000

#: Of a text of which only the beginning counts, so many characters are read first.
_WINDOW = 100_000

#: Letters in a row are read as words of so many: the library takes time by the square of a word's length.
_LONG_WORD = re.compile(r"[^\W\d_]{1000}")


def make_tokenizer(config: Mapping[str, Any], folder: Path | None, offline: bool) -> tuple[Tokenizer, str, int]:
    """Return a network's tokenizer, the SHA-256 of what decides its tokens, and how many it gives at most.

    Parameters
    ----------
    config : mapping
        ``text_cfg`` of open_clip's configuration of the network.
    folder : Path, optional
        Where the files of a Hugging Face tokenizer lie; the hub's cache if None.
    offline : bool

    Notes
    -----
    If the files cannot be had, the tokenizer raises WeightsError when it is used: images need none.
    """
    library = import_extra("open_clip", "clip")
    length = int(config.get("context_length", library.tokenizer.DEFAULT_CONTEXT_LENGTH))
    # What a file says is no leave to run code that it names.
    kwargs = {k: v for k, v in config.get("tokenizer_kwargs", {}).items() if k != "trust_remote_code"}
    declared = json.dumps([length, kwargs, config.get("tokenizer_mode")], sort_keys=True)
    digest = hashlib.sha256(declared.encode())
    if not (name := config.get("hf_tokenizer_name")):
        try:
            own = library.SimpleTokenizer(context_length=length, **kwargs)
        except Exception as error:
            raise BackboneError(f"the configuration's tokenizer cannot be made of {kwargs}: {error}") from error
        digest.update(json.dumps([list(own.encoder), list(own.bpe_ranks)]).encode())
        return _OwnTokenizer(own, length), digest.hexdigest(), length
    try:
        folder = folder or _fetch(name, offline)
        with no_remote_code():
            theirs = library.tokenizer.HFTokenizer(
                str(folder), context_length=length, tokenizer_mode=config.get("tokenizer_mode"), **kwargs
            )
    except Exception as error:  # the libraries stumble over foreign files in many ways
        return _NoTokenizer(name, str(error)), "", length
    for file in _vocabulary(folder):
        digest.update(file.read_bytes())
    return _TheirTokenizer(theirs, length), digest.hexdigest(), length


def _fetch(repository: str, offline: bool) -> Path:
    try:
        files = [fetch_from_hub(repository, names, offline) for names in _FILES]
    except WeightsError as error:
        names = " and ".join(repr(names[0]) for names in _FILES)
        raise WeightsError(f"its {names} are not in the hub's cache and cannot be downloaded") from error
    with contextlib.suppress(WeightsError):  # names the kind of tokenizer, where the others do not
        fetch_from_hub(repository, ["config.json"], offline)
    return files[0].parent


def _vocabulary(folder: Path) -> list[Path]:
    """Return the files that decide which tokens a Hugging Face tokenizer gives."""
    if (file := folder / "tokenizer.json").is_file():
        return [file]
    return [folder / name for name in (*_FILES[0], "vocab.json", "merges.txt") if (folder / name).is_file()]


class _Pieces(ABC):
    """Texts in pieces that are all padded to one length."""

    def split(self, text: str, whole: bool) -> Tokens:
        """Return the tokens of a text; see `Tokenizer.split`."""
        pieces = self._cut(text if whole else text[:_WINDOW])
        if not whole and len(pieces) == 1 and len(text) > _WINDOW:
            pieces = self._cut(text)  # of few tokens all the same
        kept = tuple(pieces if whole else pieces[:1])
        counts = {"truncated texts": 1} if len(kept) < len(pieces) else {}
        return Tokens(kept, tuple(int(piece[1].sum()) for piece in kept), counts)

    @abstractmethod
    def _cut(self, text: str) -> list[Piece]:
        """Return all pieces of a text, the first as the library itself gives it."""

    def collate(self, pieces: Sequence[Piece]) -> dict[str, Tensor]:
        """Return the batch of pieces; see `Tokenizer.collate`."""
        both = torch.from_numpy(np.stack(pieces, axis=1))
        return {"tokens": both[0], "attention_mask": both[1]}


class _OwnTokenizer(_Pieces):
    """open_clip's ``SimpleTokenizer``: byte pairs, between a token that starts and one that ends a text."""

    def __init__(self, tokenizer: Any, length: int) -> None:
        self._tokenizer = tokenizer
        self._length = length
        self._special = dict(tokenizer.cache)
        self._lock = threading.Lock()

    def _cut(self, text: str) -> list[Piece]:
        with self._lock:  # the library remembers every word it ever met
            if len(self._tokenizer.cache) > _KEPT:
                self._tokenizer.cache = dict(self._special)
            ids = self._tokenizer.encode(_LONG_WORD.sub(r"\g<0> ", text))
        room = self._length - 2
        return [self._piece(ids[i : i + room]) for i in range(0, max(len(ids), 1), room)]

    def _piece(self, ids: list[int]) -> Piece:
        ids = [self._tokenizer.sot_token_id, *ids, self._tokenizer.eot_token_id]
        piece = np.zeros((2, self._length), np.int64)
        piece[0, : len(ids)], piece[1, : len(ids)] = ids, 1
        return piece


class _TheirTokenizer(_Pieces):
    """open_clip's ``HFTokenizer``."""

    def __init__(self, tokenizer: Any, length: int) -> None:
        self._tokenizer = tokenizer
        self._length = length
        self._lock = threading.Lock()  # every call sets the limits of the tokenizer anew

    def _cut(self, text: str) -> list[Piece]:
        text = self._tokenizer.clean_fn(text)
        with self._lock:
            return self._cut_by_class(text) if self._tokenizer.tokenizer_mode == "clips" else self._cut_plainly(text)

    def _cut_plainly(self, text: str) -> list[Piece]:
        found = self._tokenizer.tokenizer(
            [text], max_length=self._length, padding="max_length", truncation=True, return_overflowing_tokens=True
        )
        pieces = [np.array(rows, np.int64) for rows in zip(found.input_ids, found.attention_mask, strict=True)]
        if self._tokenizer.strip_sep_token:
            for piece in pieces:
                piece[0][piece[0] == self._tokenizer.tokenizer.sep_token_id] = 0
        return pieces

    def _cut_by_class(self, text: str) -> list[Piece]:
        """Return pieces as the library's mode ``clips`` has them: a class token after the padding."""
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


class _NoTokenizer(_Pieces):
    """Stands for a tokenizer whose files are not at hand."""

    def __init__(self, repository: str, why: str) -> None:
        self._message = (
            f"texts need the tokenizer of the hub repository {repository!r}, which cannot be had: {why}. Images do "
            "not need it; or put its files into a folder with open_clip_config.json, and take open_clip/local-dir:PATH"
        )

    def _cut(self, text: str) -> list[Piece]:
        raise WeightsError(self._message)
