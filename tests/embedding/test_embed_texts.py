"""Texts from source to store: tables, folders, reuse, failures, kills, and the command line."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from conftest import TINY
from forked import Forks
from tiny_text_backbone import TINY_TEXT
from typer.testing import CliRunner

import embedpipe
from embedpipe.backbones.text_backbone import EXCERPT
from embedpipe.cli.app import app
from embedpipe.errors import SourceError, UsageError

TEXTS = [f"message {i} about {topic}" for i, topic in enumerate(["cats", "dogs", "money", "rain"] * 5)]


def embed(source: Any, to: Path, **options: Any) -> embedpipe.FeatureStore:
    return embedpipe.embed(source, to, backbone=TINY_TEXT, modality="text", **options)


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame({"body": TEXTS, "category": ["pet", "pet", "bank", "sky"] * 5, "length": range(20)})


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_table_formats_give_the_same_vectors(frame: pd.DataFrame, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"messages{suffix}"
    write = {
        ".csv": lambda: frame.to_csv(path, index=False),
        ".tsv": lambda: frame.to_csv(path, index=False, sep="\t"),
        ".jsonl": lambda: frame.to_json(path, orient="records", lines=True),
        ".parquet": lambda: frame.to_parquet(path),
    }
    write[suffix]()
    store = embed(path, tmp_path / "store", text="body", label="category")
    assert (store.summary.embedded, store.summary.failed) == (20, 0)
    table = store.to_arrow()
    assert table["text"].to_pylist() == TEXTS
    assert table["label"].to_pylist() == frame["category"].to_list()
    assert table["length"].to_pylist() == list(range(20))
    np.testing.assert_allclose(store.to_numpy(), embed(TEXTS, tmp_path / "list").to_numpy(), rtol=1e-5, atol=1e-6)
    report = embedpipe.verify(store, sample=20, trust=True)
    assert report.ok
    assert report.compared == 20
    again = embed(path, tmp_path / "store", text="body", label="category")
    assert (again.summary.embedded, again.summary.reused) == (0, 20)


def test_frames_series_and_arrays_give_the_same_vectors(frame: pd.DataFrame, tmp_path: Path) -> None:
    expected = embed(TEXTS, tmp_path / "list").to_numpy()
    sources = {
        "frame": (frame, {"text": "body"}),
        "polars": (pl.from_pandas(frame), {"text": "body"}),
        "arrow": (pa.Table.from_pandas(frame), {"text": "body"}),
        "series": (frame["body"], {}),
        "polars_series": (pl.Series(TEXTS), {}),
        "array": (np.array(TEXTS), {}),
    }
    for name, (source, options) in sources.items():
        X = embed(source, tmp_path / name, **options).to_numpy()
        np.testing.assert_allclose(X, expected, rtol=1e-5, atol=1e-6)


def test_changed_rows_and_another_column_are_embedded(tmp_path: Path) -> None:
    path = tmp_path / "messages.csv"
    rows = pd.DataFrame({"id": [f"m{i}" for i in range(6)], "one": [f"abc {i}" for i in range(6)]})
    rows["two"] = [f"xyz {i}" for i in range(6)]  # as many bytes as in the other column
    rows.to_csv(path, index=False)
    embed(path, tmp_path / "store", text="one")
    rows.loc[2, "one"] = "something else"
    rows.to_csv(path, index=False)
    second = embed(path, tmp_path / "store", text="one")
    assert (second.summary.embedded, second.summary.reused) == (1, 5)
    assert second.to_arrow(["text"])["text"].to_pylist()[2] == "something else"
    other = embed(path, tmp_path / "store", text="two")
    assert other.summary.embedded == 6
    assert other.to_arrow(["text"])["text"].to_pylist() == [f"xyz {i}" for i in range(6)]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_rows_removed_from_a_table_are_pruned(tmp_path: Path, suffix: str) -> None:
    path, to = tmp_path / f"messages{suffix}", tmp_path / "store"
    rows = pl.DataFrame({"id": list("abcd"), "body": [f"text {i}" for i in range(4)]})
    for kept in ([0, 1, 2, 3], [0, 2, 3], [3, 0]):
        (rows[kept].write_csv if suffix == ".csv" else rows[kept].write_parquet)(path)
        store = embed(path, to, text="body", prune=True, force=True)
        assert store.ids() == sorted(rows[kept]["id"])
        assert store.summary.seen == len(kept)
    assert store.to_arrow(["text"])["text"].to_pylist() == ["text 0", "text 3"]


@pytest.fixture
def odd_texts(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """Return a folder of 300 usual texts, odd ones and bad ones, and the texts of the good files by id."""
    folder = tmp_path / "texts"
    good: dict[str, str] = {}

    def write(name: str, data: bytes, text: str | None = None) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if text is not None:
            good[name] = text

    for i in range(300):
        write(f"ham/{i:03d}.txt", f"a good text number {i}".encode(), f"a good text number {i}")
    write("odd/bom.txt", b"\xef\xbb\xbfwith a mark", "with a mark")
    write("odd/utf16.txt", "sixteen bits".encode("utf-16"), "sixteen bits")
    western = "Das Mädchen aß gestern schöne Äpfel für müde Gäste, und das Café schloß früh.\n" * 3
    write("odd/western.txt", western.encode("cp1252"), western)
    write("odd/emoji.txt", "🙂 👩‍👩‍👧 naïve".encode(), "🙂 👩‍👩‍👧 naïve")
    write("odd/right to left.txt", "שלום עולם".encode(), "שלום עולם")
    write("odd/long.txt", b"word " * 400_000, ("word " * 400_000))
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "spammer@evil.example", "me@example.org", "Win now"
    mail.set_content("Come and see.")
    mail.add_alternative("<html><body><b>Come</b> and see.</body></html>", subtype="html")
    write("odd/mail.eml", mail.as_bytes(), "Win now\n\nCome and see.")
    for i, data in enumerate(
        [b"", b"  \n\t ", "\u200b\ufeff".encode(), b"\x00\x01binary", b"\xff\xd8\xff\xe0\x00\x10JFIF"]
    ):
        write(f"bad/{i}.txt", data)
    write("bad/empty.eml", b"From: a@b.example\n\n")
    write("bad/huge.txt", b"x" * ((1 << 26) + 1))
    (folder / "bad/gone.txt").symlink_to(folder / "nowhere")
    (folder / "bad/folder.txt").mkdir()
    write("left/out.jpg", b"not for this backbone")
    return folder, good


def embed_folder(folder: Path, to: Path, *options: str) -> dict[str, Any]:
    """Embed texts on the command line, and return the summary. Failures of an earlier run give no exit code."""
    command = ["embed", str(folder), "--to", str(to), "--backbone", TINY_TEXT, "--modality", "text", "--json"]
    result = CliRunner().invoke(app, [*command, *options])
    summary = dict(json.loads(result.stdout))
    assert result.exit_code == (3 if summary["failed_new"] else 0), result.output
    return summary


def test_summary_counts_good_and_bad_texts(odd_texts: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    folder, good = odd_texts
    summary = embed_folder(folder, tmp_path / "store")
    assert (summary["embedded"], summary["failed"]) == (len(good), 9)
    assert summary["skipped"] == {".jpg": 1}
    assert summary["counts"]["truncated texts"] >= 1
    assert any("detected" in note and "1252" in note for note in summary["notes"])


def test_good_texts_are_embedded_and_bad_ones_become_failures(
    odd_texts: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    folder, good = odd_texts
    embed_folder(folder, tmp_path / "store")
    store = embedpipe.FeatureStore(tmp_path / "store")
    rows = {row["id"]: row for row in store.to_arrow(["id", "text", "label"]).to_pylist()}
    assert {id: row["text"].rstrip() for id, row in rows.items()} == {
        id: text[:EXCERPT].rstrip() for id, text in good.items()
    }
    assert "evil" not in rows["odd/mail.eml"]["text"]
    assert rows["ham/000.txt"]["label"] == "ham"
    failures = {row["id"]: row for row in store.failures().to_pylist()}
    assert set(failures) == {*(f"bad/{i}.txt" for i in range(5)), "bad/empty.eml", "bad/huge.txt", "bad/gone.txt",
                             "bad/folder.txt"}  # fmt: skip
    assert all(row["exception"] and row["message"] for row in failures.values())


def test_bad_texts_are_tried_again_until_repaired(odd_texts: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    folder, good = odd_texts
    embed_folder(folder, tmp_path / "store")
    again = embed_folder(folder, tmp_path / "store")
    assert (again["embedded"], again["reused"], again["failed"], again["failed_new"]) == (0, len(good), 9, 0)
    (folder / "bad/0.txt").write_bytes(b"repaired")
    (folder / "bad/1.txt").unlink()
    repaired = embed_folder(folder, tmp_path / "store", "--prune")
    assert (repaired["embedded"], repaired["reused"], repaired["failed"]) == (1, len(good), 7)


def test_command_line_works_with_texts(frame: pd.DataFrame, tmp_path: Path) -> None:
    path, store, head = tmp_path / "messages.csv", str(tmp_path / "store"), str(tmp_path / "head")
    frame.to_csv(path, index=False)
    tiny = ["--backbone", TINY_TEXT, "--modality", "text"]

    def run(*command: str) -> str:
        result = CliRunner().invoke(app, list(command))
        assert result.exit_code == 0, result.output
        return result.stdout

    run("embed", str(path), "--to", store, "--text", "body", "--label", "category", *tiny)
    assert "max_tokens" in run("info", store)
    assert json.loads(run("fit", store, "--to", head, "--json"))["task"] == "classification"
    run("predict", head, str(path), "--text", "body", "--to", str(tmp_path / "out.csv"), "--trust")
    predicted = pd.read_csv(tmp_path / "out.csv")
    assert (predicted["label"] == frame["category"]).mean() > 0.9
    files = [str(tmp_path / f"{name}.txt") for name in ("one", "two")]
    for file, text in zip(files, ("message 3 about money", "message 1 about cats"), strict=True):
        Path(file).write_text(text)
    run("predict", head, *files, "--to", str(tmp_path / "files.csv"), "--trust")
    assert pd.read_csv(tmp_path / "files.csv")["label"].tolist() == ["bank", "pet"]
    neighbours = json.loads(run("search", store, "about money", "-k", "2", "--json", "--trust"))["neighbours"]
    assert {row["query"] for row in neighbours} == {"about money"}
    assert all("money" in row["text"] for row in neighbours)
    assert "money" in run("search", store, "about money", "-k", "2", "--trust")


def test_texts_for_an_image_backbone_are_errors_with_a_hint(frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="text='COLUMN'"):
        embedpipe.embed(frame[["body"]].rename(columns={"body": "words"}), tmp_path / "store", backbone=TINY)
    (tmp_path / "a.txt").write_text("a text")
    with pytest.raises(SourceError, match="modality='text'"):
        embedpipe.embed(tmp_path, tmp_path / "store", backbone=TINY)
    store = embedpipe.embed(["hello there", "hello"], tmp_path / "store", backbone=TINY)
    assert ["pass modality='text'" in message for message in store.failures()["message"].to_pylist()] == [True, True]
    with pytest.raises(SourceError, match="a text to embed must be in a list"):
        embed("hello there", tmp_path / "texts")


def test_text_column_needs_a_backbone_for_texts(frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="timm/resnet18 embeds images, not texts"):
        embedpipe.embed(frame, tmp_path / "store", text="body", backbone="timm/resnet18", weights="none")


# Small commits and a slow network let kills hit every step.
SLOW = f"""
import sys, embedpipe
from embedpipe.embedding.writing import writer
writer.FLUSH_ROWS, writer.FLUSH_PAUSE = 8, 0
options = dict(backbone={TINY_TEXT!r}, modality="text", text="body", batch_size=4, engine="torch")
embedpipe.embed(sys.argv[1], sys.argv[2], **options)
"""


@pytest.mark.long
def test_ten_kills_lose_no_texts(tmp_path: Path) -> None:
    path = tmp_path / "messages.parquet"
    bodies = [f"text {i} of {'some ' * (i % 7)}words" for i in range(600)]
    pl.DataFrame({"body": bodies, "number": range(600)}).write_parquet(path, row_group_size=100)
    expected = embed(path, tmp_path / "whole", text="body")
    killed, log = tmp_path / "killed", tmp_path / "forwarded"
    env = {**os.environ, "TINY_SECONDS": "0.01", "TINY_LOG": str(log)}
    chance = random.Random(0)
    with Forks(env) as forks:
        for _ in range(10):
            forks.kill(f"import sys\nsys.argv = {['', str(path), str(killed)]}\n{SLOW}", log, chance.randint(1, 50))
    assert 0 < len(embedpipe.FeatureStore(killed)) < 600
    assert subprocess.run([sys.executable, "-c", SLOW, path, killed], env=env, timeout=120).returncode == 0
    store = embedpipe.FeatureStore(killed)
    assert store.to_arrow(expected.data_columns) == expected.to_arrow(expected.data_columns)
    np.testing.assert_allclose(store.to_numpy(), expected.to_numpy(), rtol=1e-4, atol=1e-6)
    # Each run begins with a trial of two texts. A kill loses 8 rows that wait for a commit, and 4 rows each before the
    # writer, in the queue and in the network.
    assert log.stat().st_size <= 600 + 11 * 2 + 10 * (8 + 3 * 4)
