"""The verb index."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import pytest
from command import run
from stored import clusters, make_store

from embedpipe.querying import building


@pytest.fixture
def store(tmp_path: Path) -> Path:
    make_store(tmp_path / "s", clusters(400)[0])
    return tmp_path / "s"


def test_index_prints_what_it_measured_and_searches_use_it(store: Path) -> None:
    shown = run("index", store, "--recall", "0.9")
    assert shown.exit_code == 0, shown.output
    for words in (f"{store}.index, layer features", "400 in 50 cells", "recall@10", "at least 0.", "ms a query; exact"):
        assert words in shown.stdout
    assert "queries a second" in shown.stdout
    assert "exact search takes under 50 ms a query: this store needs no index" in shown.stdout
    assert "a vector (8 bits a value)" in shown.stdout
    answer = run("search", store, "row-000", "-k", "2")
    assert "approximate, recall@10" in answer.stdout
    assert "exact, among 400 rows" in run("search", store, "row-000", "-k", "2", "--exact").stdout
    facts = json.loads(run("index", store, "--recall", "0.9", "--json").stdout)
    again = json.loads(run("index", store, "--recall", "0.9", "--json").stdout)
    assert facts["generation"] == again["generation"]
    anew = json.loads(run("index", store, "--recall", "0.9", "--rebuild", "--json").stdout)
    assert (anew["rows"], anew["generation"] != facts["generation"]) == (400, True)


def test_bad_options_name_the_command_line(store: Path) -> None:
    refused = run("index", store, "--recall", "1")
    assert (refused.exit_code, "--recall must be above 0 and at most 0.9995" in refused.stderr) == (2, True)
    refused = run("index", store, "--memory", "10B")
    assert (refused.exit_code, "--memory must be at least" in refused.stderr) == (2, True)


def test_trials_of_cells_are_counted_as_progress(store: Path) -> None:
    lines = [json.loads(line) for line in run("index", store, "--rebuild", "--log", "json").stderr.splitlines()]
    counts = [line["done"] for line in lines if line.get("step") == "choosing how many cells to search"]
    assert counts[-1] > 1


@pytest.mark.parametrize("kind", ["file", "link to nothing"])
def test_place_of_an_index_is_checked_before_it_is_built(store: Path, kind: str) -> None:
    place = Path(f"{store}.index")
    if kind == "file":
        place.write_text("mine")
    else:
        place.symlink_to(store.parent / "nowhere")
    with mock.patch.object(building, "make_cells", side_effect=AssertionError("cells were made")):
        refused = run("index", store)
    assert (refused.exit_code, "s.index' must be the folder of an index, or not exist" in refused.stderr) == (2, True)
