"""Parsing lines of text files of word vectors: a word and its values."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

Matrix = npt.NDArray[np.float32]

#: Bytes; no file of word vectors has longer lines.
LONGEST_LINE = 1 << 24


class BadLineError(Exception):
    """A line without a vector; ``row`` is its index among the lines that are not blank."""

    def __init__(self, row: int, problem: str) -> None:
        super().__init__(problem)
        self.row = row


def line_blocks(chunks: Iterator[bytes]) -> Iterator[list[bytes]]:
    """Yield the lines of a file's chunks without line feeds; the last block is the text after the last line feed.

    Raises BadLineError for a line that is too long, after the lines before it.
    """
    rest = b""
    for data in chunks:
        lines = (rest + data).split(b"\n")
        rest = lines.pop()
        yield lines
        if len(rest) > LONGEST_LINE:
            raise BadLineError(0, f"the line is longer than {LONGEST_LINE:,} bytes")
    yield [rest]


def parse_lines(lines: list[bytes], dim: int) -> tuple[list[bytes], Matrix]:
    """Return the words and the values, float32 (n, dim), of lines that are not blank.

    Raises BadLineError for the first line that is not a word and ``dim`` finite values.
    """
    words: list[bytes] = []
    values: list[bytes] = []
    for row, line in enumerate(lines):
        word, _, numbers = line.partition(b" ")
        if numbers.count(b" ") != dim - 1:
            word, *parts = line.rsplit(None, dim)
            count = len(line.split()) - 1
            if len(parts) < dim or as_number(word.split()[-1] if word.count(b" ") else b"-") is not None:
                raise BadLineError(row, f"must have {dim} values as the other lines, got {count}: {shown(line)}")
            numbers = b" ".join(parts)
        words.append(word)
        values.append(numbers)
    matrix = _parse_values(values, dim)
    if not np.isfinite(matrix).all():
        row = int(np.flatnonzero(~np.isfinite(matrix).all(1))[0])
        raise BadLineError(row, f"a value is NaN or infinite: {shown(lines[row])}")
    return words, matrix


def _parse_values(lines: list[bytes], dim: int) -> Matrix:
    """Parse lines of values that are separated by one space, as float32 (n, dim)."""
    matrix = np.empty((len(lines), dim), np.float32)
    names = [str(i) for i in range(dim)]
    data = b"\n".join(lines)
    try:
        table = csv.read_csv(
            pa.py_buffer(data),
            csv.ReadOptions(column_names=names, block_size=len(data) + 1),
            csv.ParseOptions(delimiter=" ", quote_char=False),
            csv.ConvertOptions(column_types=dict.fromkeys(names, pa.float32()), null_values=[]),
        )
        for i, column in enumerate(table.columns):
            matrix[:, i] = column.to_numpy()
    except (pa.ArrowInvalid, ValueError):  # Python accepts more ways to write a number
        for row, line in enumerate(lines):
            for i, value in enumerate(line.split(b" ")):
                if (number := as_number(value)) is None:
                    raise BadLineError(row, f"{shown(value)} is not a number") from None
                matrix[row, i] = number
    return matrix


def as_number(value: bytes) -> float | None:
    """Return the number of a text, or None."""
    try:
        return float(value)
    except ValueError:
        return None


def shown(line: bytes) -> str:
    """Return a line, shortened for a message."""
    text = line.decode(errors="replace").strip()
    return repr(text if len(text) <= 60 else text[:60] + "...")
