"""Folders: classes, splits, skipped files, and files that cannot be listed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from oddities import write_oddities

from embedpipe.decoding import decode_image
from embedpipe.errors import ItemError, ReadError, SourceError
from embedpipe.sources import Listing, SourceOptions, open_source, read_uri, root_exists
from embedpipe.sources.listing import COLUMNS

Tree = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Return a function that creates files whose contents are their relative names."""

    def make(*names: str) -> Path:
        root = tmp_path / "photos"
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.fsencode(name))
        return root

    return make


def column(listing: Listing, name: str) -> list[object]:
    values: list[object] = listing.table.column(name).to_pylist()
    return values


def test_class_folders_give_labels(tree: Tree) -> None:
    root = tree("cat/b.jpg", "cat/a.PNG", "dog/deep/c.webp", "flat.gif")
    listing = open_source(root)
    assert tuple(listing.table.column_names) == COLUMNS
    assert listing.root == str(root)
    assert column(listing, "id") == ["flat.gif", "cat/a.PNG", "cat/b.jpg", "dog/deep/c.webp"]
    assert column(listing, "label") == [None, "cat", "cat", "dog"]
    assert column(listing, "split") == [None] * 4
    assert listing.table.equals(open_source(str(root) + "/").table)


def test_files_of_a_folder_have_uri_size_time_and_payload(tree: Tree) -> None:
    root = tree("cat/b.jpg", "cat/a.PNG", "dog/deep/c.webp", "flat.gif")
    listing = open_source(root)
    assert column(listing, "uri") == [f"{root}/{id}" for id in column(listing, "id")]
    stat = (root / "cat/b.jpg").stat()
    assert column(listing, "source_size")[2] == stat.st_size
    assert column(listing, "source_modified")[2] == stat.st_mtime_ns
    assert [listing.read(row) for row in range(4)] == [str(id).encode() for id in column(listing, "id")]


def test_split_folders_give_splits_and_labels(tree: Tree) -> None:
    listing = open_source(tree("Train/cat/a.jpg", "val/b.jpg", "TESTING/dog/x/c.jpg", ".cache/d.jpg", "e.jpg"))
    rows = zip(*(column(listing, name) for name in ("id", "split", "label")), strict=True)
    assert sorted(rows, key=str) == [
        ("TESTING/dog/x/c.jpg", "test", "dog"),
        ("Train/cat/a.jpg", "train", "cat"),
        ("e.jpg", None, None),
        ("val/b.jpg", "validation", None),
    ]


def test_top_folders_are_labels_unless_all_are_splits(tree: Tree) -> None:
    listing = open_source(tree("train/a.jpg", "test/b.jpg", "extra/c.jpg"))
    assert column(listing, "label") == ["extra", "test", "train"]
    assert column(listing, "split") == [None] * 3


def test_skipped_files_are_counted(tree: Tree) -> None:
    listing = open_source(tree("a.jpg", "b.txt", "c.TXT", "Makefile", ".hidden.jpg", ".git/d.jpg", "x/.DS_Store"))
    assert column(listing, "id") == ["a.jpg"]
    assert listing.skipped == {".txt": 2, "no suffix": 1, "hidden": 3}


def test_prefix_is_added_to_ids_and_failures(tree: Tree) -> None:
    root = tree("a.jpg")
    (root / "b.jpg").symlink_to("nowhere")
    for prefix in ("left", "left/"):
        listing = open_source(root, SourceOptions(prefix=prefix))
        assert column(listing, "id") == ["left/a.jpg"]
        assert [failure.id for failure in listing.failures] == ["left/b.jpg"]
        assert listing.read(0) == b"a.jpg"


def test_links_to_folders_are_followed_without_loops(tree: Tree) -> None:
    root = tree("a/x.jpg", "b/y.jpg")
    (root / "a/up").symlink_to(root, target_is_directory=True)
    (root / "c").symlink_to(root / "b", target_is_directory=True)
    (root / "d.jpg").symlink_to(root / "a/x.jpg")
    listing = open_source(root)
    assert column(listing, "id") == ["d.jpg", "a/x.jpg", "b/y.jpg"]
    assert listing.skipped == {"link to a parent folder": 1, "link to a listed folder": 1}
    assert listing.failures == ()


def test_odd_files_are_listed_or_fail(tmp_path: Path) -> None:
    expected = write_oddities(tmp_path / "odd")
    assert sum(stage is None for stage in expected.values()) >= 15
    assert sum(stage is not None for stage in expected.values()) >= 30
    listing = open_source(tmp_path / "odd")
    outcomes: dict[str, str | None] = {failure.id: failure.stage for failure in listing.failures}
    for row, id in enumerate(listing.table["id"].to_pylist()):
        try:
            decode_image(listing.read(row))
            outcomes[id] = None
        except ItemError as error:
            outcomes[id] = error.stage
    assert outcomes == expected


def test_unreadable_folder_is_a_failure(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree("good/a.jpg", "locked/b.jpg")
    scandir = os.scandir

    # The tests may run as root, which can read any folder, so the system call is patched to fail.
    def refuse(path: Any) -> object:
        if str(path).endswith("locked"):  # folders of passed tests are deleted by descriptor
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    listing = open_source(root)
    assert column(listing, "id") == ["good/a.jpg"]
    (failure,) = listing.failures
    assert (failure.id, failure.stage, failure.exception) == ("locked", "list", "PermissionError")


def test_what_lies_in_a_folder_that_must_not_be_looked_into_is_an_error_with_the_reason(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = tree("locked/a.jpg") / "locked"

    def refuse(path: Any, *args: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(SourceError, match=r"cannot look for '.*typo': .*Permission denied: '.*locked'"):
        open_source(locked / "typo")
    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    stat = Path.stat
    monkeypatch.setattr(  # asked for a file in the folder
        Path, "stat", lambda path, **options: (refuse if path.parent == locked else stat)(path, **options)
    )
    with pytest.raises(SourceError, match=r"cannot list the folder '.*locked': .*Permission denied"):
        open_source(locked)


def test_file_deleted_while_listing_is_a_failure(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree("a.jpg", "b.jpg")
    with os.scandir(root) as iterator:
        entries = list(iterator)
    (root / "a.jpg").unlink()
    monkeypatch.setattr(os, "scandir", lambda path: contextlib.nullcontext(entries))
    listing = open_source(root)
    assert column(listing, "id") == ["b.jpg"]
    (failure,) = listing.failures
    assert (failure.id, failure.stage, failure.exception) == ("a.jpg", "read", "FileNotFoundError")


@pytest.mark.parametrize("bad", [b"caf\xe9.jpg", b"100%\xff\xfe.jpg"])
def test_file_names_that_are_not_utf8_are_escaped(tmp_path: Path, bad: bytes) -> None:
    folder = tmp_path / "photos" / "class"
    folder.mkdir(parents=True)
    try:
        (folder / os.fsdecode(bad)).write_bytes(b"payload")
    except OSError:
        pytest.skip("this filesystem has only UTF-8 names")
    listing = open_source(tmp_path / "photos")
    (id,), (uri,) = column(listing, "id"), column(listing, "uri")
    assert id == "class/" + bad.decode("utf-8", "backslashreplace")
    assert str(uri).startswith("file://")
    assert listing.read(0) == read_uri(str(uri)) == b"payload"
    assert open_source(str(uri)).read(0) == b"payload"


def test_deleted_file_and_pipe_are_read_errors(tree: Tree) -> None:
    root = tree("a.jpg", "b.jpg")
    listing = open_source(root)
    (root / "a.jpg").unlink()
    with pytest.raises(ReadError, match=r"a\.jpg: no such file"):
        listing.read(0)
    (root / "b.jpg").unlink()
    os.mkfifo(root / "b.jpg")
    with pytest.raises(ReadError, match="named pipe"):
        listing.read(1)
    with pytest.raises(ReadError, match="a folder, not a file"):
        read_uri(str(root))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "the folder is empty"),
        (["a.tar", "b.tar"], r"found 2 \.tar; for WebDataset shards pass '.*/\*\.tar'"),
        (["labels.csv", "x.pdf"], r"pass the \.csv file itself"),
        (["a.pdf"], r"found 1 \.pdf"),
    ],
)
def test_folder_without_images_lists_its_file_types(tree: Tree, names: list[str], message: str) -> None:
    root = tree(*names)
    root.mkdir(exist_ok=True)
    with pytest.raises(SourceError, match=message):
        open_source(root)


def test_missing_source_suggests_a_name(tree: Tree) -> None:
    root = tree("a.jpg")
    with pytest.raises(SourceError, match="did you mean 'photos'"):
        open_source(root.parent / "photoz")
    with pytest.raises(SourceError, match="patterns are for"):
        open_source(root / "*.jpg")
    (root / "b.docx").touch()
    with pytest.raises(SourceError, match="a source must be a folder"):
        open_source(root / "b.docx")


def test_single_image_is_listed(tree: Tree) -> None:
    root = tree("my photo.jpg")
    listing = open_source(root / "my photo.jpg")
    assert column(listing, "id") == ["my photo.jpg"]
    assert listing.read(0) == b"my photo.jpg"
    assert listing.root == str(root / "my photo.jpg")


def test_root_exists_for_paths_and_patterns(tree: Tree) -> None:
    root = tree("a.jpg")
    assert root_exists(str(root))
    assert root_exists("memory")
    assert not root_exists(str(root / "gone"))


def test_many_files_are_listed_in_chunks(tmp_path: Path) -> None:
    folder = tmp_path / "many" / "one"
    folder.mkdir(parents=True)
    for i in range(16_400):
        (folder / f"{i:06d}.jpg").touch()
    listing = open_source(tmp_path / "many")
    assert len(listing) == 16_400
    assert listing.table.column("id").num_chunks == 2
    assert column(listing, "id") == [f"one/{i:06d}.jpg" for i in range(16_400)]
    assert listing.table.nbytes / len(listing) < 250
