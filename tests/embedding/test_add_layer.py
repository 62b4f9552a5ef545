"""`embed(store, add_layer=...)`: a vector column for every row, in one commit, without touching the others."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from command import run
from conftest import TINY, write_photo
from forked import Forks
from stored import make_store

import embedpipe
from embedpipe.embedding.layers.stored_items import list_stored
from embedpipe.errors import (
    ConcurrentWriteError,
    PruneRefusedError,
    SpecMismatchError,
    StoreError,
    UsageError,
)
from embedpipe.store.adopting import adopt, write_new_files
from embedpipe.store.layers.extending import extend
from embedpipe.store.maintenance import LAYERS

BOTH = ("features", "conv1")


@pytest.fixture
def store(photos: Path, tmp_path: Path) -> embedpipe.FeatureStore:
    return embedpipe.embed(photos, tmp_path / "store", backbone=TINY)


def add(store: embedpipe.FeatureStore, layer: str = "conv1", **options: object) -> embedpipe.FeatureStore:
    return embedpipe.embed(store.path, backbone=TINY, add_layer=layer, **options)


def same(a: embedpipe.FeatureStore, b: embedpipe.FeatureStore, layer: str) -> bool:
    return np.allclose(a.to_numpy(layer=layer), b.to_numpy(layer=layer), rtol=1e-4, atol=1e-5)


def test_the_layer_is_that_of_a_store_with_both(store: embedpipe.FeatureStore, photos: Path, tmp_path: Path) -> None:
    before, ids = store.to_numpy(), store.ids()
    added = add(store)
    both = embedpipe.embed(photos, tmp_path / "both", backbone=TINY, layer=BOTH)
    assert added.spec == both.spec
    assert same(added, both, "conv1")
    assert (added.to_numpy(layer="features") == before).all()
    assert added.ids() == ids
    assert (added.summary.seen, added.summary.embedded, added.summary.failed) == (12, 12, 0)
    assert embedpipe.verify(added, trust=True).ok
    assert not Path(store.path, LAYERS).exists()
    assert added.history(1)[0]["embedpipe.operation"] == "add layer conv1"


def test_heads_of_the_earlier_layer_and_of_both_work(store: embedpipe.FeatureStore) -> None:
    head = embedpipe.fit(store, head="centroid", folds=0)
    added = add(store)
    assert head.predict(added)["label"] == head.predict(embedpipe.FeatureStore(store.path, store.version))["label"]
    assert embedpipe.fit(added, head="centroid", folds=0, layer="conv1+features").layers == {"conv1": 8, "features": 12}


def test_readers_of_the_version_before_see_the_old_layers(store: embedpipe.FeatureStore) -> None:
    version = store.version
    add(store)
    assert embedpipe.FeatureStore(store.path, version).layers == {"features": 12}
    assert store.to_numpy().shape == (12, 12)
    assert store.refresh().layers == {"features": 12, "conv1": 8}


def test_again_does_nothing(store: embedpipe.FeatureStore) -> None:
    version = add(store).version
    again = embedpipe.embed(store, backbone=TINY, add_layer="conv1")
    assert (again.version, again.summary.reused, again.summary.embedded) == (version, 12, 0)
    assert "already" in again.summary.notes[0]


def test_new_photos_get_all_layers(store: embedpipe.FeatureStore, photos: Path, tmp_path: Path) -> None:
    add(store)
    write_photo(photos / "cat/new.jpg", seed=77)
    later = embedpipe.embed(photos, store.path, backbone=TINY)
    assert (later.summary.embedded, later.summary.reused) == (1, 12)
    assert same(later, embedpipe.embed(photos, tmp_path / "both", backbone=TINY, layer=BOTH), "conv1")
    assert embedpipe.embed(photos, store.path, backbone=TINY, layer="conv1").summary.reused == 13
    with pytest.raises(SpecMismatchError, match="conv2"):
        embedpipe.embed(photos, store.path, backbone=TINY, layer="conv2")


def test_a_changed_photo_gets_new_vectors_in_all_layers(
    store: embedpipe.FeatureStore, photos: Path, tmp_path: Path
) -> None:
    changed = store.ids()[3]
    store.label(pa.table({"id": [changed], "label": ["by hand"]}))
    write_photo(photos / changed, seed=99)
    added = add(store)
    assert "have changed" in " ".join(added.summary.notes)
    fresh = embedpipe.embed(photos, tmp_path / "both", backbone=TINY, layer=BOTH)
    assert same(added, fresh, "features")
    assert same(added, fresh, "conv1")
    columns = ["id", "content_hash"]
    assert added.to_arrow(columns) == fresh.to_arrow(columns)
    assert added.to_arrow(["label"])["label"][3].as_py() == "by hand"
    assert embedpipe.embed(photos, store.path, backbone=TINY).summary.embedded == 0


def test_an_item_that_is_gone_stops_it_and_nothing_is_lost(
    store: embedpipe.FeatureStore, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "forwarded"
    monkeypatch.setenv("TINY_LOG", str(log))
    gone = photos / store.ids()[0]
    content = gone.read_bytes()
    gone.unlink()
    with pytest.raises(StoreError, match=r"1 of 12 items failed.*Restore the items.*prune=True"):
        add(store)
    assert log.stat().st_size == 11
    assert embedpipe.FeatureStore(store.path).layers == {"features": 12}
    gone.write_bytes(content)
    assert add(store).summary.embedded == 1
    assert log.stat().st_size == 12


def test_items_that_are_gone_are_dropped_on_demand(store: embedpipe.FeatureStore, photos: Path) -> None:
    ids = store.ids()
    (photos / ids[0]).unlink()
    added = add(store, prune=True)
    assert added.ids() == ids[1:]
    assert (added.summary.seen, added.summary.embedded, added.summary.failed, added.summary.pruned) == (12, 11, 1, 1)
    assert added.failures()["id"].to_pylist() == ids[:1]


def test_dropping_most_items_needs_force(store: embedpipe.FeatureStore, photos: Path) -> None:
    for id in store.ids()[:7]:
        (photos / id).unlink()
    with pytest.raises(PruneRefusedError, match="force"):
        add(store, prune=True)
    assert len(add(store, prune=True, force=True)) == 5


def test_vectors_that_the_network_does_not_give_again_are_refused(store: embedpipe.FeatureStore) -> None:
    rows = store.to_arrow()
    other = rows.slice(0, 1).set_column(rows.schema.get_field_index("embedding"), "embedding", rows["embedding"][5:6])
    other = other.set_column(rows.schema.get_field_index("source_size"), "source_size", pa.array([1]))
    store.write(other)
    with pytest.raises(SpecMismatchError, match="must give the stored vectors again"):
        add(store)
    assert embedpipe.FeatureStore(store.path).layers == {"features": 12}


def test_writers_that_began_before_add_no_rows_without_the_layer(store: embedpipe.FeatureStore) -> None:
    rows = store.to_arrow()
    new = rows.slice(0, 1).set_column(0, "id", pa.array(["new"]))
    (file,) = write_new_files(new, store.table)
    add(store)
    with pytest.raises(ConcurrentWriteError, match="embedding_conv1"):
        store.write(new)
    with pytest.raises(ConcurrentWriteError, match="embedding_conv1"):
        adopt(store.table, [file], set())


def test_a_layer_that_another_process_added_meanwhile_is_not_lost(store: embedpipe.FeatureStore) -> None:
    conv2 = replace(store.spec.layers[0], name="conv2")
    spec = replace(store.spec, layers=(*store.spec.layers, conv2))
    add(store)
    with pytest.raises(ConcurrentWriteError, match="changed the layers"):
        extend(store.refresh(), spec, lambda rows: rows, {})
    assert store.refresh().layers == {"features": 12, "conv1": 8}


def test_a_compressed_store_stays_compressed(photos: Path, tmp_path: Path) -> None:
    added = add(embedpipe.embed(photos, tmp_path / "store", backbone=TINY, compress=True))
    assert added.compressed
    bits = added.to_numpy(layer="conv1").view(np.uint32)
    assert not (bits & 0x1FFF).any()


def test_forget_erases_what_is_staged(store: embedpipe.FeatureStore, photos: Path) -> None:
    ids = store.ids()
    (photos / ids[0]).unlink()
    with pytest.raises(StoreError):
        add(store)
    assert Path(store.path, LAYERS).is_dir()
    embedpipe.forget(store.path, [ids[1]])
    assert not Path(store.path, LAYERS).exists()


def test_what_does_not_apply_is_refused(store: embedpipe.FeatureStore, photos: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"add_layer": "conv1"}, "runs? code|names Python code"),
        ({"add_layer": "conv"}, "names Python code"),
        ({"backbone": TINY, "add_layer": "cnov1"}, "did you mean 'conv1'"),
        ({"backbone": "timm/test_resnet", "add_layer": "conv1"}, "takes the backbone of the store, python:tiny"),
        ({"backbone": TINY, "add_layer": "conv1", "precision": "bf16"}, "precision does not apply"),
        ({"backbone": TINY, "add_layer": "conv1", "label": "x"}, "label does not apply"),
        ({"backbone": TINY, "add_layer": "conv1", "to": tmp_path / "other"}, "leave it out"),
        ({"backbone": TINY, "add_layer": ["conv1", "conv1"]}, "each layer once"),
        ({"backbone": TINY}, "to must be"),
    ):
        with pytest.raises(UsageError, match=message):
            embedpipe.embed(store.path, **options)
    memory = embedpipe.embed(np.zeros((2, 32, 32, 3), np.uint8), tmp_path / "memory", backbone=TINY)
    with pytest.raises(UsageError, match=r"2 of .* embedded from memory"):
        add(memory)
    imported = embedpipe.import_vectors(np.eye(3, dtype=np.float32), tmp_path / "imported", ids=["a", "b", "c"])
    with pytest.raises(UsageError, match="imported"):
        embedpipe.embed(imported.path, add_layer="conv1")


@pytest.mark.parametrize("name", ["timm/test_resnet", "timm/test_resnet.r160_in1k"])
def test_backbone_of_the_store_may_be_named_with_and_without_its_tag(photos: Path, tmp_path: Path, name: str) -> None:
    store = embedpipe.embed(photos, tmp_path / "store", backbone="timm/test_resnet", weights="none")
    assert store.spec.name == "test_resnet.r160_in1k"
    with pytest.raises(SpecMismatchError, match=r"test_resnet.*resnet18"):
        embedpipe.embed(store.path, add_layer="layer3", backbone="timm/resnet18", weights="none")
    added = embedpipe.embed(store.path, add_layer="layer3", backbone=name, weights="none")
    assert [*added.layers] == ["features", "layer3"]


def test_checkpoint_of_the_store_may_be_named(photos: Path, tmp_path: Path) -> None:
    network = timm.create_model("test_resnet", num_classes=0)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    name = f"checkpoint/{tmp_path / 'weights.pt'}"
    store = embedpipe.embed(photos, tmp_path / "store", backbone=name, arch="timm/test_resnet")
    assert [*embedpipe.embed(store.path, add_layer="layer3", backbone=name).layers] == ["features", "layer3"]


def test_cells_are_read_by_file_and_row(tmp_path: Path) -> None:
    names = [f"parquet://image/{row}::/data/{file}.parquet" for file in "ba" for row in (100, 20, 3)]
    store = make_store(tmp_path / "store", np.eye(6), uri=names)
    listing = list_stored(store)
    assert listing.table["uri"].to_pylist() == [names[i] for i in (5, 4, 3, 2, 1, 0)]


def test_rows_of_a_parquet_table_get_the_layer(photos: Path, tmp_path: Path) -> None:
    files = sorted(photos.rglob("*.jpg"))
    table = pa.table({"id": [f"{i * 7 % 12}" for i in range(len(files))], "image": [f.read_bytes() for f in files]})
    pq.write_table(table, tmp_path / "photos.parquet", row_group_size=4)
    store = embedpipe.embed(tmp_path / "photos.parquet", tmp_path / "store", backbone=TINY, image="image", id="id")
    both = embedpipe.embed(
        tmp_path / "photos.parquet", tmp_path / "both", backbone=TINY, image="image", id="id", layer=BOTH
    )
    assert same(add(store), both, "conv1")


def test_on_the_command_line(store: embedpipe.FeatureStore) -> None:
    result = run("embed", store.path, "--add-layer", "conv1", "--backbone", TINY)
    assert result.exit_code == 0
    assert "12 items: 12 embedded" in result.stdout
    assert "added the layer conv1" in result.stdout
    wrong = run("embed", store.path, "--add-layer", "conv9", "--backbone", TINY)
    assert wrong.exit_code == 2
    assert "did you mean" in wrong.stderr


SLOW = """
import embedpipe
from embedpipe.embedding.writing import writer
writer.FLUSH_ROWS, writer.FLUSH_PAUSE = 8, 0
embedpipe.embed(sys.argv[1], backbone="python:tiny_backbone.make", add_layer="conv1", batch_size=4, engine="torch")
"""


@pytest.mark.long
def test_kills_lose_nothing_and_are_never_seen(make_photos: Callable[..., Path], tmp_path: Path) -> None:
    photos = make_photos(200)
    store = embedpipe.embed(photos, tmp_path / "store", backbone=TINY)
    expected = embedpipe.embed(photos, tmp_path / "both", backbone=TINY, layer=BOTH)
    log = tmp_path / "forwarded"
    env = {**os.environ, "TINY_SECONDS": "0.01", "TINY_LOG": str(log)}
    chance = random.Random(0)
    kills = 4
    with Forks(env) as forks:
        for _ in range(kills):
            forks.kill(f"import sys\nsys.argv = {['', store.path]}\n{SLOW}", log, chance.randint(1, 25))
            assert (embedpipe.FeatureStore(store.path).to_numpy() == store.to_numpy()).all()
    script = f"import sys\n{SLOW}"
    assert subprocess.run([sys.executable, "-c", script, store.path], env=env, timeout=120).returncode == 0
    store.refresh()
    assert same(store, expected, "conv1")
    assert log.stat().st_size <= 200 + kills * (8 + 3 * 4)
