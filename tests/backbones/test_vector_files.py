"""Files of word vectors: written and read by gensim, with unusual words, and damaged."""

from __future__ import annotations

import gzip
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from gensim.models import KeyedVectors
from hypothesis import given, settings
from hypothesis import strategies as st

from embedpipe.backbones.providers.word_vectors import files as vector_files
from embedpipe.backbones.providers.word_vectors import lines as vector_lines
from embedpipe.backbones.providers.word_vectors.files import read_counts, read_word_vectors
from embedpipe.errors import WeightsError

WORDS = [
    "the",
    ",",
    "of",
    "naïve",
    "東京",
    "New_York",
    "n't",
    "1.5",
    "</s>",
    "\N{NO-BREAK SPACE}x",
    "😀",
    "e\u0301",
    "-2",
]


@pytest.fixture
def vectors() -> KeyedVectors:
    content = KeyedVectors(7)
    content.add_vectors(WORDS, np.random.default_rng(0).standard_normal((len(WORDS), 7)).astype(np.float32))
    return content


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("word2vec binary", {"binary": True}),
        ("word2vec text", {"binary": False}),
        ("GloVe text", {"binary": False, "write_header": False}),
    ],
)
def test_files_written_by_gensim_are_read(
    vectors: KeyedVectors, tmp_path: Path, kind: str, options: dict[str, bool], zipped: bool
) -> None:
    path = tmp_path / "misnamed.dat"
    vectors.save_word2vec_format(str(path), **options)
    if zipped:
        path.write_bytes(gzip.compress(path.read_bytes()))
    file = read_word_vectors(path)
    assert file.kind == kind
    assert file.index == {word: row for row, word in enumerate(WORDS)}
    assert file.matrix.dtype == np.float32
    np.testing.assert_array_equal(file.matrix, vectors.vectors)


# What a format itself cannot hold: text's words end at a line feed or a number, binary's at a space.
ANY_WORD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), min_size=1, max_size=12)
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(["binary", "word2vec", "GloVe", "fastText"]))
def test_unusual_words_are_read(data: st.DataObject, kind: str) -> None:
    forbidden = re.compile(r"[ \n]" if kind == "binary" else r"[\x00-\x20]|^$")
    words = data.draw(st.lists(ANY_WORD.filter(lambda w: not forbidden.search(w)), min_size=3, max_size=9, unique=True))
    rows = st.lists(NUMBERS, min_size=3, max_size=3)
    matrix = np.array(data.draw(st.lists(rows, min_size=len(words), max_size=len(words))), np.float32)
    header = b"" if kind == "GloVe" else f"{len(words)} 3\n".encode()
    end = {"fastText": b" \n", "binary": b"\n"}.get(kind, b"\n")
    lines = [
        word.encode() + b" " + (row.tobytes() if kind == "binary" else " ".join(map(repr, row.tolist())).encode()) + end
        for word, row in zip(words, matrix, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vectors")
        path.write_bytes(header + b"".join(lines))
        file = read_word_vectors(path)
    assert list(file.index) == words
    np.testing.assert_array_equal(file.matrix, matrix)


def test_words_with_spaces_are_read(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text("the 1 2\n. . . 3 4\nat name@domain.com 5 6\r\nlast 7 8e-1\n\n")
    file = read_word_vectors(path)
    assert list(file.index) == ["the", ". . .", "at name@domain.com", "last"]
    np.testing.assert_allclose(file.matrix, [[1, 2], [3, 4], [5, 6], [7, 0.8]])


def test_unusual_numbers_and_spaces_are_read(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text("2 3\none  1   +2 3\ntwo\t4 5\t6")
    np.testing.assert_array_equal(read_word_vectors(path).matrix, [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("binary", [True, False])
def test_first_vector_of_a_repeated_word_counts_as_in_gensim(tmp_path: Path, binary: bool) -> None:
    words, matrix = ["a", "b", "a", "c", "b"], np.arange(10, dtype=np.float32).reshape(5, 2)
    path = tmp_path / "vectors"
    values = [row.tobytes() if binary else " ".join(map(str, row)).encode() for row in matrix]
    path.write_bytes(b"5 2\n" + b"".join(w.encode() + b" " + v + b"\n" for w, v in zip(words, values, strict=True)))
    file, expected = read_word_vectors(path), KeyedVectors.load_word2vec_format(str(path), binary=binary)
    assert file.index == expected.key_to_index == {"a": 0, "b": 1, "c": 2}
    np.testing.assert_array_equal(file.matrix, expected.vectors[:3])
    assert file.kind.endswith(", 2 repeated words left out")


def test_words_that_are_not_utf_8_are_read_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_bytes(b"a 1 2\nb\xff\xfe 3 4\nc\xef\xbf\xbd 5 6\n")
    file = read_word_vectors(path)
    assert list(file.index) == ["a", "b\ufffd\ufffd", "c\ufffd"]
    assert file.kind == "GloVe text, 1 words not in UTF-8"


@pytest.mark.parametrize("options", [{"binary": True}, {"binary": False}, {"binary": False, "write_header": False}])
def test_files_of_many_blocks_are_read(
    tmp_path: Path, options: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_files, "BLOCK", 1 << 14)
    content = KeyedVectors(5)
    matrix = np.random.default_rng(0).standard_normal((9000, 5)).astype(np.float32)
    content.add_vectors([f"word{i}" for i in range(9000)], matrix)
    path = tmp_path / "vectors"
    content.save_word2vec_format(str(path), **options)
    file = read_word_vectors(path)
    assert list(file.index) == content.index_to_key
    np.testing.assert_array_equal(file.matrix, matrix)
    if not options["binary"]:
        lines = path.read_bytes().split(b"\n")
        lines[8000] = lines[8000].replace(b" ", b" x", 1)
        path.write_bytes(b"\n".join(lines))
        with pytest.raises(WeightsError, match=r"line 8001: 'x.*' is not a number"):
            read_word_vectors(path)


BINARY = b"2 2\na " + np.array([1, 2], "<f4").tobytes() + b"\nb " + np.array([3, np.nan], "<f4").tobytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"3 2\n", "must have 3 words by its header, got 0"),
        (b"0 5\n", "line 1: a header must name .*, got 0 and 5"),
        (b"5 0\n", "line 1: a header must name .*, got 5 and 0"),
        (b"1 99999999\na 1\n", "line 1: a header must name .*, got 1 and 99999999"),
        (b"only words here\nand here\n", "line 1: must be a header of word2vec, or a word .*got 'only words here'"),
        (b"\x89PNG\r\n\x1a\n\0\0", "line 1: must be a header"),
        (b"PK\x03\x04...", "zip archive: unpack it"),
        (b"\xba\x16\x4f\x2f...", "use its .vec file"),
        (b"2 3\na 1 2 3\nb 1 2\n", "line 3: must have 3 values as the other lines, got 2: 'b 1 2'"),
        (b"2 3\na 1 2 3\nb 1 2 3 4\n", "line 3: must have 3 values as the other lines, got 4"),
        (b"2 3\na 1 2\nb 1 2 3\n", "line 2: must have 3 values as the other lines, got 2"),
        (b"a 1 2 3\nb 1 2 3\n\nc 1 2\n", "line 4: must have 3 values as the other lines, got 2"),
        (b"a 1 2 3\nb 1 two 3\n", "line 2: 'two' is not a number"),
        (b"a 1 2 3\nb 1 nan 3\n", "line 2: a value is NaN or infinite: 'b 1 nan 3'"),
        (b"a 1 2 3\nb 1 1e99 3\n", "line 2: a value is NaN or infinite"),
        (b"3 2\na 1 2\nb 3 4\n", "must have 3 words by its header, got 2: it is damaged"),
        (b"1 2\na 1 2\nb 3 4\n", "must have 1 words by its header, got 2"),
        (BINARY, "word 2, 'b': a value is NaN"),
        (BINARY[:-1], "must have 2 words by its header, got 1"),
        (b"1 2\na \0\0\0\0\0\0\0\0more", "after word 1: the file has more data than its header says"),
        (b"9 2\n" + b"\0" * 70000, "word 1: expected a word"),
        (gzip.compress(b"a 1 2\n" * 99, mtime=0)[:-9], "cannot be read: "),
        (b"\x1f\x8b\x08 no gzip at all", "cannot be read: "),
    ],
)
def test_error_names_the_place_of_damage(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "vectors.txt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        read_word_vectors(path)
    assert str(path) in str(caught.value)


def test_line_that_is_too_long_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_lines, "LONGEST_LINE", 64)
    path = tmp_path / "vectors.txt"
    path.write_bytes(b"a 1 2\n\nb 1 2\nc" + b" 1" * 100)
    with pytest.raises(WeightsError, match=r"vectors.txt', line 4: the line is longer than 64 bytes"):
        read_word_vectors(path)


def test_counts_are_read(tmp_path: Path) -> None:
    path = tmp_path / "counts.txt.gz"
    path.write_bytes(gzip.compress("the 100\n\nnaïve\t2.5\nNew York 3\nthe  1".encode()))
    assert read_counts(path) == {"the": 101, "naïve": 2.5, "New York": 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"a 1\nb\n", "line 2: must be a word and its count, a number > 0, got 'b'"),
        (b"a 1\nb many\n", "line 2: must be a word and its count.*got 'b many'"),
        (b"a 0\n", "line 1: "),
        (b"a 1\nb nan\n", "line 2: "),
        (b"a inf\n", "line 1: "),
        (b"\xff 1\n", "line 1: "),
    ],
)
def test_error_names_the_wrong_line_of_counts(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "counts.txt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_counts(path)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_counts(tmp_path / "none.txt")
