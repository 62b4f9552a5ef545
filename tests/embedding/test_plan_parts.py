"""Parts of the plan of a run: lookup of ids and contents, and stores read in several parts."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import make_spec

import embedpipe
from embedpipe import FeatureStore
from embedpipe.embedding import hash_index, plan
from embedpipe.embedding.hash_index import Contents, HashIndex
from embedpipe.embedding.plan import make_plan
from embedpipe.errors import UsageError
from embedpipe.sources.columns import spool
from embedpipe.sources.listing import SCHEMA, Listing
from embedpipe.sources.reading import Files, take_near
from embedpipe.store.id_index import IdIndex
from embedpipe.store.schema import vector_column


@given(st.lists(st.integers(0, 19), max_size=30))
def test_take_near_takes_rows(rows: list[int]) -> None:
    table = pa.table({"x": pa.chunked_array([list(range(7)), list(range(7, 20))])})
    assert take_near(table, np.array(rows, np.int64))["x"].to_pylist() == rows


@pytest.mark.parametrize("sorted_rows", [hash_index.SORTED_ROWS, 100])
def test_hash_index_finds_contents(monkeypatch: pytest.MonkeyPatch, sorted_rows: int) -> None:
    monkeypatch.setattr(hash_index, "SORTED_ROWS", sorted_rows)
    monkeypatch.setattr(spool, "KEPT_BYTES", 10_000)
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
    twice = HashIndex([*parts, (pa.chunked_array([hashes]), pa.chunked_array([[f"copy of {id}" for id in ids]]))])
    assert [[*twice.find_all(digest)] for digest in hashes] == [[id, f"copy of {id}"] for id in ids]
    assert index.find(hashlib.sha256(b"other").hexdigest()) is None
    assert index.find("0" * 64) is None
    assert HashIndex().find("0" * 64) is None


def test_contents_of_listed_rows_and_of_others() -> None:
    digest = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(4)]
    ids = pa.chunked_array([["c", "a"], ["new"]])
    stored = [(["x", "a", "b"], [1, 1, 2]), (["c", "d"], [1, 0])]
    parts = [
        (pa.chunked_array([[digest[content] for content in contents]]), pa.chunked_array([names]))
        for names, contents in stored
    ]
    contents = Contents(parts, ids, IdIndex(ids))
    assert [[contents.is_same(row, each) for each in digest] for row in range(3)] == [
        [False, True, False, False],
        [False, True, False, False],
        [False] * 4,
    ]
    assert [contents.find(1, each) for each in digest] == ["d", "a", "b", None]
    assert sorted(HashIndex(parts, ids, IdIndex(ids)).find_all(digest[1])) == ["a", "c", "x"]
    similar = digest[0][:16] + digest[1][16:]
    assert contents.find(0, similar) is None
    assert not contents.is_same(0, digest[1][:16] + digest[0][16:])


ITEMS = st.dictionaries(
    st.text(st.sampled_from("ab/é"), min_size=1, max_size=3),
    st.tuples(st.sampled_from([1, 2]), st.sampled_from([1, 2]), st.sampled_from(["x", "y", None])),
    max_size=12,
)


@settings(max_examples=15, deadline=None)
@given(ITEMS, ITEMS, st.randoms(), st.integers(1, 5))
def test_plan_is_that_of_dictionaries(listed: dict, stored: dict, random: Random, chunk: int) -> None:
    def table(items: list[tuple[str, tuple]]) -> pa.Table:
        rows = [
            {
                "id": id,
                "uri": f"/photos/{id}",
                "source_size": size,
                "source_modified": time,
                "label": label,
                "split": None,
            }
            for id, (size, time, label) in items
        ]
        return pa.concat_tables([SCHEMA.empty_table(), pa.Table.from_pylist(rows, SCHEMA)])

    order = random.sample([*listed], len(listed))
    whole = table([(id, listed[id]) for id in order])
    parts = [whole.slice(start, chunk) for start in range(0, len(whole), chunk)]
    listing = Listing(pa.concat_tables([whole.slice(0, 0), *parts]), "/photos", Files(whole["uri"], "image"))
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore.create(folder, make_spec(2))
        names = random.sample([*stored], len(stored))
        for start in range(0, len(names), 5):  # files whose ranges of ids overlap
            some = table([(id, stored[id]) for id in names[start : start + 5]])
            some = some.append_column("content_hash", pa.array(["0" * 64] * len(some)))
            some = some.append_column("source_root", pa.array(["/photos"] * len(some)))
            store.write(some.append_column("embedding", vector_column(np.zeros((len(some), 2), np.float32))))
        made = make_plan(listing, store.refresh())
    changed = [id for id in order if id in stored and listed[id][:2] != stored[id][:2]]
    relabelled = [id for id in order if id in stored and id not in changed and listed[id][2] != stored[id][2]]
    known = any(
        label is not None for _, _, label in listed.values()
    )  # a source without labels leaves those of the store
    rows = {id: row for row, id in enumerate(order)}
    assert made.read.tolist() == [rows[id] for id in order if id not in stored] + [rows[id] for id in changed]
    assert made.new == len({*listed} - {*stored})
    assert made.update.tolist() == [rows[id] for id in relabelled if known]
    assert made.unchanged == len({*listed} & {*stored}) - len(changed) - len(made.update)
    assert sorted(made.gone) == sorted({*stored} - {*listed})
    assert made.rows_of_root == len(stored)


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
