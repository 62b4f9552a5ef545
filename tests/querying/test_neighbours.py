"""`Neighbours`: the rows of a search, in one line, and as pictures in a notebook."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from page import Page
from PIL import Image
from stored import clusters, make_store

from embedpipe import SimilarityIndex, search
from embedpipe.querying import How, Neighbours


@pytest.fixture
def answers(tmp_path: Path) -> Neighbours:
    """Neighbours of two stored rows; each item's picture is missing."""
    X, _ = clusters(12)
    store = make_store(tmp_path / "store", X, label=["<b>"] * 12, uri=[str(tmp_path / f"{i}.jpg") for i in range(12)])
    return search(SimilarityIndex.load(store), ["row-000", "row-001"], k=3)


def made(rows: dict[str, list[Any]], **columns: list[Any]) -> Neighbours:
    """Return neighbours of made-up rows."""
    n = len(next(iter(rows.values())))
    nulls = pa.nulls(n, pa.string())
    table = {"query": ["q"] * n, "query_uri": nulls, "rank": [*range(1, n + 1)], "score": [0.9] * n, "error": nulls}
    return Neighbours(pa.table(table | rows | columns), "made.features", "features", How("exact"), n)


def test_len_and_iteration_are_over_rows(answers: Neighbours) -> None:
    assert len(answers) == len(list(answers)) == answers.table.num_rows == 6
    assert answers.to_pylist() == list(answers)
    assert answers.to_arrow() is answers.table
    assert [row["rank"] for row in answers] == [1, 2, 3, 1, 2, 3]


def test_to_pandas_has_the_columns_of_the_table(answers: Neighbours) -> None:
    frame = answers.to_pandas()
    assert list(frame.columns) == answers.table.column_names
    assert len(frame) == 6


def test_repr_is_one_line(answers: Neighbours) -> None:
    assert re.fullmatch(
        r"Neighbours\(queries=2, rows=6, failed=0, layer='features', how='exact', searched=12, store='.*/store'\)",
        repr(answers),
    )


def test_failed_names_queries_without_neighbours(tmp_path: Path) -> None:
    neighbours = made({"id": ["a", None], "uri": [None, None]}, rank=[1, None], score=[0.9, None], error=[None, "bad"])
    assert neighbours.failed == [("q", "bad")]
    assert neighbours.n_queries == 2
    (tmp_path / "found.html").write_text(neighbours._repr_html_())
    assert "bad" in Page(tmp_path / "found.html").words


def test_html_escapes_names_and_says_which_pictures_are_missing(answers: Neighbours) -> None:
    html = answers._repr_html_()
    assert "<b>" not in html
    assert html.count("&lt;b&gt;") == 8  # two queries, three neighbours of each
    assert html.count("cannot be read") == 8


def test_html_holds_small_jpegs(tmp_path: Path) -> None:
    Image.new("RGB", (600, 300), (128, 0, 128)).save(tmp_path / "a.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    html = made(
        {"id": ["a", "b", "c"], "uri": [str(tmp_path / "a.png"), str(tmp_path / "broken.jpg"), None]}
    )._repr_html_()
    (data,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (96, 48)
    assert html.count("cannot be read") == 1
    assert html.count("no picture") == 1


def test_html_shows_the_beginning_of_texts() -> None:
    html = made({"id": ["a"], "uri": [None]}, query=["win a <prize>"], text=["word " * 100])._repr_html_()
    assert "win a &lt;prize&gt;" in html
    assert "word word" in html
    assert len(html) < 700


def test_html_says_how_many_near_duplicates_an_answer_stands_for() -> None:
    html = made({"id": ["a", "b"], "uri": [None, None]}, near_duplicates=[3, 0])._repr_html_()
    assert "0.900 +3 alike" in html
    assert html.count("alike") == 1


def test_html_shows_twelve_queries_and_five_neighbours_of_each() -> None:
    n = 15 * 7
    rows = {"id": [f"id{i}." for i in range(n)], "uri": [None] * n}
    html = made(rows, query=[f"q{i // 7}" for i in range(n)], rank=[i % 7 + 1 for i in range(n)])._repr_html_()
    assert html.count("id") == 12 * 5
    assert "and 3 more queries" in html
