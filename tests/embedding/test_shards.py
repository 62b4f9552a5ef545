"""Shards: several processes fill one store with every item once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from conftest import TINY

import embedpipe
from embedpipe.embedding.options import Shard
from embedpipe.errors import UsageError


def test_shards_give_the_store_of_one_run(make_photos, tmp_path):
    photos = make_photos(40)
    (photos / "broken.png").write_bytes(b"no picture")
    whole = embedpipe.embed(photos, tmp_path / "whole", backbone=TINY)
    for shard in ("1/3", "2/3", "3/3"):
        store = embedpipe.embed(photos, tmp_path / "parts", backbone=TINY, shard=shard)
        done = store.summary
        assert done.seen == 41 == done.embedded + done.reused + done.failed + done.others
    assert store.ids() == whole.ids()
    assert store.to_arrow(["id", "content_hash"]) == whole.to_arrow(["id", "content_hash"])
    np.testing.assert_allclose(store.to_numpy(), whole.to_numpy(), rtol=1e-4, atol=1e-6)
    assert store.failures().column("id").to_pylist() == ["broken.png"]
    assert embedpipe.embed(photos, tmp_path / "parts", backbone=TINY).summary.embedded == 0


def test_failures_of_other_shards_stay(make_photos, tmp_path):
    photos = make_photos(4)
    for name in ("a.png", "b.png", "c.png", "d.png", "e.png", "f.png"):
        (photos / name).write_bytes(b"no picture")
    for shard in ("1/2", "2/2", "1/2"):
        store = embedpipe.embed(photos, tmp_path / "parts", backbone=TINY, shard=shard)
    assert len(store.failures()) == 6


def test_every_id_belongs_to_one_shard():
    ids = pa.chunked_array([[f"photo {number}.jpg" for number in range(1000)]])
    marks = np.stack([Shard(number, 7).marks(ids) for number in range(1, 8)])
    assert (marks.sum(0) == 1).all()
    assert (marks.sum(1) > 80).all()


@pytest.mark.parametrize("shard", ["0/4", "5/4", "a/b", "1", "1/0", ""])
def test_invalid_shards_are_refused(shard, tmp_path):
    with pytest.raises(UsageError, match="shard must be I/N"):
        embedpipe.embed(tmp_path, tmp_path / "store", backbone=TINY, shard=shard)


def test_shard_of_another_type_is_refused(tmp_path):
    with pytest.raises(UsageError, match="shard must be text"):
        embedpipe.embed(tmp_path, tmp_path / "store", backbone=TINY, shard=3)


def test_prune_refuses_a_shard(tmp_path):
    with pytest.raises(UsageError, match="without shard"):
        embedpipe.embed(tmp_path, tmp_path / "store", backbone=TINY, shard="1/2", prune=True)
