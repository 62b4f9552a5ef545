"""Control characters and formulas in ids, labels, names and messages: no verb prints or writes them as they are."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import run
from conftest import TINY, write_photo
from rich.table import Table
from stored import clusters, make_store

from embedpipe.cli import show, tables
from embedpipe.cli.running.plain_text import PlainStream, escaped, plain_output

#: Clears the screen, colours, sets the title, rings, deletes, goes back, a C1 sequence, and reversed text.
HOSTILE = [
    "\x1b[2J\x1b[31mred",
    "\x1b]0;title\x07",
    "back\x08\x08\rover",
    "\x9b31mc1",
    "\u202egnp.exe",
    "[bold]markup[/]",
]
#: What no output may hold: all of these but line ends and tabs.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose ids, labels and text are hostile."""
    path = tmp_path_factory.mktemp("hostile") / "store"
    X, y = clusters(60)
    names = np.array(HOSTILE)
    make_store(path, X, id=[f"{names[i % 6]}{i}" for i in range(60)], label=names[y].tolist())
    return path


def assert_plain(result: Any, *codes: int) -> None:
    assert result.exit_code in (codes or (0,)), result.output
    assert not CONTROLS.search(result.stdout + result.stderr)


@pytest.mark.parametrize("flags", [[], ["-v"], ["--json"]], ids=["plain", "verbose", "json"])
def test_verbs_on_a_store_print_no_control_characters(store: Path, flags: list[str], tmp_path: Path) -> None:
    head, table = tmp_path / "head", tmp_path / "labels.parquet"
    for verb in (
        ["info", store],
        ["info", store, "--failures"],
        ["fit", store, "--head", "centroid", "--to", head, "--folds", "2"],
        ["predict", head, store, "--to", tmp_path / "p.csv"],
        ["search", store, f"{HOSTILE[0]}0", "-k", "6"],
        ["evaluate", store, "--heads", "centroid", "--folds", "2", "--repeats", "1"],
        ["compact", store],
    ):
        assert_plain(run(*verb, *flags))
    pq.write_table(pa.table({"id": [f"{HOSTILE[0]}0"], "label": [HOSTILE[0]]}), table)
    assert_plain(run("label", store, table, *flags))
    assert_plain(run("search", store, f"no such {HOSTILE[0]}", *flags), 2, 3)
    assert_plain(run("fit", store, "--label", HOSTILE[1], *flags), 2)
    assert_plain(run("info", tmp_path / "\x1b[31mnowhere", *flags), 2)


@pytest.mark.skipif(sys.platform == "win32", reason="names of files cannot hold control characters there")
def test_embed_of_hostile_file_names_prints_no_control_characters(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for number, name in enumerate(HOSTILE):
        folder = photos / name.replace("/", "")
        write_photo(folder / f"{name.replace('/', '')}.jpg", seed=number)
        (folder / f"broken {name.replace('/', '')}.png").write_bytes(b"no picture")
    to = tmp_path / "store"
    assert_plain(run("embed", photos, "--to", to, "--backbone", TINY, "-v"), 3)
    assert_plain(run("info", to), 0)
    assert_plain(run("info", to, "--failures"), 0)
    assert_plain(run("verify", to, "-v", "--trust"), 0, 1)


def test_markup_in_names_is_text(store: Path) -> None:
    shown = run("search", store, "[bold]markup[/]5", "-k", "1")
    assert "[bold]markup[/]5" in shown.stdout
    table = Table("[red]header[/]", box=None)
    table.add_row("[bold]cell[/] :smile:")
    with plain_output():
        show.print_table(table)


def test_json_holds_the_values_as_they_are(store: Path) -> None:
    answer = json.loads(run("search", store, f"{HOSTILE[0]}0", "-k", "1", "--json").stdout)
    (first, *_) = answer["neighbours"]
    assert first["query"] == f"{HOSTILE[0]}0"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünïcode and 日本語", "plain, ünïcode and 日本語"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x9b\x7f\x00", "\\x9b\\x7f\\x00"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u2028\udcff", "\\u2028\\udcff"),
        ("👨\u200d👩 क\u200cष a\xa0b", "👨\u200d👩 क\u200cष a\xa0b"),
    ],
)
def test_escapes_are_readable_and_scripts_stay_whole(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_streams_are_given_back_after_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr

    def fail() -> None:
        with plain_output(), plain_output():
            assert isinstance(sys.stdout, PlainStream)
            print("\x1b[31mred\n\tnext", flush=True)
            print(1 // 0)

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "\\x1b[31mred\n\tnext\n"


# ------------------------------------------------------------------ formulas in CSV

FORMULAS = ['=HYPERLINK("http://x")', "+cmd|' /C calc'!A0", "-2+3+cmd", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1+1"]
NO_FORMULAS = ["-1.5", "+3", "-1e-5", "-,5", "-", "a=b", "", "plain", "'=quoted", "1-2"]


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string()])
def test_formulas_get_an_apostrophe_in_csv_and_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], type_: pa.DataType
) -> None:
    texts = [*FORMULAS, *NO_FORMULAS, None]
    table = pa.table(
        {"id": pa.array(texts, type_), "=n": pa.array(range(-1, len(texts) - 1)), "x": [-0.5] * len(texts)}
    )
    tables.write_table(table, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8-sig") as file:
        header, *rows = csv.reader(file)
    assert [row[0] for row in rows] == [*(f"'{text}" for text in FORMULAS), *NO_FORMULAS, ""]
    assert [row[1:] for row in rows[:2]] == [["-1", "-0.5"], ["0", "-0.5"]]
    assert header == ["id", "'=n", "x"]
    assert f"{len(FORMULAS) + 1} cells that a spreadsheet would run as formulas" in capsys.readouterr().err


def test_parquet_and_plain_tables_are_not_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pa.table({"id": FORMULAS})
    tables.write_table(table, tmp_path / "t.parquet")
    assert pq.read_table(tmp_path / "t.parquet").equals(table)
    tables.write_table(pa.table({"id": NO_FORMULAS}), tmp_path / "t.csv")
    assert capsys.readouterr().err == ""


def test_predictions_of_hostile_ids(tmp_path: Path) -> None:
    X, y = clusters(60)
    labels = np.array(["=1+1", "@x", "-5"])[y]
    path = make_store(tmp_path / "store", X, id=[f"=cmd{i:02d}" for i in range(60)], label=labels.tolist()).path
    assert_plain(run("fit", path, "--head", "centroid", "--to", tmp_path / "head", "--folds", "0"))
    shown = run("predict", tmp_path / "head", path, "--to", tmp_path / "p.csv")
    assert "cells that a spreadsheet would run as formulas got ' in front" in shown.stderr
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["id"] == "'=cmd00"
    assert {row["label"] for row in rows} == {"'=1+1", "'@x", "-5"}
