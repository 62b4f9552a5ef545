"""The script of an exported folder writes the table of `embedpipe predict`."""

from __future__ import annotations

import csv
import io
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tiny_transformer
from exported_script import Exported, script_in, script_of

import embedpipe
from embedpipe.errors import EmbedpipeError
from embedpipe.report import write_table
from embedpipe.sources import SourceOptions, open_source

SENTENCES = ["the cat sits outside .", "a man sits", "the man", "a cat outside", "the cat sits .", "a man ."]


def run_script(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the script of a folder, and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, arguments)])
    return int(script_in(folder).main())


def assert_same_table(given: Path, expected: Path) -> None:
    """Hold two CSV files to have the same columns and cells; numbers within 1e-4."""
    texts = (path.read_bytes().decode("utf-8-sig") for path in (given, expected))
    rows, wanted = (list(csv.reader(io.StringIO(text, newline=""))) for text in texts)
    assert rows[0] == wanted[0]
    assert len(rows) == len(wanted)
    numbers = [i for i, name in enumerate(wanted[0]) if name.startswith(("probability_", "confidence", "margin"))]
    for row, other in zip(rows[1:], wanted[1:], strict=True):
        for place, (cell, value) in enumerate(zip(row, other, strict=True)):
            if place in numbers and value:
                np.testing.assert_allclose(float(cell), float(value), atol=1e-4)
            elif wanted[0][place] == "error" and value:
                assert value.split(": ")[-1] in cell
            else:
                assert cell == value


def test_table_of_photos_is_that_of_predict(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(exported.photos, tmp_path / "new")
    (tmp_path / "new" / "test" / "cat" / "=broken.jpg").write_bytes(b"no picture")
    (tmp_path / "new" / "unlabelled.jpg").write_bytes((tmp_path / "new" / "test" / "cat" / "00.jpg").read_bytes())
    code = run_script(exported.folder, monkeypatch, tmp_path / "new", "--to", tmp_path / "given.csv")
    assert code == 3
    assert "26 items: 25 predicted, 1 failed" in capsys.readouterr().err
    expected = exported.head.predict(tmp_path / "new", trust=True).drop_columns("fitted_on")
    write_table(expected, tmp_path / "expected.csv")
    assert_same_table(tmp_path / "given.csv", tmp_path / "expected.csv")


def test_one_photo_goes_to_standard_output(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_script(exported.folder, monkeypatch, exported.photos / "test" / "cat" / "00.jpg") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith('"id","uri","label","confidence"')
    assert lines[1].startswith('"00.jpg",')


def test_names_that_are_no_text_are_written_and_a_missing_folder_ends_it_early(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = (exported.photos / "test" / "cat" / "00.jpg").read_bytes()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(photo)
    assert run_script(exported.folder, monkeypatch, tmp_path / "new", "--to", tmp_path / "given.csv") == 0
    assert '"caf\\udce9.jpg"' in (tmp_path / "given.csv").read_text("utf-8")
    with pytest.raises(SystemExit, match=r"the folder .*missing does not exist. Make it, or name another"):
        run_script(exported.folder, monkeypatch, tmp_path / "new", "--to", tmp_path / "missing" / "given.csv")


@pytest.mark.parametrize("data", [b"\xef\xbb\xbftext\n\xff\n", None])
def test_tables_that_cannot_be_read_are_named(tmp_path: Path, data: bytes | None) -> None:
    script = script_of("text", tmp_path / "model")
    if data is not None:
        (tmp_path / "bad.csv").write_bytes(data)
    with pytest.raises(SystemExit, match=r"bad.csv cannot be read as a table \(.*\): save it as CSV in UTF-8"):
        script.texts_in(str(tmp_path / "bad.csv"), "label", None)


def test_long_texts_are_read_and_the_named_column_must_exist(tmp_path: Path) -> None:
    (tmp_path / "long.csv").write_text("text,label\n" + "a" * 200_000 + ",x\n")
    script = script_of("text", tmp_path / "model")
    (item,) = script.texts_in(str(tmp_path / "long.csv"), "label", None)
    assert len(item["payload"]) == 200_000
    with pytest.raises(SystemExit, match="must have a column 'words', and has text, label: name one"):
        script.texts_in(str(tmp_path / "long.csv"), "label", "words")


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("semicolons.csv", "id;text\na;free, now\nb;hello\n", [("a", "free, now"), ("b", "hello")]),
        ("tabs.csv", "id\ttext\na\tfree\n", [("a", "free")]),
        ("quotes.tsv", 'id\ttext\na\t"free\nb\the said "hi"\n', [("a", '"free'), ("b", 'he said "hi"')]),
        ("lines.csv", 'id,text\na,"two\nlines"\n\nb,hello\n', [("a", "two\nlines"), ("b", "hello")]),
        ("mark.csv", "\ufeffid,text\r\na,free\r\n", [("a", "free")]),
    ],
)
def test_tables_are_read_as_embedpipe_reads_them(tmp_path: Path, name: str, content: str, rows: list) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    items = script_of("text", tmp_path / "model").texts_in(str(tmp_path / name), "label", None)
    assert [(item["id"], item["payload"]) for item in items] == rows
    listing = open_source(str(tmp_path / name), SourceOptions(), "text")
    assert [(id, listing.read(row)) for row, id in enumerate(listing.table["id"].to_pylist())] == rows


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            "id,text\na,free, now\n",
            r"line 2 must have 2 cells, as the header, got 3: put a text with .,. in it",
        ),
        ("id,text\na\n", r"line 2 must have 2 cells, as the header, got 1"),
        ('id,text\na,"free\nb,hello\n', "line 2: a quoted field is not closed"),
        ("text,text\na,b\n", "'text' occurs more than once: rename it"),
        ("id,text\na,x\na,y\n", "ids of .* must be unique, and 'a' occurs more than once"),
        ("", "it is empty"),
    ],
)
def test_tables_that_embedpipe_refuses_are_refused(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "bad.csv").write_text(content)
    with pytest.raises(SystemExit, match=reason):
        script_of("text", tmp_path / "model").texts_in(str(tmp_path / "bad.csv"), "label", None)
    with pytest.raises(EmbedpipeError):
        open_source(str(tmp_path / "bad.csv"), SourceOptions(), "text")


@pytest.mark.parametrize(
    ("header", "chosen"),
    [("id,body", "body"), ("ID,Message,Text", "Text"), (" message ,id,note", " message "), ("words", "words")],
)
def test_column_of_texts_is_the_one_that_embed_takes(tmp_path: Path, header: str, chosen: str) -> None:
    names = header.split(",")
    cells = {name: f"{'k' if name.lower() == 'id' else name.strip()}1" for name in names}
    (tmp_path / "new.csv").write_text(f"{header}\n{','.join(cells.values())}\n")
    (item,) = script_of("text", tmp_path / "model").texts_in(str(tmp_path / "new.csv"), "label", None)
    assert (item["payload"], item["uri"].partition("::")[0]) == (cells[chosen], f"table://{chosen.strip()}/0")
    if len(names) > 1:
        table = pa.table({name: [cell] for name, cell in cells.items()})
        listing = open_source(table, SourceOptions(), "text")
        assert [item["id"], item["payload"]] == [listing.table["id"][0].as_py(), listing.read(0)]


@pytest.mark.long
@pytest.mark.timeout(300)
def test_table_of_texts_is_that_of_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny_transformer.save(tmp_path / "bert", "bert", 20)
    with (tmp_path / "texts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "label"], *((text, ("cat", "man")["man" in text]) for text in SENTENCES)])
    store = embedpipe.embed(tmp_path / "texts.csv", to=tmp_path / "texts.features", backbone=backbone, text="text")
    head = embedpipe.fit(store, "ridge", calibrate=True, folds=3)
    exported = embedpipe.export(head, tmp_path / "model", weights=str(tmp_path / "bert"))
    assert exported.comparison.different_labels == 0
    (tmp_path / "new").mkdir()
    files = {"a.txt": b"the cat sits", "b.txt": b"  ", "c.txt": b"a man \xff\xfe\0", "d.md": b"man " * 60}
    files["e.eml"] = b"From: the@man\nSubject: a cat\n\n<html>sits outside\n"
    for name, data in files.items():
        (tmp_path / "new" / name).write_bytes(data)
    assert run_script(tmp_path / "model", monkeypatch, tmp_path / "new", "--to", tmp_path / "given.csv") == 3
    write_table(head.predict(tmp_path / "new", weights=str(tmp_path / "bert")), tmp_path / "expected.csv")
    assert_same_table(tmp_path / "given.csv", tmp_path / "expected.csv")


def test_texts_of_similar_length_share_a_batch_and_rows_keep_their_order(tmp_path: Path) -> None:
    script = script_of("text", tmp_path)
    lengths = [(7 * place) % 40 for place in range(50)]
    prepared = {place: ([1] * length, [0] * length) for place, length in enumerate(lengths)}
    batches = [*script.batches(prepared)]
    assert [len(batch) for batch in batches] == [16, 16, 16, 2]
    assert [lengths[place] for batch in batches for place in batch] == sorted(lengths)
    seen = []

    def model(tensors: dict[str, np.ndarray]) -> np.ndarray:
        seen.append(tensors["ids"].shape[1])
        return tensors["ids"].sum(axis=1, keepdims=True)

    def collate(pieces: list) -> dict[str, np.ndarray]:
        width = max(len(ids) for ids, _ in pieces)
        return {"ids": np.array([ids + [0] * (width - len(ids)) for ids, _ in pieces])}

    script.load_model = lambda *given: model
    settings = {"modality": "text", "model": "m", "format": "onnx", "task": "regression", "column": "n"}
    settings |= {"classes": None, "output": "numbers"}
    items = [{"id": str(place)} for place in range(50)]
    rows = script.predict(items, lambda item: prepared[int(item["id"])], collate, settings)
    assert [(row["id"], row["n"]) for row in rows] == [(str(place), lengths[place]) for place in range(50)]
    assert seen == sorted(seen)
