"""The verbs forget and cache."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from command import run
from stored import clusters, make_store

from embedpipe import FeatureStore
from embedpipe._utils.cache import open_cache


@pytest.fixture
def store(tmp_path: Path) -> Path:
    X, y = clusters(30)
    make_store(tmp_path / "store", X, label=y)
    return tmp_path / "store"


def test_forget_erases_and_names_heads(store: Path, tmp_path: Path) -> None:
    assert run("fit", store, "--head", "knn", "--folds", "0", "--to", tmp_path / "head", "-q").exit_code == 0
    shown = run("forget", store, "row-003", "row-004")
    assert shown.exit_code == 0, shown.output
    assert "2 rows and 0 failures erased" in shown.stdout
    assert "no trace is left" in shown.stdout
    assert f"{tmp_path / 'head'} holds rows that it was fitted on" in shown.stdout
    assert "remove the items from the source too" in shown.stdout
    assert len(FeatureStore(store)) == 28
    facts = json.loads(run("forget", store, "row-005", "--json").stdout)
    assert (facts["rows"], facts["heads"]) == (1, [str(tmp_path / "head")])
    assert run("forget", store, "row-006", "-q").output == ""


def test_forget_of_an_unknown_id_is_refused(store: Path) -> None:
    result = run("forget", store, "row-999")
    assert result.exit_code == 2
    assert "holds the id 'row-999': nothing was erased" in result.stderr


@pytest.fixture
def filled_cache(store: Path) -> None:
    """A cache with the vectors of a store, and two results of 1 hour and 50 hours ago."""
    FeatureStore(store).mapped()
    folder = open_cache("evaluations")
    assert folder is not None
    for name, size, hours in (("0" * 32, 2_000_000, 50), ("1" * 32, 1_000_000, 1)):
        (folder / name).write_bytes(b"x" * size)
        os.utime(folder / name, (time.time() - hours * 3600,) * 2)


def test_empty_cache_has_no_entries() -> None:
    assert "0 entries" in run("cache").stdout


@pytest.mark.usefixtures("filled_cache")
def test_cache_is_listed() -> None:
    parts = [line.split() for line in run("cache", "--list").stdout.splitlines()]
    assert parts[2] == ["evaluations", "2", "3.0", "1.0", "h", "ago"]
    shown = run("cache", "--list", "-v").stdout
    assert [
        words for words in ("evaluations/0000", "50.0 h ago", "3 entries", "limit 50 GB") if words not in shown
    ] == []


@pytest.mark.usefixtures("filled_cache")
def test_cache_is_cleared_by_age_and_as_a_whole() -> None:
    assert "1 entry, 2.0 MB, deleted from" in run("cache", "--clear", "--older-than", "24").stdout
    facts = json.loads(run("cache", "--json").stdout)
    assert [entry["name"].partition("/")[0] for entry in facts["entries"]] == ["vectors", "evaluations"]
    run("cache", "--clear", "-q")
    assert json.loads(run("cache", "--list", "--json").stdout)["entries"] == []


def test_wrong_options_of_cache_are_refused() -> None:
    assert "exclude each other" in run("cache", "--list", "--clear").stderr
    assert "--older-than must be hours >= 0, got -1" in run("cache", "--clear", "--older-than", "-1").stderr
