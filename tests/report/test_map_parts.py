"""Parts of the map: colours that all readers can tell apart, doubtful labels, places of names, the page."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import TINY
from page import ODD, Page, open_browser

import embedpipe
from embedpipe.report.drawing.colours import GREY, MARKERS, PALETTE, colour_labels
from embedpipe.report.drawing.wording import natural_key
from embedpipe.report.pictures.label_votes import find_doubts
from embedpipe.report.pictures.map_names import place_names

#: What readers with normal vision, protanopia, deuteranopia and tritanopia see of linear RGB: Machado et al., 2009.
VISIONS = (
    np.eye(3),
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
)
#: From linear RGB to OKLab: Ottosson, 2020.
TO_CONES = [[0.41222, 0.53633, 0.05145], [0.21190, 0.68070, 0.10740], [0.08830, 0.28172, 0.62998]]
TO_LAB = [[0.21045, 0.79362, -0.00407], [1.97800, -2.42859, 0.45059], [0.02590, 0.78277, -0.80868]]


def test_palette_is_distinct_for_all_readers() -> None:
    colours = [*PALETTE, GREY, "#FFFFFF"]
    rgb = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    least = []
    for vision in VISIONS:
        seen = np.clip(linear @ np.array(vision).T, 0, 1)
        lab = 100 * np.cbrt(seen @ np.array(TO_CONES).T) @ np.array(TO_LAB).T
        apart = np.linalg.norm(lab[:, None] - lab[None], axis=2)
        np.fill_diagonal(apart, np.inf)
        least.append(apart.min())
    assert least[0] > 12
    assert min(least) > 8


def test_ten_hues_come_before_shapes_in_natural_order() -> None:
    names = [f"img{i}" for i in range(1, 13)]
    legend = colour_labels(pa.chunked_array([sorted(names)]), 12).legend
    assert [entry.name for entry in legend] == names
    assert [entry.colour for entry in legend[:10]] == list(PALETTE)
    assert [entry.marker for entry in legend] == [MARKERS[0]] * 10 + [MARKERS[1]] * 2
    odd = ["", "10", "9", "a", "A", "b", "img02", "img2", "img10", "9" * 5000, "²"]
    assert sorted(sorted(odd), key=natural_key)[:3] == ["", "9", "10"]
    assert sorted(odd, key=natural_key).index("img2") < sorted(odd, key=natural_key).index("img10")


def test_a_label_that_its_neighbours_contradict_is_doubtful() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], [40, 40, 5])
    vectors = (np.eye(3, 16)[group] + 0.05 * rng.normal(size=(85, 16))).astype(np.float32)
    labels: list[str | None] = ["abc"[i] for i in group]
    assert find_doubts(vectors, labels) == []
    labels[3], labels[50], labels[84], labels[7] = "b", "a", "a", None
    doubts = find_doubts(vectors, labels)
    # of the last, only four neighbours could agree; the smallest class is not judged
    assert {(doubt.row, doubt.label) for doubt in doubts} == {(3, "a"), (50, "b")}
    assert all(8 <= doubt.votes <= 10 for doubt in doubts)
    assert find_doubts(vectors[:8], labels[:8]) == []
    # copies of one item do not vote on themselves
    same = np.ones((40, 4), np.float32)
    assert [doubt.row for doubt in find_doubts(same, ["a"] * 20 + ["b"] * 20) if doubt.votes > 10] == []


def test_names_are_in_their_class_and_apart() -> None:
    rng = np.random.default_rng(1)
    size = np.array([1000.0, 600.0])
    points = np.concatenate([rng.normal((200, 300), 30, (50, 2)), rng.normal((230, 310), 30, (50, 2))])
    rows = {"a": np.arange(50), "b": np.arange(50, 100), "edge": np.array([100])}
    points = np.concatenate([points, [[2.0, 598.0]]])
    sizes = {"a": (80.0, 20.0), "b": (80.0, 20.0), "edge": (120.0, 20.0)}
    places = place_names(points, rows, sizes, size, ringed=[0])
    assert set(places) == set(rows)
    (ax, ay), (bx, by) = places["a"], places["b"]
    assert abs(ax - bx) >= 80 or abs(ay - by) >= 20
    assert np.hypot(ax - 200, ay - 300) < 80
    assert places["edge"][0] >= 60
    assert abs(ax - points[0, 0]) >= 40 or abs(ay - points[0, 1]) >= 10
    assert "b" not in place_names(
        points, {"a": rows["a"], "b": rows["a"][:1]}, dict.fromkeys("ab", (990.0, 590.0)), size, []
    )


@pytest.fixture
def store(make_photos: Callable[..., Path], tmp_path: Path) -> embedpipe.FeatureStore:
    made = embedpipe.embed(make_photos(24), to=tmp_path / "photos.features", backbone=TINY)
    names = [ODD[i % 6] for i in range(24)]  # not the lone surrogate, which no store holds
    made.label(pa.table({"id": made.ids(), "label": names}), into="odd")
    return made.refresh()


def items_of(page: Page) -> dict[str, Any]:
    [packed] = re.findall(r'id="items">(.*?)</script>', page.source)
    items: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(packed)))
    return items


def test_pictures_of_many_items_are_those_of_a_sample(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedpipe.report.pictures.map_page.MAX_PICTURES", 5)
    page = Page(embedpipe.map(store, tmp_path / "map.html").path, scripts=2)
    assert len(items_of(page)["tile"]) == 5
    assert "Pictures of a random 5 items" in page.words


def test_numbers_have_colours_of_a_scale(store: Any, tmp_path: Path) -> None:
    store.label(pa.table({"id": store.ids()[1:], "label": np.linspace(-1, 1, 23)}), into="price")
    items = items_of(Page(embedpipe.map(store.refresh(), tmp_path / "map.html", label="price").path, scripts=2))
    assert len(set(items["look"])) == 24  # and grey for the item without a number


def test_names_on_the_map_do_not_run_backwards(store: Any, tmp_path: Path) -> None:
    store.label(pa.table({"id": store.ids(), "label": ["\u202eevil"] * 24}), into="backwards")
    items = items_of(Page(embedpipe.map(store.refresh(), tmp_path / "map.html", label="backwards").path, scripts=2))
    assert [name["text"] for name in items["names"]] == ["\ufffdevil"]


def test_page_is_one_file_with_each_item(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedpipe.report.pictures.label_votes.LEAST", 1)
    to = embedpipe.map(store, tmp_path / "map.html", label="odd").path
    page = Page(to, scripts=2)
    items = items_of(page)
    assert len(items["id"]) == len(items["x"]) == 24
    assert sorted(items["tile"].values()) == list(range(24))
    assert max(items["look"]) < len(items["looks"])
    assert "script-src 'sha256-" in page.source
    written = to.stat().st_mtime_ns
    assert embedpipe.map(store, to, label="odd").path.stat().st_mtime_ns == written
    assert embedpipe.map(store, to, label=None, thumbnails=0).path.stat().st_mtime_ns != written
    assert "data:image" not in to.read_text(encoding="utf-8")
    store.label(pa.table({"id": store.ids(), "label": np.linspace(-1, 1, 24)}), into="price")
    assert (
        "linear-gradient(to right, #" in Page(embedpipe.map(store.refresh(), to, label="price").path, scripts=2).source
    )


@pytest.mark.long
def test_page_in_a_browser(store: Any, tmp_path: Path) -> None:
    to = embedpipe.map(store, tmp_path / "map.html", label="odd").path
    with open_browser(tmp_path / "profile") as browser:
        for width, scheme in ((1280, "light"), (390, "dark")):
            browser.open_alone(to, width, scheme)
            assert browser.ask("document.getElementById('card').hidden")
            browser.ask(
                "(() => { const box = scatter.canvas.getBoundingClientRect();"
                " const at = scatter.place(scatter.x[0], scatter.y[0]);"
                " scatter.canvas.dispatchEvent(new MouseEvent('click', {bubbles: true,"
                " clientX: box.x + at[0], clientY: box.y + at[1]})); })()"
            )
            assert not browser.ask("document.getElementById('card').hidden")
            assert browser.ask("document.getElementById('name').textContent").endswith(".jpg")
            assert browser.ask("window.hacked") is None
            browser.ask("document.querySelector('button[data-look]').click()")
            assert browser.ask("document.getElementById('card').hidden")
