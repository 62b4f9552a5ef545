"""Range, channels and pages of pictures: counted, kept with the store, and the same in every verb that reads them."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from command import run
from oddities import encode
from PIL import Image

import embedpipe
from embedpipe.errors import ReadError, SpecMismatchError
from embedpipe.sources import SourceOptions, open_source, read_uri, tiff_pages
from embedpipe.sources.tiff_pages import page_places

BACKBONE = {"backbone": "timm/test_resnet", "weights": "none", "device": "cpu", "engine": "torch", "progress": False}


def bands(seed: int) -> bytes:
    """Return a TIFF of five channels of 12 bits in 16."""
    values = np.random.default_rng(seed).integers(0, 4096, (8, 8, 5)).repeat(6, 0).repeat(6, 1).astype(np.uint16)
    values[0, 0] = 4095
    file = io.BytesIO()
    tifffile.imwrite(file, values, photometric="minisblack", planarconfig="contig", metadata=None)
    return file.getvalue()


def as_rgb(data: bytes) -> Image.Image:
    values = tifffile.imread(io.BytesIO(data))[..., [4, 0, 2]].astype(float)
    return Image.fromarray(np.floor(values * 255 / 4095 + 0.5).astype(np.uint8))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of four pictures with five channels."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(8):
        path = folder / "ab"[i % 2] / f"{i}.tif"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bands(i))
    return folder


def test_range_and_channels_travel_with_the_spec(photos: Path, tmp_path: Path) -> None:
    store = embedpipe.embed(photos, tmp_path / "s", channels="5,1,3", range="0:4095", **BACKBONE)
    assert store.summary.embedded == 8
    assert store.summary.notes == [note for note in store.summary.notes if "bits" not in note]
    assert store.spec.preprocessing.channels == (5, 1, 3)
    expected = embedpipe.load_backbone("timm/test_resnet", weights="none", device="cpu")
    item = expected.prepare(as_rgb(bands(0)))
    (vector,) = expected.forward([item.value])["embedding"]
    np.testing.assert_allclose(store.to_numpy()[0], vector, rtol=1e-4, atol=1e-5)
    head = embedpipe.fit(store, "knn", folds=0)
    head.save(tmp_path / "head")
    head = embedpipe.load_head(tmp_path / "head")
    predicted = head.predict(photos, device="cpu", progress=False)
    assert predicted.column("label").to_pylist() == head.predict(store).column("label").to_pylist()
    assert predicted.column("error").to_pylist() == [None] * 8
    assert embedpipe.verify(store.path, device="cpu", progress=False).ok
    with pytest.raises(SpecMismatchError, match="channels"):
        embedpipe.embed(photos, tmp_path / "s", channels="1,2,3", range="0:4095", **BACKBONE)


def test_pictures_without_declared_colours_fail_with_the_option(photos: Path, tmp_path: Path) -> None:
    store = embedpipe.embed(photos, tmp_path / "s", **BACKBONE)
    assert store.summary.failed == 8
    assert "channels=[1, 2, 3]" in store.failures().column("message")[0].as_py()


def test_what_is_left_out_is_counted_in_the_run_and_in_info(tmp_path: Path) -> None:
    folder, to = tmp_path / "photos", tmp_path / "s"
    folder.mkdir()
    pages = [Image.new("RGB", (32, 32), colour) for colour in ("black", "red", "green")]
    (folder / "pages.tif").write_bytes(encode(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    (folder / "copy.tif").write_bytes((folder / "pages.tif").read_bytes())
    (folder / "deep.png").write_bytes(encode(Image.fromarray(np.full((32, 32), 4095, np.uint16)), "PNG"))
    (folder / "plain.png").write_bytes(encode(pages[1], "PNG"))
    store = embedpipe.embed(folder, to, **BACKBONE)
    notes = "\n".join(store.summary.notes)
    assert (
        "files of several pages, embedded as their first page (tiff_pages='all' embeds each): 2, 4 pages left" in notes
    )
    assert "0:4095" in notes
    facts = json.loads(run("info", to, "--json").stdout)
    kept = [note for note in store.summary.notes if "pages" in note or "0:4095" in note]
    as_shown = {"tiff_pages='all'": "--tiff-pages all", "range=...": "--range"}
    for python, command_line in as_shown.items():
        kept = [note.replace(python, command_line) for note in kept]
    assert facts["notes"] == kept
    (folder / "pages.tif").write_bytes(encode(pages[2], "TIFF"))
    (folder / "deep.png").unlink()
    embedpipe.embed(folder, to, prune=True, **BACKBONE)
    (note,) = json.loads(run("info", to, "--json").stdout)["notes"]
    assert note.endswith(": 1, 2 pages left out")


def test_pages_are_items(tmp_path: Path) -> None:
    folder, to = tmp_path / "photos", tmp_path / "s"
    folder.mkdir()
    colours = [np.full((32, 32, 3), value, np.uint8) for value in (0, 90, 200)]
    tifffile.imwrite(folder / "x.tif", np.stack(colours), photometric="rgb", metadata=None)
    tifffile.imwrite(folder / "one.tif", colours[1], photometric="rgb")
    (folder / "plain.png").write_bytes(encode(Image.fromarray(colours[2]), "PNG"))
    (folder / "cut.tif").write_bytes((folder / "x.tif").read_bytes()[:4000])
    store = embedpipe.embed(folder, to, tiff_pages="all", **BACKBONE)
    ids = ["one.tif", "plain.png", "x.tif#page=1", "x.tif#page=2", "x.tif#page=3"]
    assert store.to_arrow(["id"]).column("id").to_pylist() == ids
    assert store.failures().column("id").to_pylist() == ["cut.tif"]
    vectors = dict(zip(ids, store.to_numpy(), strict=True))
    np.testing.assert_allclose(vectors["x.tif#page=2"], vectors["one.tif"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(vectors["x.tif#page=3"], vectors["plain.png"], rtol=1e-4, atol=1e-5)
    assert store.summary.notes == [note for note in store.summary.notes if "page" not in note]
    assert embedpipe.verify(store.path, device="cpu", progress=False).ok
    again = embedpipe.embed(folder, to, tiff_pages="all", **BACKBONE)
    assert again.summary.reused == 5


def test_files_without_a_page_are_failures(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (8, 8), (level, 0, 0)) for level in (10, 200)]
    pages[0].save(tmp_path / "b.tif", save_all=True, append_images=pages[1:])
    (tmp_path / "a.tif").write_bytes(b"II*\0" + bytes(60))
    (tmp_path / "c.tif").write_bytes(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 1 << 63) + bytes(60))  # BigTIFF
    listing = open_source(tmp_path, SourceOptions(tiff_pages="all"))
    assert listing.table["id"].to_pylist() == ["b.tif#page=1", "b.tif#page=2"]
    assert [failure.id for failure in listing.failures] == ["a.tif", "c.tif"]
    assert {failure.message for failure in listing.failures} == {"truncated or damaged TIFF: page 1 is missing"}


def test_uris_that_look_like_pages(tmp_path: Path) -> None:
    """A file may have the name of a page, and the uri of a page may end in any number of them."""
    pages = [Image.new("RGB", (8, 8), (level, 0, 0)) for level in (10, 200)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    uri = f"{tmp_path}/a.tif#page=2"
    with Image.open(io.BytesIO(read_uri(uri))) as image:
        assert image.getpixel((0, 0)) == (200, 0, 0)
    Path(uri).write_bytes(b"a file of this name")
    assert read_uri(uri) == b"a file of this name"
    with pytest.raises(ReadError, match="cannot read"):
        read_uri(f"{tmp_path}/b.tif" + "#page=1" * 5_000)


def test_pages_of_a_file_are_looked_for_twice_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once to list them and once to read them: the time of a file of many pages must not grow with their square."""
    pages = [Image.new("RGB", (8, 8), (level, 0, 0)) for level in range(20)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    calls: list[int] = []

    def counted(data: bytes) -> list[int]:
        calls.append(len(data))
        return page_places(data)

    monkeypatch.setattr(tiff_pages, "page_places", counted)
    listing = open_source(tmp_path, SourceOptions(tiff_pages="all"))
    levels = [Image.open(io.BytesIO(listing.read(row))).getpixel((0, 0))[0] for row in range(len(listing))]
    assert sorted(levels) == list(range(20))
    assert len(calls) == 2


def test_pages_of_a_file_that_is_broken_for_now_are_not_pruned(tmp_path: Path) -> None:
    folder, to = tmp_path / "photos", tmp_path / "s"
    folder.mkdir()
    for i in range(4):
        Image.new("RGB", (8, 8), (60 * i, 0, 0)).save(folder / f"{i}.png")
    pages = [Image.new("RGB", (8, 8), (level, 0, 0)) for level in (10, 200)]
    pages[0].save(folder / "x.tif", save_all=True, append_images=pages[1:])
    ids = embedpipe.embed(folder, to, tiff_pages="all", **BACKBONE).ids()
    whole = (folder / "x.tif").read_bytes()
    (folder / "x.tif").write_bytes(whole[:60])
    store = embedpipe.embed(folder, to, tiff_pages="all", prune=True, **BACKBONE)
    assert (store.ids(), store.summary.pruned, store.summary.failed) == (ids, 0, 1)
    (folder / "x.tif").unlink()
    assert embedpipe.embed(folder, to, tiff_pages="all", prune=True, **BACKBONE).summary.pruned == 2


def test_an_item_of_a_program_that_raises_is_a_failure_of_its_pages_too() -> None:
    class Pages:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, row: int) -> tuple[Image.Image, str]:
            if row:
                raise RuntimeError("torn")
            return Image.new("RGB", (8, 8)), "a"

        targets = ("a", "b")

    listing = open_source(Pages(), SourceOptions(tiff_pages="all"))
    assert [(failure.id, failure.message) for failure in listing.failures] == [("00000001", "torn")]
