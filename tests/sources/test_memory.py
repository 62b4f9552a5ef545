"""Sequences in memory, and file lists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from oddities import picture

from embedpipe.errors import DuplicateIdError, ReadError, SourceError
from embedpipe.sources import SourceOptions, list_items, open_source


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """Two files whose contents are their names."""
    names = ["a.jpg", "ü b.jpg"]
    for name in names:
        (tmp_path / name).write_text(name)
    return [str(tmp_path / name) for name in names]


@pytest.mark.parametrize(
    "make",
    [list, tuple, np.array, lambda p: np.array(p, object), pd.Series, pl.Series, lambda p: [Path(x) for x in p]],
    ids=["list", "tuple", "string array", "object array", "pandas", "polars", "pathlib"],
)
def test_sequences_of_paths_are_listed(make: Any, paths: list[str]) -> None:
    listing = open_source(make(paths))
    assert listing.root == "memory"
    assert listing.table.column("id").to_pylist() == paths
    assert listing.table.column("uri").to_pylist() == paths
    assert listing.table.column("source_size").to_pylist() == [5, 8]
    assert [listing.read(0), listing.read(1)] == [b"a.jpg", "ü b.jpg".encode()]


def test_mixed_items_are_listed(paths: list[str]) -> None:
    array = np.zeros((4, 5, 3), np.uint8)
    items = [picture(), paths[0], b"bytes", array, None]
    listing = open_source(items)
    assert listing.table.column("id").to_pylist() == ["00000000", paths[0], "00000002", "00000003", "00000004"]
    assert listing.table.column("uri").to_pylist() == [None, paths[0], None, None, None]
    assert listing.read(0) is items[0]
    assert listing.read(2) == b"bytes"
    assert listing.read(3) is array
    with pytest.raises(ReadError, match="item 4 is missing: None"):
        listing.read(4)


def test_array_of_images_is_listed() -> None:
    array = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    listing = open_source(array)
    assert len(listing) == 2
    np.testing.assert_array_equal(listing.read(1), array[1])


@pytest.mark.parametrize(
    "source",
    [np.zeros((2, 4, 5, 3)), np.zeros((4, 5, 3), np.uint8), np.zeros(3), 7, None, b"bytes", {1: 2}],
    ids=["floats", "one image", "numbers", "int", "None", "bytes", "dict"],
)
def test_invalid_sources_are_refused(source: object) -> None:
    with pytest.raises(SourceError, match="must be"):
        open_source(source)


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        (lambda: iter([]), "function: give what it returns"),
        (pl.LazyFrame({"path": ["a.jpg"]}), "its collect()"),
    ],
    ids=["generator function", "lazy frame"],
)
def test_what_gives_a_source_when_called_is_refused_with_advice(source: object, advice: str) -> None:
    with pytest.raises(SourceError, match=re.escape(advice)):
        open_source(source)


def test_given_ids_are_used(paths: list[str]) -> None:
    assert list_items(paths, ids=["x", "y"]).table.column("id").to_pylist() == ["x", "y"]
    with pytest.raises(SourceError, match="got 1 ids for 2 items"):
        list_items(paths, ids=["x"])


def test_repeated_path_is_refused(paths: list[str]) -> None:
    with pytest.raises(DuplicateIdError, match=r"a\.jpg"):
        open_source([*paths, paths[0]])


def test_empty_sequence_is_refused() -> None:
    with pytest.raises(SourceError, match="at least one item"):
        open_source([])


@pytest.mark.parametrize("suffix", [".txt", ".lst"])
def test_file_list_is_read(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "list folder"
    (folder / "sub").mkdir(parents=True)
    for name in ("a b.jpg", "sub/c.jpg"):
        (folder / name).write_text(name)
    other = tmp_path / "other.jpg"
    other.write_text("other")
    path = folder / f"names{suffix}"
    lines = ["a b.jpg", "", "./sub/c.jpg", "   ", str(other), other.as_uri()]
    path.write_bytes("\r\n".join(["\ufeff" + lines[0], *lines[1:]]).encode())
    listing = open_source(path, SourceOptions(allow_root=(str(tmp_path),)))
    assert listing.table.column("id").to_pylist() == [lines[i] for i in (0, 2, 4, 5)]
    assert listing.root == str(path)
    assert [listing.read(i) for i in range(4)] == [b"a b.jpg", b"sub/c.jpg", b"other", b"other"]
    assert listing.table.column("uri")[1].as_py() == str(folder / "sub/c.jpg")


def test_empty_file_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\n\n")
    with pytest.raises(SourceError, match="of an image per line"):
        open_source(tmp_path / "names.txt")
