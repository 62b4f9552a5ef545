"""The tokenizer of a Hugging Face text model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embedpipe.backbones.network import Tokens
from embedpipe.errors import DecodeError, UsageError

#: Nearly all tokens have at most this many characters, so only that many per token are read of a long text.
CHARACTERS = 32


class FastTokenizer:
    """The Rust core of a Hugging Face tokenizer, called for one text at a time from any thread.

    Batches are always padded on the right, whatever the tokenizer's setting. The first token then always has the first
    position, so a text's vector does not depend on its batch.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
    max_tokens : int
        The limit of one piece, including special tokens.
    prompt : str
        Text that is put before every text.
    lower : bool
        Whether texts are converted to lower case first.
    rows : int, optional
        For how many tokens the network has a vector, if that is known.

    Raises
    ------
    UsageError
        If the tokenizer has no Rust core.
    """

    def __init__(
        self, tokenizer: Any, max_tokens: int, prompt: str = "", lower: bool = False, rows: int | None = None
    ) -> None:
        core = getattr(tokenizer, "backend_tokenizer", None)
        if core is None:
            raise UsageError(
                f"{type(tokenizer).__name__} has no fast tokenizer (tokenizer.json): convert it with transformers"
            )
        # A copy, as the library changes the limits of its core with every call.
        self._core = type(core).from_str(core.to_str())
        self._core.no_padding()
        self._core.enable_truncation(max_tokens, direction=tokenizer.truncation_side)
        self._pad = tokenizer.pad_token_id or 0
        self._types = "token_type_ids" in tokenizer.model_input_names
        self._type_pad = getattr(tokenizer, "pad_token_type_id", 0)
        # If texts are truncated on the right, only their beginning is tokenised.
        self._window = CHARACTERS * max_tokens if tokenizer.truncation_side == "right" else None
        self._prompt, self._lower, self._rows = prompt, lower, rows
        start = self._core.encode(prompt.lower() if lower else prompt).ids
        self._count = UnknownCounter(self._core, tokenizer.unk_token_id, start)
        #: Whether the first token is a class token.
        self.class_token = self._core.encode("").ids[:1] == [tokenizer.cls_token_id]

    def to_json(self) -> str:
        """Return the content of a ``tokenizer.json`` with its limit of tokens and without padding."""
        return str(self._core.to_str())

    @property
    def settings(self) -> dict[str, Any]:
        """What decides tokens and batches beside that file."""
        return {
            "prompt": self._prompt,
            "lower": self._lower,
            "window": self._window,
            "rows": self._rows,
            "pad": self._pad,
            "type_pad": self._type_pad,
        }

    def split(self, text: str, whole: bool) -> Tokens:
        """Return the tokens of a text; see `Tokenizer.split`."""
        text = self._prompt + text
        text = text.lower() if self._lower else text
        if whole:
            first = self._core.encode(text)
            encodings = [first, *first.overflowing]
        else:
            first = self._core.encode(text[: self._window])
            if self._window is not None and len(text) > self._window and not first.overflowing:
                first = self._core.encode(text)  # its tokens are longer than expected
            encodings = [first]
        pieces = [self._piece(encoding) for encoding in encodings]
        if not pieces[0].size:
            raise DecodeError("the text has no tokens: the tokenizer drops all of its characters")
        counts = {"truncated texts": 1} if first.overflowing and not whole else {}
        counts |= self._count([encoding.ids for encoding in encodings])
        return Tokens(tuple(pieces), tuple(piece.shape[1] for piece in pieces), counts)

    def _piece(self, encoding: Any) -> npt.NDArray[np.int32]:
        """Return token ids, and token types if the network takes them, as (1 or 2, length)."""
        rows = [encoding.ids, encoding.type_ids] if self._types else [encoding.ids]
        piece = np.array(rows, np.int32)
        if self._rows is not None and piece[0].max(initial=0) >= self._rows:
            token = encoding.tokens[int(piece[0].argmax())]
            raise DecodeError(f"the text has the token {token!r}, for which the network has no vector: remove it")
        return piece

    def collate(self, pieces: Sequence[npt.NDArray[np.int32]]) -> dict[str, Tensor]:
        """Return the batch of pieces; see `Tokenizer.collate`."""
        lengths = np.array([piece.shape[1] for piece in pieces])
        width = int(lengths.max())
        ids = np.full((len(pieces), width), self._pad, np.int64)
        types = np.full((len(pieces), width), self._type_pad, np.int64)
        mask = np.zeros((len(pieces), width), np.int64)
        for row, (piece, length) in enumerate(zip(pieces, lengths, strict=True)):
            ids[row, :length], mask[row, :length] = piece[0], 1
            if self._types:
                types[row, :length] = piece[1]
        batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        if self._types:
            batch["token_type_ids"] = torch.from_numpy(types)
        return batch


class UnknownCounter:
    """Counts tokens for unknown words, such as emoji or another script: texts of them only have nearly one vector.

    Parameters
    ----------
    core : tokenizers.Tokenizer
        A tokenizer that adds no padding.
    unknown : int, optional
        The id of the token for unknown words, if its model does not name it.
    always : sequence of int
        The tokens of an empty text: special ones, and those of a prompt.
    """

    def __init__(self, core: Any, unknown: int | None, always: Sequence[int]) -> None:
        named = getattr(core.model, "unk_token", None)
        if type(core.model).__name__ != "Unigram":  # a tokenizer of bytes knows all texts
            unknown = None if named is None else core.token_to_id(named)
        # Sentencepiece puts a mark before a word, also before an unknown one.
        self._without_meaning = [id for id in (unknown, core.token_to_id("\u2581")) if id is not None]
        self._unknown = unknown
        self._always = self._known(always)

    def __call__(self, pieces: Sequence[Sequence[int]]) -> dict[str, int]:
        """Return the counts of a text with these token ids; see `embedpipe.embedding.summary.remarks`."""
        counts = {}
        if unknown := sum(ids.count(self._unknown) for ids in pieces):
            counts = {"unknown tokens": unknown, "texts with unknown tokens": 1}
        if len(pieces) == 1 and self._known(pieces[0]) <= self._always:
            counts["texts without a known token"] = 1
        return counts

    def _known(self, ids: Sequence[int]) -> int:
        return len(ids) - sum(map(ids.count, self._without_meaning))
