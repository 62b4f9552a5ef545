"""Parts of the plan of a run: lookup of ids and contents, and stores read in several parts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st

import embedpipe
from embedpipe.embedding import plan
from embedpipe.embedding.hash_index import HashIndex
from embedpipe.errors import UsageError
from embedpipe.sources.reading import take_near


@given(st.lists(st.integers(0, 19), max_size=30))
def test_take_near_takes_rows(rows: list[int]) -> None:
    table = pa.table({"x": pa.chunked_array([list(range(7)), list(range(7, 20))])})
    assert take_near(table, np.array(rows, np.int64))["x"].to_pylist() == rows


def test_hash_index_finds_contents() -> None:
    hashes = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(1500)]
    assert any(digest.endswith("00") for digest in hashes)
    ids = [f"item {i}" for i in range(1500)]
    others = pa.chunked_array([["no hash", None, "G" * 64, "f" * 63 + "ff"]], pa.string())
    parts = [
        (pa.chunked_array([hashes[:3], hashes[3:700]]), pa.chunked_array([ids[:700]])),
        (others, pa.chunked_array([["a", "b", "c", "d"]])),
        (pa.chunked_array([hashes[600:]]).slice(100), pa.chunked_array([ids[700:]])),
    ]
    index = HashIndex(parts)
    assert [index.find(digest) for digest in hashes] == ids
    assert index.find(hashlib.sha256(b"other").hexdigest()) is None
    assert index.find("0" * 64) is None
    assert HashIndex().find("0" * 64) is None


def test_plan_in_many_parts_gives_the_same_result(
    make_photos: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "PART_ROWS", 4)
    photos, to = make_photos(20), tmp_path / "store"
    paths = sorted(photos.rglob("*.jpg"))
    for part in (paths[::3], paths[1::3], paths[2::3]):  # files with overlapping id ranges
        embedpipe.embed([str(path) for path in part], to, backbone=TINY)
    store = embedpipe.embed([str(path) for path in reversed(paths)], to, backbone=TINY)
    assert (store.summary.embedded, store.summary.reused) == (0, 20)
    assert store.summary.gone == 0
    paths[5].write_bytes(paths[6].read_bytes())
    paths[7].unlink()
    store = embedpipe.embed([str(path) for path in paths if path != paths[7]], to, backbone=TINY, prune=True)
    assert (store.summary.embedded, store.summary.reused, store.summary.pruned) == (0, 19, 1)
    assert len(store) == 19


def test_unchanged_parquet_table_is_not_read_again(tmp_path: Path) -> None:
    from tiny_text_backbone import TINY_TEXT

    pa.parquet.write_table(pa.table({"id": ["a", "b"], "text": ["one", "two"]}), tmp_path / "texts.parquet")
    options = {"backbone": TINY_TEXT, "text": "text"}
    first = embedpipe.embed(tmp_path / "texts.parquet", tmp_path / "store", **options)
    again = embedpipe.embed(tmp_path / "texts.parquet", tmp_path / "store", **options)
    assert (again.summary.embedded, again.summary.reused) == (0, 2)
    assert again.version == first.version
    assert "read" not in again.summary.stages
    pa.parquet.write_table(pa.table({"id": ["a", "b"], "text": ["one", "new"]}), tmp_path / "texts.parquet")
    changed = embedpipe.embed(tmp_path / "texts.parquet", tmp_path / "store", **options)
    assert (changed.summary.embedded, changed.summary.reused) == (1, 1)


def test_compressed_store_stays_compressed(make_photos: Callable[..., Path], tmp_path: Path) -> None:
    photos = make_photos(5)
    plain = embedpipe.embed(photos, tmp_path / "plain", backbone=TINY)
    small = embedpipe.embed(photos, tmp_path / "small", backbone=TINY, compress=True)
    assert small.compressed
    assert not plain.compressed
    np.testing.assert_allclose(small.to_numpy(), plain.to_numpy(), rtol=2**-10)
    assert embedpipe.embed(make_photos(8), tmp_path / "small", backbone=TINY).compressed
    with pytest.raises(UsageError, match="is not compressed"):
        embedpipe.embed(photos, tmp_path / "plain", backbone=TINY, compress=True)
