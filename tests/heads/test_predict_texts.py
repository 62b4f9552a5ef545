"""Predicting texts: every kind of source, one row per text, failures included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from word_vector_file import TOPICS, write_vectors

from embedpipe import Head, embed, fit, load_head
from embedpipe.errors import SourceError, SpecMismatchError, UsageError
from embedpipe.sources.file_types import EmailBytes

TEXTS = [f"{a} and {b}" for words in TOPICS.values() for a in words[:5] for b in words[:5] if a != b]
LABELS = [topic for topic, words in TOPICS.items() for a in words[:5] for b in words[:5] if a != b]
NEW = ["a sun", "the horse", "you win"]
EXPECTED = ["weather", "animals", "money"]


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    return write_vectors(tmp_path / "topics.txt")


@pytest.fixture
def head(tmp_path: Path, vectors: Path) -> Head:
    table = pa.table({"id": [f"t{i}" for i in range(len(TEXTS))], "text": TEXTS, "label": LABELS})
    return fit(embed(table, tmp_path / "store", backbone=f"word-vectors/{vectors}"), "logreg", folds=0)


def test_every_kind_of_source(head: Head, vectors: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for name, text in zip("abc", NEW, strict=True):
        (folder / f"{name}.txt").write_text(text)
    (tmp_path / "new.csv").write_text("text\n" + "\n".join(NEW) + "\n")
    emails = [EmailBytes(f"Subject: hello\n\n{text}\n".encode()) for text in NEW]
    sources: list[Any] = [
        NEW,
        np.array(NEW),
        pd.Series(NEW),
        pa.array(NEW),
        pa.table({"text": NEW}),
        [text.encode() for text in NEW],
        emails,
        folder,
        sorted(folder.iterdir()),
        tmp_path / "new.csv",
    ]
    for source in sources:
        table = head.predict(source, weights=str(vectors))
        assert table["label"].to_pylist() == EXPECTED, source
        assert [NEW[row] in text for row, text in enumerate(table["text"].to_pylist())] == [True] * len(NEW), source
        assert set(table["error"].to_pylist()) == {None}
    single = head.predict(folder / "a.txt", weights=str(vectors)).to_pylist()
    assert [(row["id"], row["label"]) for row in single] == [("a.txt", "weather")]


def test_columns_of_a_table_are_named_by_options(head: Head, vectors: Path) -> None:
    frame = pd.DataFrame({"body": NEW, "truth": EXPECTED, "number": ["x", "y", "z"]})
    table = head.predict(frame, text="body", label="truth", id="number", weights=str(vectors))
    assert table["id"].to_pylist() == ["x", "y", "z"]
    assert table["actual"].to_pylist() == table["label"].to_pylist() == EXPECTED
    assert table["text"].to_pylist() == NEW


def test_unreadable_text_has_a_row_with_an_error(head: Head, vectors: Path, tmp_path: Path) -> None:
    items = ["a sun", "", "   ", None, b"\x00\x01\x02\xff", tmp_path / "missing.txt", "the horse"]
    table = head.predict(items, weights=str(vectors)).to_pylist()
    assert len(table) == 7
    assert [row["label"] for row in table] == ["weather", None, None, None, None, None, "animals"]
    stages = [row["error"] and row["error"].partition(":")[0] for row in table]
    assert stages == [None, "decode", "decode", "read", "decode", "read", None]
    assert table[1]["probability_money"] is None


def test_saved_head_predicts_the_same(head: Head, vectors: Path, tmp_path: Path) -> None:
    again = load_head(head.save(tmp_path / "saved"))
    one, two = (each.predict(NEW, weights=str(vectors)) for each in (head, again))
    assert one.equals(two)


def test_store_and_texts_give_the_same_predictions(head: Head, vectors: Path, tmp_path: Path) -> None:
    store = embed(NEW, tmp_path / "new", backbone=f"word-vectors/{vectors}")
    by_store, by_texts = head.predict(store), head.predict(NEW, weights=str(vectors))
    assert by_store["label"].to_pylist() == by_texts["label"].to_pylist()
    np.testing.assert_allclose(by_store["probability_money"], by_texts["probability_money"], atol=1e-6)


def test_other_inputs_and_backbones_are_refused(head: Head, vectors: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="source must hold texts, got an array of float64"):
        head.predict(np.zeros((2, 8)), weights=str(vectors))
    with pytest.raises(SourceError, match="an array of texts must be 1-D with strings"):
        head.predict(np.zeros((2, 4, 4, 3), np.uint8), weights=str(vectors))
    with pytest.raises(SourceError, match=r"image='picture' needs a backbone for images"):
        head.predict(pa.table({"picture": NEW}), image="picture", weights=str(vectors))
    other = write_vectors(tmp_path / "other" / "topics.txt", dim=9)
    with pytest.raises(SpecMismatchError, match="weights_sha256"):
        head.predict(NEW, weights=str(other))
