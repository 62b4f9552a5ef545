"""The map of a store: drawn for any store there can be, honest about what is shown."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import stored
from conftest import TINY
from matplotlib.colors import to_rgb
from PIL import Image
from pixels import area, pixels

import embedpipe
from embedpipe._utils.progress import Progress
from embedpipe.errors import StoreNotFoundError, UsageError
from embedpipe.report.drawing.colours import GREY, MAX_CLASSES, PALETTE, PLAIN, colour_labels
from embedpipe.report.pictures.map_png import OPACITY
from embedpipe.report.pictures.projection import project
from embedpipe.report.pictures.thumbnails import Layout, spread_out

QUIET = Progress(False)


@pytest.fixture
def make_store(make_photos: Callable[..., Path], tmp_path: Path) -> Callable[..., embedpipe.FeatureStore]:
    """Return a function that embeds some pictures into a store."""

    def make(count: int = 24, **options: Any) -> embedpipe.FeatureStore:
        return embedpipe.embed(make_photos(count), to=tmp_path / "photos.features", backbone=TINY, **options)

    return make


def has_colour(path: Path, colour: str, at_least: int = 20) -> bool:
    """Say whether a colour is there, opaque as in frames or as the points have it."""
    opaque, picture = np.array(to_rgb(colour)), pixels(path)
    wanted = (opaque, OPACITY * opaque + (1 - OPACITY))
    return max(area(picture, each, 11.9) for each in wanted) >= at_least


def test_a_map_shows_each_class_and_pictures(make_store: Callable[..., Any], tmp_path: Path) -> None:
    store = make_store()
    with_pictures = embedpipe.map(store, tmp_path / "a" / "with.png")
    without = embedpipe.map(store.path, tmp_path / "without.png", thumbnails=0)
    assert pixels(with_pictures).shape[1] == 1600
    assert (pixels(with_pictures) != pixels(without)).any(axis=2).mean() > 0.02
    assert all(has_colour(with_pictures, colour) for colour in PALETTE[:3])
    assert sorted(path.name for path in with_pictures.path.parent.iterdir()) == ["with.png"]


def test_same_map_is_not_drawn_twice(
    make_store: Callable[..., Any], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(12)
    to = tmp_path / "map.png"
    first = embedpipe.map(store, to).path.stat().st_mtime_ns
    with Image.open(to) as picture:
        assert json.loads(picture.info["embedpipe.map"])["version"] == store.version
    assert embedpipe.map(store, to, progress=True).path.stat().st_mtime_ns == first
    assert "up to date" in capsys.readouterr().err
    assert embedpipe.map(store, to, label=None).path.stat().st_mtime_ns != first
    second = embedpipe.map(store, to).path.stat().st_mtime_ns
    store.remove(store.ids()[:2])
    assert embedpipe.map(store.refresh(), to).path.stat().st_mtime_ns != second


@pytest.mark.parametrize("count", [1, 3])
def test_small_stores(make_store: Callable[..., Any], tmp_path: Path, count: int) -> None:
    to = embedpipe.map(make_store(count), tmp_path / "map.png")
    assert has_colour(to, "#0077BB")


def test_in_memory_items_without_labels_have_one_colour(tmp_path: Path) -> None:
    items = [np.full((32, 32, 3), 10 * i, np.uint8) for i in range(12)]
    store = embedpipe.embed(items, to=tmp_path / "arrays.features", backbone=TINY)
    assert has_colour(embedpipe.map(store, tmp_path / "map.png"), PLAIN)


def test_a_map_without_a_name_replaces_maps_only(
    make_store: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(3)
    monkeypatch.chdir(tmp_path)
    assert str(embedpipe.map(store)) == "map.png"
    assert str(embedpipe.map(store, label=None)) == "map.png"
    Image.new("RGB", (4, 4)).save("map.png")
    with pytest.raises(UsageError, match=r"map\.png exists and is not a map: give another name \(to='clothes\.png'\)"):
        embedpipe.map(store)


def test_missing_pictures_are_skipped(make_store: Callable[..., Any], photos: Path, tmp_path: Path) -> None:
    store = make_store(12)
    for path in photos.rglob("*.jpg"):
        path.write_bytes(b"no picture any more") if "cat" in str(path) else path.unlink()
    gone = embedpipe.map(store, tmp_path / "gone.png")
    none = embedpipe.map(store, tmp_path / "none.png", thumbnails=0)
    assert np.array_equal(pixels(gone), pixels(none))


def test_points_are_computed_once_for_the_same_vectors(
    make_store: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDPIPE_CACHE", str(tmp_path / "cache"))
    store = make_store()
    first = pixels(embedpipe.map(store, tmp_path / "a.png", thumbnails=0).path)
    [kept] = (tmp_path / "cache" / "maps").iterdir()
    store.label(pa.table({"id": store.ids(), "label": ["other"] * 24}))
    with monkeypatch.context() as patch:
        patch.setattr("embedpipe.report.pictures.map_points.project", None)
        embedpipe.map(store.refresh(), tmp_path / "b.png", thumbnails=0)
    written = kept.read_bytes()
    for damaged in (b"", written[:-1], written[:40] + b"x" + written[41:]):
        kept.write_bytes(damaged)
        embedpipe.map(store, tmp_path / "c.png", label=None, thumbnails=0)
        (tmp_path / "c.png").unlink()
        assert kept.read_bytes() == written
    assert not np.array_equal(pixels(embedpipe.map(store, tmp_path / "d.png", thumbnails=0, seed=1).path), first)


def test_large_vectors_are_mapped_for_the_same_picture(
    make_store: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDPIPE_CACHE", str(tmp_path / "cache"))
    store = make_store()
    read = pixels(embedpipe.map(store, tmp_path / "a.png", thumbnails=0).path)
    shutil.rmtree(tmp_path / "cache" / "maps")
    with monkeypatch.context() as patch:
        patch.setattr("embedpipe.report.pictures.map_data.MAPPED_BYTES", 0)
        mapped = pixels(embedpipe.map(store, tmp_path / "b.png", thumbnails=0).path)
    assert (tmp_path / "cache" / "vectors").is_dir()
    assert np.array_equal(mapped, read)


def test_odd_names_and_numbers_for_labels(make_store: Callable[..., Any], tmp_path: Path) -> None:
    store = make_store()
    ids = store.ids()
    names = ["$x_1$", "日本語", "a name much too long for the legend"] * 8
    store.label(pa.table({"id": ids, "label": names}), into="odd")
    store.label(pa.table({"id": ids[4:], "label": np.linspace(-1, 1, len(ids) - 4)}), into="price")
    odd = embedpipe.map(store.refresh(), tmp_path / "odd.png", label="odd")
    price = embedpipe.map(store, tmp_path / "price.png", label="price", layer="features")
    assert has_colour(odd, "#EE7733")
    assert has_colour(price, GREY)


def test_wide_names_end_inside_the_picture(tmp_path: Path) -> None:
    labels = ["=MÜLL & WWWWWWWWWW", "short"] * 6
    store = stored.make_store(tmp_path / "s", np.random.default_rng(0).normal(size=(12, 4)), label=labels)
    with Image.open(embedpipe.map(store, tmp_path / "map.png", progress=False)) as picture:
        edge = np.asarray(picture.convert("RGB"))[:, -8:]
    assert len(np.unique(edge.reshape(-1, 3), axis=0)) == 1


def test_bad_arguments_are_refused(make_store: Callable[..., Any], tmp_path: Path) -> None:
    store = make_store(3)
    to = tmp_path / "map.png"
    for options, message in (
        ({"to": tmp_path / "map.pdf"}, r"must end in \.png or \.html"),
        ({"label": "labels"}, "did you mean 'label'"),
        ({"layer": "feature"}, "did you mean 'features'"),
        ({"thumbnails": -1}, "thumbnails must be >= 0, got -1"),
    ):
        with pytest.raises(UsageError, match=message):
            embedpipe.map(store, **{"to": to, **options})
    store.remove(store.ids())
    with pytest.raises(UsageError, match="holds no rows"):
        embedpipe.map(store.refresh(), to)
    with pytest.raises(StoreNotFoundError):
        embedpipe.map(tmp_path / "nowhere", to)
    assert not to.exists()


# ---------------------------------------------------------------- its parts


def test_groups_of_vectors_stay_together(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 64))
    group = np.repeat([0, 1, 2], 40)
    vectors = (centres[group] + 0.2 * rng.normal(size=(120, 64))).astype(np.float32)
    points, method = project(vectors * rng.uniform(1, 100, (120, 1)).astype(np.float32), 0, Progress(True))
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (group[distances.argmin(axis=1)] == group).all()
    assert "t-SNE" in method
    out, _ = capsys.readouterr()
    assert out == ""


def test_equal_vectors_are_drawn() -> None:
    points, method = project(np.ones((20, 3), np.float32), 0, QUIET)
    assert np.allclose(points, 0)
    assert method.startswith("PCA")
    assert project(np.zeros((1, 1), np.float32), 0, QUIET)[0].shape == (1, 2)


def test_rows_beyond_the_landmarks_are_placed_among_them() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], 60)
    vectors = (rng.normal(size=(3, 32))[group] + 0.2 * rng.normal(size=(180, 32))).astype(np.float32)
    points, method = project(vectors, 0, QUIET, landmarks=90)
    assert "a random 90 rows" in method
    centres = np.array([points[group == each].mean(axis=0) for each in range(3)])
    assert (np.linalg.norm(points[:, None] - centres, axis=2).argmin(axis=1) == group).mean() > 0.98
    again, _ = project(vectors, 0, QUIET, landmarks=90)
    assert np.array_equal(points, again)


def test_classes_beyond_the_palette_share_a_colour() -> None:
    names = [f"class {i:02d}" for i in range(MAX_CLASSES + 2) for _ in range(30 - i)] + [None, None]
    colouring = colour_labels(pa.chunked_array([names]), len(names))
    drawn = {(e.colour, e.marker) for e in colouring.legend[:MAX_CLASSES]}
    assert len(drawn) == MAX_CLASSES
    assert [entry.name for entry in colouring.legend[-2:]] == ["other (2 classes)", "no label"]
    assert sum(entry.count for entry in colouring.legend) == len(names)
    assert (~colouring.named).sum() == sum(entry.count for entry in colouring.legend[-2:])


def test_few_numbers_get_steps_and_many_a_scale() -> None:
    few = colour_labels(pa.chunked_array([[1.0, 0.0, 1 / 3, float("nan"), None, 0.0]]), 6)
    assert [(entry.name, entry.count) for entry in few.legend] == [
        ("0", 2),
        ("0.3333", 1),
        ("1", 1),
        ("no label", 2),
    ]
    many = colour_labels(pa.chunked_array([list(range(100))]), 100)
    assert many.scale is not None
    assert many.legend == ()
    assert len(np.unique(many.colours, axis=0)) == 100


def test_booleans_are_classes() -> None:
    colouring = colour_labels(pa.chunked_array([[True, False, True]]), 3)
    assert [(entry.name, entry.count) for entry in colouring.legend] == [("False", 1), ("True", 2)]


def test_thumbnails_are_spread_out_and_do_not_overlap() -> None:
    size = np.array([1000.0, 800.0])
    points = np.random.default_rng(0).uniform(100, 700, (500, 2))
    order = list(spread_out(points))
    assert len(set(order)) == len(order) > 300
    first = points[order[:20]]
    gaps = np.linalg.norm(first[:, None] - first[None], axis=2)[np.triu_indices(20, 1)]
    assert gaps.min() > 80
    layout = Layout(points, size, (60, 60))
    centres = np.array([centre for row in order[:60] if (centre := layout.place(points[row])) is not None])
    assert len(centres) > 40
    apart = np.abs(centres[:, None] - centres[None]).max(axis=2)
    assert apart[np.triu_indices(len(centres), 1)].min() > 60
    assert (centres > 30).all()
    assert (centres < size - 30).all()


def test_a_damaged_picture_is_drawn_again(tmp_path: Path) -> None:
    store, to = stored.make_store(tmp_path / "s", stored.clusters(4)[0]), tmp_path / "map.png"
    embedpipe.map(store, to, progress=False)
    data = to.read_bytes()
    to.write_bytes(data[:16] + b"\x7f" * 8 + data[24:])  # claims billions of pixels
    embedpipe.map(store, to, progress=False)
    assert pixels(to).shape[1] == 1600
