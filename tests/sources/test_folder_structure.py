"""Folders that are no classes, and links: what is listed, how it is labelled, and what is left out and counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from embedpipe.sources import Listing, open_source

TRAIN_AND_TEST = ("train/cat/0.jpg", "train/dog/1.jpg", "test/cat/2.jpg", "test/dog/3.jpg")


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def rows(listing: Listing) -> dict[str, tuple[object, object]]:
    table = listing.table
    return {
        id: (label, split)
        for id, label, split in zip(*(table[name].to_pylist() for name in ("id", "label", "split")), strict=True)
    }


RIGHT = {
    "train/cat/0.jpg": ("cat", "train"),
    "train/dog/1.jpg": ("dog", "train"),
    "test/cat/2.jpg": ("cat", "test"),
    "test/dog/3.jpg": ("dog", "test"),
}


@pytest.mark.parametrize(
    ("strays", "skipped"),
    [
        (["annotations/a.json"], {".json": 1}),
        (["annotations/instances/a.json", "README.txt"], {".json": 1, ".txt": 1}),
        (["__MACOSX/train/cat/._0.jpg"], {"folder __MACOSX": 1}),
        (["__MACOSX/train/cat/0.jpg"], {"folder __MACOSX": 1}),
        (["@eaDir/x.jpg", "train/cat/@eaDir/0.jpg/SYNOPHOTO_THUMB_M.jpg"], {"folder @eaDir": 2}),
        (["$RECYCLE.BIN/S-1/x.jpg", "System Volume Information/x.jpg"], None),
        (["lost+found/x.jpg", "#recycle/x.jpg", "#snapshot/train/cat/0.jpg", "__pycache__/x.jpg"], None),
        ([".git/x.jpg", ".thumbnails/x.jpg", ".AppleDouble/x.jpg", ".Trashes/x.jpg"], {"hidden": 4}),
        (["train/.ipynb_checkpoints/x.jpg", "test/cat/._2.jpg"], {"hidden": 2}),
        (["features/_delta_log/0.json", "features/part.parquet"], {"feature store": 1}),
        (["features/_delta_log/0.json", "features/picture.jpg"], {"feature store": 1}),
        (["head/manifest.json", "head/head.skops", "head/picture.jpg"], {"head": 1}),
        (["run/backbone.safetensors", "run/head/manifest.json", "run/head/head.skops"], None),
    ],
)
def test_split_folders_beside_strays_give_splits(tmp_path: Path, strays: list[str], skipped: object) -> None:
    listing = open_source(make(tmp_path / "p", *TRAIN_AND_TEST, *strays))
    assert rows(listing) == RIGHT
    assert listing.skipped
    assert skipped is None or listing.skipped == skipped
    assert listing.notes == ()


def test_folders_of_images_beside_splits_are_listed_without_a_split_and_reported(tmp_path: Path) -> None:
    root = make(tmp_path / "p", *TRAIN_AND_TEST, "masks/0.png", "unlabelled/1.jpg", "extra/owl/2.jpg")
    listing = open_source(root)
    strays = {"masks/0.png": (None, None), "unlabelled/1.jpg": (None, None), "extra/owl/2.jpg": ("owl", None)}
    assert rows(listing) == RIGHT | strays
    assert listing.notes == (
        "top folders test, train are splits; without one: 3 items in other top folders: extra, masks, unlabelled",
    )


def test_unlabelled_test_folder_beside_labelled_training_folder(tmp_path: Path) -> None:
    listing = open_source(make(tmp_path / "p", "train/cat/0.jpg", "test/1.jpg", "masks/2.png"))
    assert rows(listing) == {
        "train/cat/0.jpg": ("cat", "train"),
        "test/1.jpg": (None, "test"),
        "masks/2.png": (None, None),
    }


def test_class_with_the_name_of_a_split_is_a_class_and_reported(tmp_path: Path) -> None:
    listing = open_source(make(tmp_path / "p", "train/0.jpg", "bus/1.jpg", "car/2.jpg"))
    assert {label for label, _ in rows(listing).values()} == {"train", "bus", "car"}
    assert listing.notes == ("top folders are labels, also train, as there are other top folders: bus, car",)


def test_only_top_folder_is_reported(tmp_path: Path) -> None:
    root = make(tmp_path / "p", "images/cat/0.jpg", "images/dog/1.jpg", "labels/cat/0.txt")
    listing = open_source(root)
    assert {label for label, _ in rows(listing).values()} == {"images"}
    assert listing.notes == (
        f"all items have the label 'images', the only top folder; for the folders in it embed '{root}/images'",
    )
    assert not open_source(make(tmp_path / "q", "cat/0.jpg")).notes


def test_eight_folders_that_link_to_each_other_are_listed_once(tmp_path: Path) -> None:
    root = make(tmp_path / "p", *(f"{name}/0.jpg" for name in "abcdefgh"))
    for letter in "abcdefgh":
        for other in "abcdefgh":
            if letter != other:
                (root / letter / other).symlink_to(root / other)
    listing = open_source(root)
    assert rows(listing) == {f"{name}/0.jpg": (name, None) for name in "abcdefgh"}
    assert listing.skipped == {"link to a listed folder": 56}


@pytest.mark.parametrize("target", ["/", "/proc", "/proc/self", "/sys", "/dev"])
def test_link_to_a_system_folder_ends(tmp_path: Path, target: str) -> None:
    if not Path(target).exists():
        pytest.skip(f"no {target}")
    root = make(tmp_path / "p", "cat/0.jpg")
    (root / "cat/system").symlink_to(target)
    listing = open_source(root)
    assert rows(listing) == {"cat/0.jpg": ("cat", None)}
    assert sum(listing.skipped.values()) == 1
    assert listing.failures == ()


def test_links_out_of_the_source_are_followed_once(tmp_path: Path) -> None:
    outside = make(tmp_path / "data", "cats/0.jpg", "dogs/1.jpg")
    root = tmp_path / "p"
    root.mkdir()
    for name, target in (("cat", "cats"), ("dog", "dogs"), ("more", "dogs")):
        (root / name).symlink_to(outside / target)
    (outside / "cats/back").symlink_to(root)
    listing = open_source(root)
    assert rows(listing) == {"cat/0.jpg": ("cat", None), "dog/1.jpg": ("dog", None)}
    assert listing.skipped == {"link to a parent folder": 1, "link to a listed folder": 1}


def test_real_folder_is_listed_and_not_a_link_to_it_that_sorts_first(tmp_path: Path) -> None:
    root = make(tmp_path / "p", "real/0.jpg")
    (root / "alias").symlink_to("real")
    assert list(rows(open_source(root))) == ["real/0.jpg"]


def test_link_to_a_hidden_folder_of_the_source_is_followed(tmp_path: Path) -> None:
    root = make(tmp_path / "p", ".cache/files/0.jpg")
    (root / "cat").symlink_to(root / ".cache/files")
    assert rows(open_source(root)) == {"cat/0.jpg": ("cat", None)}


def test_source_that_is_a_link_or_below_a_hidden_folder_is_listed(tmp_path: Path) -> None:
    root = make(tmp_path / ".data/p", "cat/0.jpg")
    (tmp_path / "link").symlink_to(root)
    (root / "dog").symlink_to(root / "cat")
    for source in (root, tmp_path / "link"):
        listing = open_source(source)
        assert list(rows(listing)) == ["cat/0.jpg"]
        assert listing.skipped == {"link to a listed folder": 1}


def test_names_that_are_not_utf8_have_labels_and_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        folder = os.fsencode(tmp_path / "p" / split) + b"/caf\xe9"
        try:
            Path(os.fsdecode(folder)).mkdir(parents=True)
        except OSError:
            pytest.skip("this filesystem has only UTF-8 names")
        Path(os.fsdecode(folder + b"/0.jpg")).write_bytes(b"payload")
    assert set(rows(open_source(tmp_path / "p")).values()) == {("caf\\xe9", "train"), ("caf\\xe9", "test")}
