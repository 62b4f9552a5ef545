"""Sources that programs make: pairs of an image and its label, tensors, iterators, and objects with an Arrow stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, Subset
from torchvision.datasets import FakeData, ImageFolder
from torchvision.transforms import Compose, Normalize, ToTensor

from embedpipe.decoding import decode_image
from embedpipe.errors import ReadError, SourceError
from embedpipe.sources import SourceOptions, open_source
from embedpipe.sources.columns import spool

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 12, 3), np.uint8)
IMAGES = [Image.fromarray(pixels) for pixels in PIXELS]
LABELS = ["cat", "dog"] * 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, image in enumerate(IMAGES):
        path = tmp_path / "photos" / LABELS[number] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return tmp_path / "photos"


def pixels_of(listing: Any) -> list[Any]:
    return [np.asarray(decode_image(listing.read(row))) for row in range(len(listing))]


def labels_of(listing: Any) -> list[Any]:
    labels: list[Any] = listing.table.column("label").to_pylist()
    return labels


KINDS: dict[str, Callable[[Any], Any]] = {
    "pil": Image.fromarray,
    "array": lambda pixels: pixels,
    "tensor": lambda pixels: torch.tensor(pixels).permute(2, 0, 1),
    "floats": lambda pixels: ToTensor()(pixels),
    "channels last": torch.tensor,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("as_source", [list, iter], ids=["sequence", "iterator"])
def test_pairs_have_the_pixels_and_labels_that_they_hold(kind: str, as_source: Callable[[Any], Any]) -> None:
    listing = open_source(as_source([(KINDS[kind](p), label) for p, label in zip(PIXELS, LABELS, strict=True)]))
    assert labels_of(listing) == LABELS
    assert all(np.array_equal(a, b) for a, b in zip(pixels_of(listing), PIXELS, strict=True))
    assert listing.table.column("id")[5].as_py().endswith("00000005")


def test_tensors_that_are_normalised_are_refused() -> None:
    normalise = Compose([ToTensor(), Normalize((0.5,) * 3, (0.5,) * 3)])
    listing = open_source([(normalise(image), 0) for image in IMAGES])
    with pytest.raises(ReadError, match=r"must be in 0\.\.1.*without its transform"):
        listing.read(0)
    with pytest.raises(SourceError, match=r"item 0 must be an image: .*in 0\.\.1"):
        open_source(normalise(image) for image in IMAGES)


def test_an_image_folder_is_its_files(folder: Path) -> None:
    listing = open_source(ImageFolder(folder))
    assert listing.table.column("uri")[0].as_py() == str(folder / "cat" / "0.png")
    assert labels_of(listing) == ["cat"] * 3 + ["dog"] * 3
    assert listing.table.column("source_size")[0].as_py() == (folder / "cat" / "0.png").stat().st_size


def test_a_transform_and_a_subset_are_respected(folder: Path) -> None:
    flipped = ImageFolder(folder, transform=lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    listing = open_source(Subset(flipped, [5, 0]))
    assert labels_of(listing) == ["dog", "cat"]
    assert np.array_equal(pixels_of(listing)[1], PIXELS[0][:, ::-1])
    assert listing.notes == ()


def test_labels_that_are_not_known_are_read_once() -> None:
    listing = open_source(FakeData(4, (3, 8, 8), num_classes=3))
    assert len({*labels_of(listing)}) > 1
    assert listing.notes == ("every item was read once for its label",)


def test_labels_that_a_target_transform_changes_are_read(folder: Path) -> None:
    listing = open_source(ImageFolder(folder, target_transform=lambda number: 1 - number))
    assert labels_of(listing) == ["dog"] * 3 + ["cat"] * 3


def test_lists_are_several_labels() -> None:
    listing = open_source(list(zip(IMAGES, [["b", "a"], [], ["a"]] * 2, strict=True)))
    assert labels_of(listing) == ["b;a", ";", "a"] * 2
    with pytest.raises(SourceError, match=r"must not hold ';'.* 'a;b': rename the label"):
        open_source([(IMAGES[0], ["a;b"])])


def test_labels_of_several_types_are_refused() -> None:
    with pytest.raises(SourceError, match="one plain type, got int, str"):
        open_source([(IMAGES[0], 1), (IMAGES[1], "a")])


@pytest.mark.parametrize("items", [[(IMAGES[0], "\ud800")], iter([(IMAGES[0], "\ud800")]), iter([{"image": "\ud800"}])])
def test_half_of_a_surrogate_pair_is_refused(items: Any) -> None:
    with pytest.raises(SourceError, match="surrogates not allowed"):
        open_source(items)


class Stream(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[Any]:
        yield from zip(IMAGES, LABELS, strict=True)


def test_iterable_data_sets_of_torch_are_read_once() -> None:
    listing = open_source(Stream())
    assert labels_of(listing) == LABELS
    assert np.array_equal(pixels_of(listing)[5], PIXELS[5])


def test_a_loader_is_refused() -> None:
    with pytest.raises(SourceError, match=r"gives batches: give its data set"):
        open_source(DataLoader(Stream()))


def test_dicts_have_the_columns_of_a_table() -> None:
    rows = ({"name": f"n{i}", "image": image, "label": label, "age": i} for i, (image, label) in enumerate(Stream()))
    listing = open_source(rows, SourceOptions(id="name"))
    assert listing.table.column("id").to_pylist() == [f"n{i}" for i in range(6)]
    assert listing.table.column("age").to_pylist() == [*range(6)]
    assert labels_of(listing) == LABELS


def test_values_of_tensors_and_numpy_are_plain() -> None:
    labels = [torch.tensor(2), np.int64(3), 4]
    rows = [{"image": image, "label": label} for image, label in zip(PIXELS, labels, strict=False)]
    for source in (iter(rows), iter([(row["image"], row["label"]) for row in rows])):
        assert labels_of(open_source(source)) == [2, 3, 4]
    assert labels_of(open_source([(row["image"], row["label"]) for row in rows])) == [2, 3, 4]
    several = open_source(iter([(PIXELS[0], np.array(["a", "b"]))]))
    assert labels_of(several) == ["a;b"]


def test_texts_and_paths_of_iterators(folder: Path) -> None:
    texts = open_source(iter(["a b", "", "c"]), modality="text")
    assert [texts.read(row) for row in (0, 2)] == ["a b", "c"]
    with pytest.raises(ReadError, match="no text"):
        texts.read(1)
    with pytest.raises(SourceError, match=r"item 0 .* got a path"):
        open_source(folder.rglob("*.png"), modality="text")
    paths = open_source(folder.rglob("*.png"))
    assert sorted(paths.table.column("id").to_pylist()) == sorted(map(str, folder.rglob("*.png")))


def test_items_of_an_iterator_lie_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "KEPT_BYTES", 10_000)
    monkeypatch.setattr("embedpipe.sources.readers.stream._CHUNK_BYTES", 5_000)
    large = [np.random.default_rng(i).integers(0, 256, (40, 40, 3), np.uint8) for i in range(20)]
    listing = open_source(iter(large))
    assert all(np.array_equal(a, b) for a, b in zip(pixels_of(listing), large, strict=True))


def test_iterators_without_items_and_of_mixed_values_are_refused() -> None:
    with pytest.raises(SourceError, match="at least one item"):
        open_source(iter([]))
    with pytest.raises(SourceError, match="'label'"):
        open_source(iter([(IMAGES[0], 1), (IMAGES[1], "a")]))


@settings(max_examples=40, deadline=None)
@given(
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F", "CMYK", "YCbCr", "LAB"]),
    orientation=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_images_of_any_mode_are_kept_without_loss(mode: str, orientation: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    if mode in ("I", "F", "I;16"):
        kind = {"I": np.int32, "F": np.float32, "I;16": np.uint16}[mode]
        image = Image.fromarray((values[..., 0].astype(np.float64) * 200 / (51_000 if mode == "F" else 1)).astype(kind))
    else:
        image = Image.fromarray(values).convert(mode)
    image.getexif()[0x0112] = orientation
    kept = open_source(iter([image])).read(0)
    assert isinstance(kept, bytes)
    assert np.array_equal(np.asarray(decode_image(kept)), np.asarray(decode_image(image)))


def test_relations_of_duckdb_are_tables(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "t.csv").write_text("path,label,age\ncat/0.png,cat,3\ndog/1.png,dog,4\n")
    with duckdb.connect() as connection:
        listing = open_source(connection.sql("SELECT * FROM 't.csv' WHERE age > 3"))
    assert listing.table.column("id").to_pylist() == ["dog/1.png"]
    assert np.array_equal(pixels_of(listing)[0], PIXELS[1])
