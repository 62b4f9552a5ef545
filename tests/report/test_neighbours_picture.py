"""The picture of queries and their neighbours: layout, colours and signs of labels, unreadable pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pixels import area, pixels

from embedpipe.errors import UsageError
from embedpipe.report import draw_neighbours
from embedpipe.report.drawing.canvas import PALE
from embedpipe.report.drawing.colours import PALETTE
from embedpipe.report.pictures.neighbours import EDGE, OTHER, SAME, _digits

PAPER = (250, 250, 248)
#: Of the first query's picture in a wide row, in pixels from the upper left corner.
QUERY = (slice(200, 260), slice(100, 160))


@pytest.fixture
def make_found(tmp_path: Path) -> Callable[..., pa.Table]:
    """Return a function that makes a table of neighbours, with a purple picture for each item."""
    uri = tmp_path / "purple.png"
    Image.new("RGB", (60, 30), (128, 0, 128)).save(uri)

    def make(queries: int = 2, k: int = 3, **columns: Any) -> pa.Table:
        n = queries * k
        table = {
            "query": [f"q{i // k}.jpg" for i in range(n)],
            "query_uri": [str(uri)] * n,
            "query_label": ["cat"] * n,
            "rank": [i % k + 1 for i in range(n)],
            "score": [1 - i % k / 10 for i in range(n)],
            "id": [f"{i}.jpg" for i in range(n)],
            "uri": [str(uri)] * n,
            "label": ["cat" if i % k == 0 else "dog" for i in range(n)],
        }
        return pa.table(table | columns)

    return make


@pytest.mark.parametrize(
    ("queries", "k"), [(1, 1), (2, 5), *(pytest.param(*shape, marks=pytest.mark.long) for shape in ((3, 12), (14, 15)))]
)
def test_margins_are_empty(tmp_path: Path, make_found: Callable[..., Any], queries: int, k: int) -> None:
    neighbours = make_found(
        queries,
        k,
        label=["a long name " * 9] * queries * k,
        query=[f"{i // k}{'/a/long/path' * 20}" for i in range(queries * k)],
    )
    to = draw_neighbours(neighbours, tmp_path / "new" / "n.png", title="A title " * 50)
    picture = pixels(to)
    inside = (picture != PAPER).any(axis=2)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    assert min(rows[0], columns[0]) >= EDGE - 6
    assert picture.shape[0] - rows[-1] >= EDGE
    assert picture.shape[1] - columns[-1] >= EDGE
    assert picture.shape[1] < 2000
    assert sorted(path.name for path in to.path.parent.iterdir()) == ["n.png"]


def test_pictures_keep_their_shape(tmp_path: Path, make_found: Callable[..., Any]) -> None:
    purple = (pixels(draw_neighbours(make_found(1, 1), tmp_path / "n.png")) == (128, 0, 128)).all(axis=2)
    columns = np.flatnonzero(purple.any(axis=0))
    first, second = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    for part in (first, second):
        height = purple[:, part].any(axis=1).sum()
        assert len(part) == pytest.approx(2 * height, abs=2)
    assert len(first) > len(second) > 150


def test_frames_show_whether_labels_agree(tmp_path: Path, make_found: Callable[..., Any]) -> None:
    def areas(**columns: Any) -> tuple[int, int, int]:
        to = draw_neighbours(make_found(2, 3, **columns), tmp_path / "n.png")
        return area(to, SAME.colour), area(to, OTHER.colour), area(to, PALE)

    same, other, pale = areas()
    assert other == pytest.approx(2 * same, rel=0.05)
    assert pale == 0
    assert areas(label=["cat"] * 6)[0] == pytest.approx(3 * same, rel=0.05)
    assert areas(label=[None, float("nan"), *[1.0] * 4], query_label=[1.0] * 6)[2] > 1000
    # numbers agree by value, whatever their type
    assert areas(label=[1] * 6, query_label=[1.0] * 6)[1] < 300


def test_without_query_labels_each_label_has_a_colour(tmp_path: Path, make_found: Callable[..., Any]) -> None:
    neighbours = make_found(1, 3, query_label=pa.nulls(3), label=["a", "b", "c"])
    for table in (neighbours, neighbours.drop_columns("query_label")):
        to = draw_neighbours(table, tmp_path / "n.png")
        assert all(area(to, colour) > 2000 for colour in PALETTE[:3])
    plain = draw_neighbours(neighbours.drop_columns(["query_label", "label"]), tmp_path / "plain.png")
    assert not any(area(plain, colour) for colour in PALETTE)
    assert area(plain, PALE) > 1000


def test_unreadable_picture_is_an_empty_frame(tmp_path: Path, make_found: Callable[..., Any]) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    good = str(tmp_path / "purple.png")
    whole = draw_neighbours(make_found(1, 4), tmp_path / "whole.png")
    parts = make_found(1, 4, uri=[str(broken), None, str(tmp_path / "gone.jpg"), good])
    to = draw_neighbours(parts, tmp_path / "n.png")
    purple = "#800080"
    assert 0 < area(to, purple) < area(whole, purple) * 0.6
    assert area(to, "white") > 3 * area(whole, "white") + 20_000
    vector = make_found(1, 4, query=["vector 0"] * 4, query_uri=pa.nulls(4, pa.string()), uri=pa.nulls(4, pa.string()))
    assert area(draw_neighbours(vector, tmp_path / "v.png"), purple) == 0
    assert (pixels(tmp_path / "v.png")[QUERY] == 255).all(axis=2).any()


@pytest.mark.long
def test_at_most_12_queries_and_neighbours_are_drawn(tmp_path: Path, make_found: Callable[..., Any]) -> None:
    many, twelve = (pixels(draw_neighbours(make_found(n, n), tmp_path / f"{n}.png", title="found")) for n in (15, 12))
    assert many.shape == twelve.shape
    rows = np.flatnonzero((many != twelve).any(axis=(1, 2)))
    assert len(rows)
    assert rows[0] > EDGE - 6
    title = rows[rows < EDGE + 30]
    assert len(title)  # which says what was cut


def test_queries_without_neighbours_and_of_the_same_name(tmp_path: Path, make_found: Callable[..., Any]) -> None:
    def height(**columns: Any) -> int:
        return len(pixels(draw_neighbours(make_found(2, 3, **columns), tmp_path / "n.png")))

    two = height()
    assert height(query=["vector 0"] * 6) == two
    one = height(rank=[1, 2, 3, 4, 5, 6], query=["vector 0"] * 6)
    assert one < two
    nulls = {"score": [None] * 3 + [0.9] * 3, "id": [None] * 3 + ["a"] * 3}
    three_without = {"rank": [None, None, None, 1, 2, 3], "error": ["cannot be read"] * 3 + [None] * 3}
    # the three are lines below the one that has neighbours
    assert one < height(**nulls, **three_without) < two
    first = pixels(tmp_path / "n.png")[: one - 20]
    height(rank=[1, 2, 3, 4, 5, 6], query=["q1.jpg"] * 6, id=["a"] * 6)
    given, expected = pixels(tmp_path / "n.png"), first[200:360, 100:300]
    # matplotlib 3.10 puts pictures a pixel higher in a figure of another height
    assert any((given[200 - up : 360 - up, 100:300] == expected).all() for up in (0, 1))


def test_odd_text(tmp_path: Path, make_found: Callable[..., Any]) -> None:
    names = ["$x_1$", "日本語", "tab\tand\nline", "العربية", "", "🐈"]
    neighbours = make_found(6, 1, label=names, id=names, query=[f"{i}{name}" for i, name in enumerate(names)])
    to = draw_neighbours(neighbours.set_column(6, "uri", pa.nulls(6, pa.string())), tmp_path / "n.png", title="$a")
    assert area(to, OTHER.colour) > 1000


def test_scores_get_a_third_decimal_if_two_hide_a_difference() -> None:
    assert _digits([[0.91, 0.85], [0.91, 0.91]]) == 2
    assert _digits([[0.91, 0.85], [0.914, 0.912]]) == 3


def test_bad_arguments_are_refused(tmp_path: Path, make_found: Callable[..., Any]) -> None:
    neighbours = make_found()
    for table, name, message in (
        (neighbours, "n.jpg", r"must end in \.png"),
        (neighbours.slice(0, 0), "n.png", "no query has neighbours"),
        (neighbours.set_column(3, "rank", pa.nulls(6, pa.int64())), "n.png", "no query has neighbours"),
        (neighbours.rename_columns({"score": "scores"}), "n.png", "'score'; did you mean 'scores'"),
        (neighbours.drop_columns("uri"), "n.png", "no column 'uri'"),
    ):
        with pytest.raises(UsageError, match=message):
            draw_neighbours(table, tmp_path / name)
        assert not (tmp_path / name).exists()


def test_texts_are_written_in_place_of_pictures(tmp_path: Path, make_found: Callable[..., Any]) -> None:
    nothing = pa.nulls(2, pa.string())
    neighbours = make_found(1, 2, query=["some words"] * 2, query_uri=nothing, text=["a few words " * 60, "short"])
    written = pixels(draw_neighbours(neighbours, tmp_path / "texts.png"))
    short = pixels(draw_neighbours(neighbours.set_column(8, "text", [["."] * 2]), tmp_path / "short.png"))
    # the cards are as high as the longest text
    assert len(short) < len(written) - 80
    assert (written < 100).all(axis=2).sum() > (short < 100).all(axis=2).sum() + 1000
    of_file = neighbours.append_column("query_text", pa.array(["the text of a file " * 20] * 2))
    longer = pixels(draw_neighbours(of_file, tmp_path / "file.png"))
    assert (longer < 100).all(axis=2).sum() > (written < 100).all(axis=2).sum() + 500
