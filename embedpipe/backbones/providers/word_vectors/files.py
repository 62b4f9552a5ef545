"""Files of word vectors: word2vec's binary and text, GloVe's text, fastText's ``.vec``, each also gzipped.

The format is detected by content: a first line of two integers is the header of word2vec and fastText, followed by text
or binary data; GloVe's files begin with a word. In text files words may contain spaces, so values are counted from the
right. If a word occurs twice, its first vector counts. Bytes that are not UTF-8 become U+FFFD, as published files have
a few such words among millions.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedpipe._utils.option_names import option
from embedpipe.backbones.providers.word_vectors.lines import (
    BadLineError,
    Matrix,
    as_number,
    line_blocks,
    parse_lines,
    shown,
)
from embedpipe.errors import WeightsError

#: Bytes that are read and parsed at a time, and bytes that are read to detect the format.
BLOCK, SAMPLE = 1 << 21, 1 << 16
#: Limits that no published file exceeds, to detect damaged headers: dimensions of a vector, and bytes of a word.
WIDEST, LONGEST_WORD = 1 << 16, 1 << 16

_HEADER = re.compile(rb"\s*(\d{1,18})\s+(\d{1,18})\s*$")
_OTHER_FILES = {
    b"PK\x03\x04": "a zip archive: unpack it",
    b"\xba\x16\x4f\x2f": "fastText's binary model: use its .vec file",
}


@dataclass(frozen=True)
class VectorFile:
    """The content of a file of word vectors.

    Parameters
    ----------
    index : dict of str to int
        Word -> row, in the order of the rows.
    matrix : ndarray of float32, shape (n_words, dim)
    kind : str
        The format in words, with remarks on the file.
    """

    index: dict[str, int]
    matrix: Matrix
    kind: str


def read_word_vectors(path: Path) -> VectorFile:
    """Read a file of word vectors, with little more memory than the matrix.

    Raises
    ------
    WeightsError
        If the file cannot be read, is damaged or has another format; the message names the line, or the word's number.
    """
    with opened(path) as stream:
        head = stream.read(SAMPLE)
        for magic, other in _OTHER_FILES.items():
            if head.startswith(magic):
                raise WeightsError(f"{str(path)!r} is {other}")
        first, newline, rest = head.partition(b"\n")
        header = _HEADER.match(first) if newline else None
        if not header:
            rows = _Rows(path, _sampled_dim(path, head), None)
            _read_text(rows, _chunks(stream, head), 1)
            return rows.finish("GloVe text")
        count, dim = int(header[1]), int(header[2])
        if not count or not 0 < dim <= WIDEST:
            raise WeightsError(
                f"{str(path)!r}, line 1: a header must name >= 1 words and 1 to {WIDEST} values, got {count} and {dim}"
            )
        rows = _Rows(path, dim, count)
        if _is_text(rest, dim, len(head) == SAMPLE):
            _read_text(rows, _chunks(stream, rest), 2)
            return rows.finish("word2vec text")
        _read_binary(rows, _chunks(stream, rest), count)
        return rows.finish("word2vec binary")


def read_counts(path: Path) -> dict[str, float]:
    """Read lines of a word, white space, and its count.

    Raises
    ------
    WeightsError
        If the file cannot be read or is empty, or a line has another format; the message names the line.
    """
    counts: dict[str, float] = {}
    with opened(path) as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                word, value = line.decode().rsplit(None, 1)
                count = float(value)
            except ValueError:
                count = -1.0
            if not 0 < count < np.inf:
                raise WeightsError(
                    f"{str(path)!r}, line {number}: must be a word and its count, a number > 0, got {shown(line)}"
                )
            counts[word] = counts.get(word, 0.0) + count
    if not counts:
        raise WeightsError(f"{str(path)!r} is empty: it must have lines of a word and its count")
    return counts


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file, gzipped or not, for reading bytes. Raises WeightsError if opening or reading fails."""
    try:
        with path.open("rb") as raw:
            gzipped = raw.peek(2)[:2] == b"\x1f\x8b"
            yield gzip.GzipFile(fileobj=raw) if gzipped else raw
    except (OSError, EOFError, zlib.error) as error:
        raise WeightsError(f"{str(path)!r} cannot be read: {error}. Pass a file of word vectors or counts") from error


class _Rows:
    """The words and vectors read so far; the matrix grows in place."""

    def __init__(self, path: Path, dim: int, count: int | None) -> None:
        self.path, self.dim, self.count = path, dim, count
        self.seen = self.undecodable = 0
        self.index: dict[str, int] = {}
        self._matrix: Matrix = np.empty((0, dim), np.float32)

    def add(self, raw: Sequence[bytes], vectors: Matrix) -> None:
        """Add words with their vectors (n, dim), except words that were added before."""
        try:
            words = [word.decode() for word in raw]
        except UnicodeDecodeError:
            words = [word.decode(errors="replace") for word in raw]
            self.undecodable += sum(word != text.encode() for word, text in zip(raw, words, strict=True))
        self.seen += len(words)
        start = len(self.index)
        new: list[int] = []
        for row, word in enumerate(words):
            if self.index.setdefault(word, len(self.index)) == start + len(new):
                new.append(row)
        if (end := len(self.index)) > len(self._matrix):
            room = max(end, len(self._matrix) * 5 // 4)
            self._matrix.resize((room, self.dim), refcheck=False)
        self._matrix[start:end] = vectors if len(new) == len(words) else vectors[new]

    def finish(self, kind: str) -> VectorFile:
        """Return the words and vectors. Raises WeightsError if their number differs from the header's."""
        if self.count not in (None, self.seen):
            raise WeightsError(
                f"{str(self.path)!r} must have {self.count} words by its header, got {self.seen}: it is damaged"
            )
        self._matrix.resize((len(self.index), self.dim), refcheck=False)
        notes = {"repeated words left out": self.seen - len(self.index), "words not in UTF-8": self.undecodable}
        return VectorFile(
            self.index, self._matrix, ", ".join([kind, *(f"{n} {remark}" for remark, n in notes.items() if n)])
        )

    def error(self, place: str, problem: str) -> WeightsError:
        """Return the error for a place in the file."""
        return WeightsError(f"{str(self.path)!r}, {place}: {problem}")


def _chunks(stream: Any, head: bytes) -> Iterator[bytes]:
    yield head
    while data := stream.read(BLOCK):
        yield data


def _sampled_dim(path: Path, head: bytes) -> int:
    """Return the number of values of a file without header: the most frequent in its first lines."""
    lines = [line for line in head.split(b"\n")[: 100 if b"\n" in head else 1] if line.strip()]
    if len(head) == SAMPLE and len(lines) > 1:
        lines = lines[:-1]  # it may be incomplete
    if not lines:
        raise WeightsError(f"{str(path)!r} is empty: it must have word vectors")
    dim = Counter(len(line.split()) - 1 for line in lines).most_common(1)[0][0]
    last = lines[0].split()[-1:]
    if dim == 1:
        raise WeightsError(
            f"{str(path)!r} has one value per word. Pass a file of vectors, and counts with "
            f"{option('frequencies', ...)}"
        )
    if not 0 < dim <= WIDEST or as_number(last[0]) is None:
        raise WeightsError(
            f"{str(path)!r}, line 1: must be a header of word2vec, or a word with its values, got {shown(lines[0])}. "
            "Use the format of word2vec, GloVe or fastText (gensim: save_word2vec_format)"
        )
    return dim


def _is_text(rest: bytes, dim: int, cut: bool) -> bool:
    """Return whether the data after the header is text, not word2vec's binary format."""
    values = rest.partition(b"\n")[0].rsplit(None, dim)[1:]
    if len(values) == dim and all(as_number(value) is not None for value in values):
        return True
    try:
        rest[: rest.rfind(b"\n") + 1 if cut else None].decode()
    except UnicodeDecodeError:
        return False
    return bool(rest) and re.search(rb"[\0-\x08\x0e-\x1f]", rest) is None


def _read_text(rows: _Rows, chunks: Iterator[bytes], number: int) -> None:
    """Read lines of words and values; ``number`` is that of the first line."""
    try:
        for lines in line_blocks(chunks):
            places = [place for place, line in enumerate(lines) if line.rstrip()]
            try:
                words, vectors = parse_lines([lines[place].rstrip() for place in places], rows.dim)
            except BadLineError as error:
                number += places[error.row]
                raise
            rows.add(words, vectors)
            number += len(lines)
    except BadLineError as error:
        raise rows.error(f"line {number}", str(error)) from None


def _read_binary(rows: _Rows, chunks: Iterator[bytes], count: int) -> None:
    """Read words, each followed by a space and its values as little-endian float32, and possibly a line feed."""
    size, data, start = 4 * rows.dim, b"", 0
    for chunk in chunks:
        data, start = data[start:] + chunk, 0
        words: list[bytes] = []
        vectors: list[bytes] = []
        while rows.seen + len(words) < count:
            space = data.find(b" ", start)
            if space > start + LONGEST_WORD or (space < 0 and len(data) > start + LONGEST_WORD):
                raise rows.error(f"word {rows.seen + len(words) + 1}", "expected a word: the file is damaged")
            end = space + 1 + size
            if space < 0 or end > len(data):
                break
            words.append(data[start:space].lstrip(b"\n"))
            vectors.append(data[space + 1 : end])
            start = end
        matrix = np.frombuffer(b"".join(vectors), "<f4").reshape(-1, rows.dim)
        if not np.isfinite(matrix).all():
            row = int(np.flatnonzero(~np.isfinite(matrix).all(1))[0])
            raise rows.error(
                f"word {rows.seen + row + 1}, {shown(words[row])}", "a value is NaN or infinite: the file is damaged"
            )
        rows.add(words, matrix)
    if data[start:].strip() and rows.seen == count:
        raise rows.error(f"after word {count}", "the file has more data than its header says: it is damaged")
