"""The verb search: queries, filters and feedback, what it prints, and its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from command import run
from stored import clusters, make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("searching") / "made.features"
    X, y = clusters(60)
    X[30] = X[0] + 1e-4
    make_store(path, X, label=[f"class {i}" for i in y], width=range(60))
    return path


def test_where_like_unlike_and_distinct_in_one_table(store: Path, tmp_path: Path) -> None:
    to = tmp_path / "found.parquet"
    feedback = ("--like", "row-000", "--like", "row-003", "--unlike", "row-001")
    done = run("search", store, *feedback, "--where", "width < 40", "--distinct", "-k", "4", "--to", to)
    assert done.exit_code == 0, done.output
    heading, *lines, last = done.stdout.splitlines()
    assert heading.split() == ["query", "rank", "score", "id", "near-duplicates", "label"]
    assert len(lines) == 4
    assert all("like row-000, like row-003, unlike row-001" in line for line in lines)
    assert last == "exact, among 40 rows"
    table = pq.read_table(to)
    assert table["rank"].to_pylist() == [1, 2, 3, 4]
    assert max(table["width"].to_pylist()) < 40
    assert not {"row-000", "row-001", "row-003"} & {*table["id"].to_pylist()}


def test_distinct_counts_what_it_leaves_out(store: Path) -> None:
    plain = json.loads(run("search", store, "row-003", "-k", "59", "--json").stdout)["neighbours"]
    distinct = json.loads(run("search", store, "row-003", "-k", "59", "--distinct", "--json").stdout)["neighbours"]
    assert {"row-000", "row-030"} <= {row["id"] for row in plain}
    assert len({"row-000", "row-030"} & {row["id"] for row in distinct}) == 1
    assert len(distinct) + sum(row["near_duplicates"] for row in distinct) == len(plain)


def test_several_vectors_of_a_file_and_a_bad_query_among_them(store: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "two.npy", np.eye(8, dtype=np.float16)[:2])
    np.save(tmp_path / "narrow.npy", np.ones((2, 7)))
    np.save(tmp_path / "hole.npy", np.array([np.ones(8), np.full(8, np.nan)]))
    files = [tmp_path / name for name in ("two.npy", "narrow.npy", "hole.npy")]
    done = run("search", store, *files, "row-001", "no such", "-k", "1", "--json")
    assert done.exit_code == 3
    answer = json.loads(done.stdout)
    assert answer["status"] == "partly failed"
    assert (answer["how"]["method"], answer["how"]["searched"]) == ("exact", 60)
    rows = answer["neighbours"]
    assert [row["query"] for row in rows if not row["error"]] == ["two.npy 0", "two.npy 1", "row-001"]
    for words in (
        "narrow.npy must have shape (8,)",
        "hole.npy must be finite",
        "no such: ",
        "cannot be searched by words",
    ):
        assert words in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "search needs a query, or --like: give an id, an image, a text or a vector"),
        (("--unlike", "row-001"), "--unlike must come with a query, or with --like"),
        (("row-001", "--where", "label = cat"), "has no column 'cat' (--where)"),
        (("row-001", "--where", "width > 'wide'"), "--where cannot compare width, which is a number, with 'wide'"),
        (("row-001", "--like", "nobody"), "--like and --unlike must be readable; 'nobody': "),
    ],
)
def test_bad_usage_names_the_option(store: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run("search", store, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_missing_answers_are_reported_and_not_drawn(store: Path, tmp_path: Path) -> None:
    done = run("search", store, "row-001", "--where", "width < 0", "--picture", tmp_path / "none.png")
    assert done.exit_code == 0
    assert "exact, among 0 rows" in done.stdout
    assert "no row of" in done.stderr
    assert "none.png was not drawn: no query has neighbours" in done.stderr
    assert not (tmp_path / "none.png").exists()
