"""The tokenizer of word vectors: from a text to the rows of its words in the matrix."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from embedpipe.backbones.network import Tokens

Rows = tuple[int, ...]

#: Words in a piece. The texts of a batch are padded to the longest piece, so without a limit a book would need too much
#: memory. The mean over pieces, weighted by their numbers of words, equals the mean over words.
PIECE = 128

#: The cache of split strings: their number, and the largest number of characters of each.
CACHED_STRINGS, LONGEST_CACHED = 1 << 16, 40

#: Punctuation of ASCII, Latin-1, Unicode's general block, ideographic and full-width. Not simply all non-letters, as
#: Python does not count the vowel signs of many scripts as letters.
_MARK = r"!-/:-@\[-`{-~\u00a1-\u00a9\u00ab-\u00b4\u00b6-\u00b9\u00bb-\u00bf\u2000-\u206f\u3000-\u303f\uff01-\uff0f"
_PARTS = re.compile(rf"[^{_MARK}\s]+(?:[{_MARK}][^{_MARK}\s]+)*(?:\.(?!\.))?|[{_MARK}]+")
_CONTRACTION = re.compile(r"(\w+?)(n't|'\w+)", re.IGNORECASE)
_PIECES = re.compile(r"[^\W_]+|[\W_]")

_UNKNOWN = -1


class WordSplitter:
    """The `Tokenizer` of word vectors.

    A text is split at white space. A string that is not in the vocabulary is split into words, which may contain
    punctuation (``state-of-the-art``, ``1,000``), and runs of punctuation. An unknown part is split as in the Penn
    Treebank (``do n't``, ``it 's``) if the vocabulary has the ending, otherwise into runs of letters and digits, and
    single marks. A full stop belongs to a word (``mr.``) if the vocabulary has that form before the word without it.
    Everything is looked up as it is, then in lower case; only in lower case if the vocabulary has no ASCII capitals.
    Texts of scripts without spaces must be segmented before.

    Parameters
    ----------
    index : mapping of str to int
        Word -> row, the most frequent word first.
    """

    #: Name of the rule for the spec; another rule must have another name.
    RULE = "words-1"

    def __init__(self, index: Mapping[str, int]) -> None:
        self.index = index
        #: Whether texts are converted to lower case first.
        self.lower = not any(map(re.compile("[A-Z]").search, index))
        self._cuts = _Cuts(self)

    def split(self, text: str, whole: bool) -> Tokens:
        """Return the rows of a text's known words, in pieces of at most `PIECE`; always the whole text.

        The counts are ``words`` (with punctuation), ``unknown words`` and ``texts without a known word``, whose vector
        is zero.
        """
        words = (text.lower() if self.lower else text).split()
        rows = tuple(chain.from_iterable(map(self._cuts.__getitem__, words)))
        counts = {"words": len(rows)}
        if unknown := rows.count(_UNKNOWN):
            counts["unknown words"] = unknown
            rows = tuple([row for row in rows if row != _UNKNOWN])
        if not rows:
            counts["texts without a known word"] = 1
        if len(rows) <= PIECE:
            return Tokens((rows,), (len(rows) or 1,), counts)
        pieces = tuple(rows[i : i + PIECE] for i in range(0, len(rows), PIECE))
        return Tokens(pieces, tuple(map(len, pieces)), counts)

    def collate(self, pieces: Sequence[Rows]) -> dict[str, Tensor]:
        """Return ``input_ids`` and ``attention_mask``, int32 (n, length), with a length of at least 1."""
        sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
        mask = np.arange(max(1, sizes.max())) < sizes[:, None]
        rows = np.zeros(mask.shape, np.int32)
        rows[mask] = np.fromiter(chain.from_iterable(pieces), np.int32, sizes.sum())
        return {"input_ids": torch.from_numpy(rows), "attention_mask": torch.from_numpy(mask.astype(np.int32))}

    def cut(self, string: str) -> tuple[int, ...]:
        """Return the rows of a string without spaces, -1 for each unknown word in it."""
        find = self._find
        if (row := find(string)) != _UNKNOWN:
            return (row,)
        rows: list[int] = []
        for part in _PARTS.findall(string.replace("\u2019", "'")):  # a curly apostrophe
            if (row := find(part)) != _UNKNOWN:
                rows.append(row)
            elif (parts := _CONTRACTION.fullmatch(part)) and (ending := find(parts[2])) != _UNKNOWN:
                rows += find(parts[1]), ending
            else:
                rows += map(find, _PIECES.findall(part))
        return tuple(rows)

    def _find(self, word: str) -> int:
        row = self.index.get(word, _UNKNOWN)
        if row == _UNKNOWN and not self.lower:
            row = self.index.get(word.lower(), _UNKNOWN)
        if row > 0 and word[-1] == "." and 0 <= self.index.get(word[:-1], _UNKNOWN) < row:
            return _UNKNOWN
        return row


class _Cuts(dict[str, tuple[int, ...]]):
    """The cache of split strings; a few thousand strings make up most of a language."""

    def __init__(self, splitter: WordSplitter) -> None:
        super().__init__()
        self._splitter = splitter

    def __missing__(self, string: str) -> tuple[int, ...]:
        rows = self._splitter.cut(string)
        if len(string) <= LONGEST_CACHED:
            if len(self) >= CACHED_STRINGS:
                self.clear()
            self[string] = rows
        return rows
