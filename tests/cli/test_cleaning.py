"""The verbs clean and shift: for people, for programs, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command import run
from stored import clusters, make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    X, y = clusters(90, spread=0.4)
    X[60:] += 2
    labels = [f"class {number}" for number in y]
    labels[4] = "class 0" if y[4] else "class 1"
    path = tmp_path_factory.mktemp("cleaning") / "store"
    make_store(path, X, label=labels, split=["train"] * 60 + ["test"] * 30)
    return path


def test_clean_prints_counts_and_writes_files(store: Path, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("findings.csv", "keep.csv")]
    shown = run("clean", store, "--to", files[0], "--write-keep", files[1], "--near-duplicates", "0.9999")
    assert shown.exit_code == 0, shown.output
    assert "in 90 rows" in shown.stdout
    assert "row-004: class " in shown.stdout
    assert all(path.exists() for path in files)
    values = json.loads(run("clean", store, "--json", "--near-duplicates", "0.9999").stdout)
    assert values["counts"]["label error"] == sum(row["kind"] == "label error" for row in values["findings"]) > 0


def test_shift_has_exit_code_1_where_rows_moved(store: Path, tmp_path: Path) -> None:
    shown = run("shift", store, "--to", tmp_path / "moved.csv")
    assert shown.exit_code == 1, shown.output
    assert shown.stdout.startswith("SHIFTED: 60 old and 30 new rows")
    assert "to expect on new rows" in shown.stdout
    assert (tmp_path / "moved.csv").exists()
    assert shown.stdout.splitlines()[-1] == str(tmp_path / "moved.csv")
    assert run("shift", store, "--splits", "Training,test").exit_code == 1  # other spellings of the split's names


def test_shift_of_the_same_rows_has_exit_code_0(store: Path) -> None:
    same = run("shift", store, "--splits", "train", "--splits", "train", "--json")
    assert same.exit_code == 0
    values = json.loads(same.stdout)
    assert (values["status"], values["error"]) == ("done", None)
    assert (values["shifted"], values["p_value"], len(values["moved"])) == (False, pytest.approx(1, abs=0.2), 60)
    assert np.isfinite(values["auc"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("clean", "STORE", "--to", "findings.pdf"), ".pdf"),
        (("clean", "STORE", "--near-duplicates", "2"), "--near-duplicates must be a cosine in (0, 1], got 2.0"),
        (("shift", "STORE", "--splits", "train"), "--splits must be two splits, got 1: train"),
        (("shift", "STORE", "--label", "nope"), "has no column 'nope' (--label)"),
        (("shift", "STORE", "--seed", "-1"), "--seed must be >= 0, got -1"),
        (("clean", "STORE", "--seed", "-1"), "--seed must be >= 0, got -1"),
        (("next", "STORE", "--label", "id"), "some rows must have no id, and all 90 of"),
        (("clean", __file__), "test_cleaning.py', but a file: create one with"),
        (("shift", "nowhere"), "nowhere"),
    ],
)
def test_bad_usage_is_one_line_with_exit_code_2(store: Path, words: tuple[str, ...], message: str) -> None:
    shown = run(*[store if word == "STORE" else word for word in words], "-q")
    assert shown.exit_code == 2
    assert message in shown.stderr


def test_next_writes_a_table_to_fill(tmp_path: Path) -> None:
    X, y = clusters(60)
    labels = [f"class {number}" if row < 40 else None for row, number in enumerate(y)]
    make_store(tmp_path / "store", X, label=labels)
    shown = run("next", tmp_path / "store", "-n", "4", "--to", tmp_path / "next.csv")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith("4 items of 20 without a label; 40 have one")
    assert shown.stdout.splitlines()[-1] == str(tmp_path / "next.csv")
    assert (tmp_path / "next.csv").read_text().splitlines()[0] == '"id","reason","margin","uri","label"'
    given = run("label", tmp_path / "store", tmp_path / "next.csv")  # nothing is filled in
    assert given.exit_code == 0
    assert "no 'label' any more: 4 rows, as column 'label' is empty there" in given.stdout
    values = json.loads(run("next", tmp_path / "store", "-n", "4", "--json").stdout)
    assert len(values["items"]) == 4


def test_next_leaves_the_column_of_the_labels_to_fill(tmp_path: Path) -> None:
    X, _ = clusters(20)
    make_store(
        tmp_path / "store", X, ripe=["yes"] * 8 + ["no"] * 8 + [None] * 4, uri=[f"{row}.jpg" for row in range(20)]
    )
    for label, columns in (("ripe", '"id","reason","margin","uri","ripe"'), ("uri", "")):
        shown = run("next", tmp_path / "store", "--label", label, "--to", tmp_path / f"{label}.csv")
        assert (shown.exit_code == 0) == bool(columns), shown.output
        assert not columns or (tmp_path / f"{label}.csv").read_text().splitlines()[0] == columns


@pytest.mark.parametrize("verb", ["clean", "next", "shift", "clusters"])
def test_changed_cells_are_said_whatever_else_is_printed(tmp_path: Path, verb: str) -> None:
    X, y = clusters(60)
    labels = [f"class {number}" if row % 3 else None for row, number in enumerate(y)]
    split = ["train" if row < 30 else "test" for row in range(60)]
    store = make_store(tmp_path / "store", X, id=[f"={row:02d}" for row in range(60)], label=labels, split=split)
    for how in ("--json", "--quiet"):
        to = (
            [tmp_path / "rows.csv"]
            if verb != "clean"
            else [tmp_path / "findings.csv", "--write-keep", tmp_path / "rows.csv"]
        )
        shown = run(verb, store.path, "--to", *to, how)
        assert "rows.csv: " in shown.stderr
        assert "cells that a spreadsheet would run as formulas got ' in front" in shown.stderr
