"""The confusion matrix: drawn for any number of classes and any names, its colours true to the counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pixels import area, pixels

from embedpipe.errors import UsageError
from embedpipe.report import draw_confusion
from embedpipe.report.drawing.canvas import fit_text, font_families, text_width
from embedpipe.report.drawing.wording import percent
from embedpipe.report.pictures.confused_pairs import find_pairs
from embedpipe.report.pictures.confusion import EDGE, SHADES
from embedpipe.report.pictures.confusion_matrix import MOST_CONFUSED, Matrix, short_number

PAPER = (250, 250, 248)


def some_counts(n: int, right: int = 30) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 3, (n, n)) + right * np.eye(n, dtype=int)


@pytest.mark.parametrize("n", [1, 2, 25, *(pytest.param(n, marks=pytest.mark.long) for n in (10, 24, 52, 200))])
def test_margins_are_empty(tmp_path: Path, n: int) -> None:
    names = [f"{'a long name of a class ' * (i % 3)}{i}" for i in range(n)]
    to = draw_confusion(some_counts(n), names, tmp_path / "new" / "m.png", title="A title " * 40, subtitle="x " * 400)
    picture = pixels(to)
    inside = (picture != PAPER).any(axis=2)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    assert min(rows[0], columns[0]) >= EDGE - 6
    assert picture.shape[0] - rows[-1] >= EDGE - 12
    assert picture.shape[1] - columns[-1] >= EDGE - 12
    assert picture.shape[0] < 1700
    assert picture.shape[1] < 1700
    assert sorted(path.name for path in to.path.parent.iterdir()) == ["m.png"]


def test_colours_show_shares_of_the_rows(tmp_path: Path) -> None:
    to = draw_confusion([[3, 1], [0, 8]], ["a", "b"], tmp_path / "m.png")
    assert all(area(to, SHADES.to_rgba(share)) > 20_000 for share in (0.75, 0.25, 1.0))
    assert area(to, SHADES.to_rgba(0.5)) < 2_000
    turned = draw_confusion([[3, 0], [1, 8]], ["a", "b"], tmp_path / "t.png")
    assert area(turned, SHADES.to_rgba(0.25)) < 2_000


@pytest.mark.parametrize("n", [2, *(pytest.param(n, marks=pytest.mark.long) for n in (30, 100))])
def test_picture_depends_only_on_the_counts(tmp_path: Path, n: int) -> None:
    counts = some_counts(n)
    first, again = (draw_confusion(counts, range(n), tmp_path / f"{name}.png").path.read_bytes() for name in ("a", "b"))
    counts[0, 1] += 40
    assert first == again
    assert draw_confusion(counts, range(n), tmp_path / "c.png").path.read_bytes() != first


def test_odd_names_and_classes_without_items(tmp_path: Path) -> None:
    names = ["$x_1$", "$", "日本語", "кошка", "العربية", "tab\tand\nline", " ", "\udcff", "🐈", None, 1 / 3, 2]
    counts = some_counts(len(names)) * 1_000_000
    counts[3], counts[:, 4] = 0, 0
    to = draw_confusion(counts, names, tmp_path / "m.png", title="$a", subtitle="日本語\n$b")
    # the row and the column of zeros, but for their numbers
    assert area(to, SHADES.to_rgba(0.0)) > 2 * 60 * 60 * len(names)


def test_the_most_confused_of_many_classes() -> None:
    counts = np.diag(np.full(100, 50))
    counts[7, 90], counts[8, 3] = 20, 10
    matrix = Matrix.of(counts, [f"c{i}" for i in range(100)])
    assert len(matrix.names) == MOST_CONFUSED
    assert matrix.names[:4] == ["c7", "c90", "c3", "c8"]
    assert matrix.recall[0] == 50 / 70
    assert matrix.precision[1] == 50 / 70
    assert matrix.counts[0, 1] == 20
    assert matrix.accuracy == 5000 / 5030
    # what goes to classes that are not drawn still counts
    spread = np.diag(np.full(100, 50))
    spread[0] = 1
    assert Matrix.of(spread, range(100)).recall[0] == 1 / 100


def test_numbers_as_text() -> None:
    assert [percent(x, 0) for x in (0, 0.001, 0.004, 0.5, 0.996, 1, np.nan)] == [
        *("0\xa0%", "<1\xa0%", "<1\xa0%", "50\xa0%", ">99\xa0%", "100\xa0%", "—"),
    ]
    assert [percent(x) for x in (0.0001, 0.1234, 0.9999)] == ["<0.1\xa0%", "12.3\xa0%", ">99.9\xa0%"]
    assert [short_number(x) for x in (999, 1200, 45_600, 7 * 10**6, 3 * 10**9)] == [
        "999",
        "1.2k",
        "46k",
        "7.0M",
        "3.0G",
    ]


def test_text_is_made_to_fit() -> None:
    path = "folder/" * 30 + "last.jpg"
    for middle, start, end in ((False, "folder/fol", "…"), (True, "folder", "last.jpg")):
        short = fit_text(path, 150, 10, middle=middle)
        assert short.startswith(start)
        assert short.endswith(end)
        assert 120 < text_width(short, 10) <= 150
    assert fit_text("short\n one", 150, 10) == "short one"
    assert fit_text("iiii" * 10**6, 100, 10).startswith("iiiii")
    assert fit_text("日本語", 1, 10) == "…"
    assert font_families()[0] == "DejaVu Sans"


def test_worst_pairs_are_shown_with_their_items(tmp_path: Path) -> None:
    uris = []
    for i, colour in enumerate(("#800080", "#008000")):
        uris.append(str(tmp_path / f"{i}.png"))
        Image.new("RGB", (60, 30), colour).save(uris[-1])
    mistakes = pa.table({"actual": ["a", "a", "b"], "predicted": ["b", "b", "a"], "uri": [*uris, "gone.png"]})
    counts = [[3, 2], [1, 8]]
    plain = pixels(draw_confusion(counts, ["a", "b"], tmp_path / "plain.png"))
    shown = pixels(draw_confusion(counts, ["a", "b"], tmp_path / "shown.png", mistakes=mistakes))
    assert len(shown) > len(plain) + 200
    assert (shown[: len(plain) - EDGE] == plain[: len(plain) - EDGE]).all()
    for colour in ((128, 0, 128), (0, 128, 0)):
        assert (shown == colour).all(axis=2).sum() > 4000
    words = pa.table({**mistakes.to_pydict(), "text": ["one text", "another text", "a third"]})
    texts = pixels(draw_confusion(counts, ["a", "b"], tmp_path / "texts.png", mistakes=words))
    assert not (texts == (128, 0, 128)).all(axis=2).any()
    matrix = Matrix.of(counts, ["a", "b"])
    assert [(pair.actual, pair.count, len(pair.texts)) for pair in find_pairs(matrix, words)] == [
        ("a", 2, 2),
        ("b", 1, 1),
    ]
    with pytest.raises(UsageError, match="no column 'uri'; did you mean 'uris'"):
        find_pairs(matrix, mistakes.rename_columns({"uri": "uris"}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"to": "m.pdf"}, r"must end in \.png"),
        ({"counts": [[1, 2]]}, r"shape \(1, 2\)"),
        ({"counts": [1, 2]}, "must be square"),
        ({"counts": [[1, -2], [0, 1]]}, "must be >= 0, got -2"),
        ({"counts": [[0.5, 0.5], [0, 1]]}, "must be integers, not shares, got float64"),
        ({"counts": np.zeros((0, 0), int), "classes": []}, "at least one item"),
        ({"counts": [[0, 0], [0, 0]]}, "at least one item"),
        ({"classes": ["a"]}, "got 1 names for 2 rows"),
    ],
)
def test_bad_arguments_are_refused(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    given = {"counts": [[1, 2], [3, 4]], "classes": ["a", "b"], "to": "m.png"} | arguments
    to = tmp_path / given.pop("to")
    with pytest.raises(UsageError, match=message):
        draw_confusion(given["counts"], given["classes"], to)
    assert not to.exists()
