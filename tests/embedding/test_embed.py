"""`embedpipe.embed`: every item is stored once, and only changes are embedded again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import TINY, write_photo
from PIL import Image

import embedpipe
from embedpipe.errors import (
    DuplicateIdError,
    PruneRefusedError,
    SourceError,
    SpecMismatchError,
    StoreError,
    UnreachableError,
    UsageError,
)


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "store"


def run(source: object, to: Path, **options: object) -> embedpipe.FeatureStore:
    return embedpipe.embed(source, to, **{"backbone": TINY, **options})


def counts(store: embedpipe.FeatureStore) -> tuple[int, int, int]:
    return store.summary.embedded, store.summary.reused, store.summary.failed


def test_embed_stores_vectors_by_id(photos: Path, to: Path) -> None:
    store = run(photos, to, batch_size=5)
    assert counts(store) == (12, 0, 0)
    X, y = store.to_numpy(label="label")
    assert X.shape == (12, 12)
    assert X.dtype == np.float32
    backbone = embedpipe.load_backbone(TINY)
    ids = store.ids()
    assert ids == sorted(str(path.relative_to(photos)) for path in photos.rglob("*.jpg"))
    for id, label, vector in zip(ids, y, X, strict=True):
        alone = backbone.forward(backbone.prepare((photos / id).read_bytes()).value[None])["embedding"][0]
        np.testing.assert_allclose(vector, alone, rtol=1e-4, atol=1e-6)
        assert label == id.split("/")[0]
    assert store.spec.fingerprint() == backbone.spec.fingerprint()


def test_second_run_embeds_nothing(photos: Path, to: Path) -> None:
    version = run(photos, to).version
    store = run(photos, to)
    assert counts(store) == (0, 12, 0)
    assert store.version == version
    assert counts(run(photos, to, checksum=True)) == (0, 12, 0)


def test_only_changed_items_are_embedded_again(photos: Path, to: Path) -> None:
    before = run(photos, to)
    old = dict(zip(before.ids(), before.to_numpy(), strict=True))
    touched, changed = photos / "cat/0000.jpg", photos / "dog/0001.jpg"
    os.utime(touched, ns=(1, 1))
    write_photo(changed, seed=99)
    write_photo(photos / "owl/new.jpg", seed=100)
    (photos / "owl/0002.jpg").rename(photos / "cat/moved.jpg")
    store = run(photos, to)
    assert counts(store) == (2, 11, 0)
    assert store.summary.gone == 1
    new = dict(zip(store.ids(), store.to_numpy(), strict=True))
    np.testing.assert_array_equal(new["cat/0000.jpg"], old["cat/0000.jpg"])
    np.testing.assert_array_equal(new["cat/moved.jpg"], old["owl/0002.jpg"])
    assert not np.allclose(new["dog/0001.jpg"], old["dog/0001.jpg"])
    labels = {row["id"]: row["label"] for row in store.to_arrow(["id", "label"]).to_pylist()}
    assert labels["cat/moved.jpg"] == "cat"
    assert counts(run(photos, to)) == (0, 13, 0)


def test_vectors_follow_renamed_photos(
    make_photos: Callable[..., Path], to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedpipe.embedding.writing.writer.FLUSH_ROWS", 4)
    photos = make_photos(20, classes=("all",))
    before = run(photos, to)
    before.label(pa.table({"id": before.ids(), "label": [f"was {id}" for id in before.ids()]}), into="note")
    old = dict(zip(before.ids(), before.to_numpy(), strict=True))
    names = sorted(path.name for path in photos.rglob("*.jpg"))
    folder = photos / "all"
    for name in names:
        (folder / name).rename(folder / f"_{name}")
    after = names[1:] + names[:1]
    for name, new in zip(names, after, strict=True):
        (folder / f"_{name}").rename(folder / new)
    store = run(photos, to, checksum=True)
    assert counts(store) == (0, 20, 0)
    new_vectors = dict(zip(store.ids(), store.to_numpy(), strict=True))
    notes = {row["id"]: row["note"] for row in store.to_arrow(["id", "note"]).to_pylist()}
    for name, new in zip(names, after, strict=True):
        np.testing.assert_array_equal(new_vectors[f"all/{new}"], old[f"all/{name}"])
        assert notes[f"all/{new}"] == f"was all/{name}"


def test_lists_in_memory_do_not_overwrite_each_other(to: Path) -> None:
    first, second = (np.full((40, 50, 3), value, np.uint8) for value in (10, 200))
    run([first], to)
    assert counts(run([first], to)) == (0, 1, 0)
    with pytest.raises(DuplicateIdError, match="is its position"):
        run([second], to)
    assert len(run([second], to, prefix="second")) == 2


def test_checksum_finds_changes_with_same_size_and_time(photos: Path, to: Path) -> None:
    run(photos, to)
    path = photos / "cat/0000.jpg"
    stat = path.stat()
    payload = bytearray(path.read_bytes())
    payload[-20] ^= 1
    path.write_bytes(payload)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert counts(run(photos, to)) == (0, 12, 0)
    assert counts(run(photos, to, checksum=True)) == (1, 11, 0)


def test_prune_drops_gone_items_and_refuses_most_of_a_root(photos: Path, to: Path) -> None:
    run(photos, to)
    (photos / "cat/0000.jpg").unlink()
    store = run(photos, to, prune=True)
    assert (store.summary.gone, store.summary.pruned, len(store)) == (1, 1, 11)
    for name in ("cat", "dog"):
        shutil.rmtree(photos / name)
    with pytest.raises(PruneRefusedError, match=r"7 of the 11 rows.*force=True"):
        run(photos, to, prune=True)
    assert len(embedpipe.FeatureStore(to)) == 11
    assert len(run(photos, to, prune=True, force=True)) == 4


def test_prefix_lets_roots_share_a_store(make_photos: Callable[..., Path], to: Path) -> None:
    first, second = make_photos(6, name="a"), make_photos(6, name="b")
    run(first, to)
    with pytest.raises(DuplicateIdError, match=r"6 ids of .*/b'.* already in .* from .*/a'.*a prefix"):
        run(second, to)
    store = run(second, to, prefix="b")
    assert counts(store) == (0, 6, 0), "vectors of the same images are reused"
    assert len(store) == 12
    shutil.rmtree(second / "cat")
    assert run(second, to, prefix="b", prune=True).summary.pruned == 2
    assert len(embedpipe.FeatureStore(to)) == 10


def test_moved_root_keeps_its_rows(photos: Path, to: Path, tmp_path: Path) -> None:
    run(photos, to)
    moved = photos.rename(tmp_path / "elsewhere")
    store = run(moved, to)
    assert counts(store) == (0, 12, 0)
    assert set(store.to_arrow(["source_root"])["source_root"].to_pylist()) == {str(moved)}
    assert counts(run(moved, to)) == (0, 12, 0)


def test_missing_root_with_other_content_is_an_error(
    make_photos: Callable[..., Path], to: Path, tmp_path: Path
) -> None:
    card = make_photos(6, name="card")
    run(card, to)
    card.rename(tmp_path / "unplugged")
    other = make_photos(6, name="other")
    for i, path in enumerate(sorted(other.rglob("*.jpg"))):
        write_photo(path, seed=100 + i)
    with pytest.raises(DuplicateIdError, match="which no longer exists, and their content differs"):
        run(other, to)
    assert len(run(other, to, prefix="other")) == 12


def test_failure_is_dropped_after_repair_in_a_moved_root(photos: Path, to: Path, tmp_path: Path) -> None:
    (photos / "cat/broken.jpg").write_bytes(b"no image")
    run(photos, to)
    moved = photos.rename(tmp_path / "moved")
    store = run(moved, to)
    assert counts(store) == (0, 12, 1)
    assert store.summary.notes == [f"the source has moved from {photos}"]
    moved.rename(photos)
    write_photo(photos / "cat/broken.jpg", seed=50)
    assert run(photos, to).failures().num_rows == 0


def test_prune_keeps_rows_of_other_prefixes(photos: Path, to: Path) -> None:
    run(photos, to, prefix="a")
    store = run(photos, to, prefix="b", prune=True)
    assert (store.summary.gone, len(store)) == (0, 24)


def test_longer_file_list_reuses_items(photos: Path, to: Path, tmp_path: Path) -> None:
    paths = sorted(str(path) for path in photos.rglob("*.jpg"))
    for name, part in (("monday.txt", paths[:6]), ("tuesday.txt", paths)):
        (tmp_path / name).write_text("\n".join(part))
    run(tmp_path / "monday.txt", to)
    assert counts(run(tmp_path / "tuesday.txt", to)) == (6, 6, 0)


def test_empty_source_is_refused(to: Path) -> None:
    with pytest.raises(SourceError, match="at least one item"):
        run([], to)
    assert not to.exists()


def test_link_to_a_root_is_the_same_root(photos: Path, to: Path, tmp_path: Path) -> None:
    run(photos, to)
    (tmp_path / "link").symlink_to(photos)
    assert counts(run(tmp_path / "link", to)) == (0, 12, 0)
    assert len(run(photos, to, prune=True)) == 12


def test_labels_set_later_survive_runs(tmp_path: Path, to: Path) -> None:
    for i in range(4):
        write_photo(tmp_path / "flat" / f"{i}.jpg", seed=i)
    store = run(tmp_path / "flat", to)
    assert "label" not in store.schema.names
    change = store.label(pa.table({"id": ["0.jpg", "1.jpg", "nowhere"], "label": [1.5, 2.5, 3.5]}))
    assert change.replaced == 2
    os.utime(tmp_path / "flat/0.jpg", ns=(5, 5))
    (tmp_path / "flat/1.jpg").rename(tmp_path / "flat/9.jpg")
    write_photo(tmp_path / "flat/2.jpg", seed=50)
    store = run(tmp_path / "flat", to, prune=True)
    assert store.to_arrow(["id", "label"]).to_pylist() == [
        {"id": "0.jpg", "label": 1.5},
        {"id": "2.jpg", "label": None},
        {"id": "3.jpg", "label": None},
        {"id": "9.jpg", "label": 1.5 + 1},
    ]
    with pytest.warns(UserWarning, match="2 of 4 rows have no 'label'"):
        X, y = store.to_numpy(label="label")
    assert (len(X), y.tolist()) == (2, [1.5, 2.5])


def test_changed_metadata_is_updated_without_embedding(photos: Path, to: Path) -> None:
    ids = sorted(str(path) for path in photos.rglob("*.jpg"))
    table = pa.table({"path": ids, "label": ["x"] * 12, "split": ["train"] * 12, "price": [1.0] * 12})
    assert counts(run(table, to)) == (12, 0, 0)
    again = table.set_column(3, "price", pa.array([1.0] * 11 + [9.0]))
    store = run(again, to)
    assert counts(store) == (0, 12, 0)
    assert store.to_arrow(["price"])["price"].to_pylist() == [1.0] * 11 + [9.0]
    assert store.to_numpy(split="train").shape == (12, 12)
    with pytest.raises(UsageError, match="no split 'test'"):
        store.to_numpy(split="test")


def test_labels_of_another_type_are_refused_before_embedding(photos: Path, to: Path) -> None:
    paths = sorted(str(path) for path in photos.rglob("*.jpg"))
    run(pa.table({"path": paths[:6], "label": [1, 2] * 3}), to)
    assert run(pa.table({"path": paths[:6], "label": [1.0, 2.0] * 3}), to).summary.reused == 6
    with pytest.raises(StoreError, match=r"'label' holds string values that do not fit the type int64"):
        run(pa.table({"path": paths, "label": ["cat"] * 12}), to)
    assert len(embedpipe.FeatureStore(to)) == 6


def test_images_and_arrays_in_memory_are_embedded(to: Path) -> None:
    images = [Image.new("RGB", (50, 40), (i * 20, 0, 0)) for i in range(3)]
    arrays = [np.full((40, 50, 3), 7, np.uint8)]
    store = run([*images, *arrays], to)
    assert counts(store) == (4, 0, 0)
    assert store.ids() == ["00000000", "00000001", "00000002", "00000003"]


def test_batch_size_does_not_change_vectors(photos: Path, tmp_path: Path) -> None:
    X = [run(photos, tmp_path / str(size), batch_size=size).to_numpy() for size in (1, 7, 64)]
    norm = np.linalg.norm(X[0], axis=1)
    for other in X[1:]:
        assert (np.linalg.norm(other - X[0], axis=1) <= 1e-4 * norm).all()


def test_out_of_memory_halves_the_batch(photos: Path, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedpipe.backbones.engines.engine.PART", 12)  # a whole batch in one pass, as on a GPU
    store = run(photos, to, backbone="python:tiny_backbone.make_hungry", batch_size=12)
    assert counts(store) == (12, 0, 0)
    assert store.summary.batch_size == 3


def test_items_that_fail_in_the_backbone_become_failures(photos: Path, to: Path) -> None:
    Image.new("RGB", (40, 40), "white").save(photos / "white.png")
    Image.new("RGB", (40, 40), "black").save(photos / "black.png")
    store = run(photos, to, backbone="python:tiny_backbone.make_fussy")
    assert counts(store) == (12, 0, 2)
    failures = {row["id"]: (row["stage"], row["exception"]) for row in store.failures().to_pylist()}
    assert failures == {"white.png": ("forward", "ForwardError"), "black.png": ("forward", "ValueError")}


def test_a_server_that_is_away_is_no_fault_of_the_items(
    photos: Path, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*args: object) -> None:
        raise UnreachableError("the server does not answer")

    monkeypatch.setattr("embedpipe.backbones.image_backbone.ImageBackbone._captured", away)
    with pytest.raises(UnreachableError, match="does not answer"):
        run(photos, to)
    monkeypatch.undo()
    assert counts(run(photos, to)) == (12, 0, 0)


def test_another_spec_is_refused(photos: Path, to: Path) -> None:
    run(photos, to)
    with pytest.raises(SpecMismatchError, match=r"layers\[0\]\.name: 'features' in the store, 'conv1' given"):
        run(photos, to, layer=("conv1",))


def test_several_layers_are_stored(photos: Path, to: Path) -> None:
    store = run(photos, to, layer=("features", "conv1"))
    assert store.dims == {"embedding": 12, "embedding_conv1": 8}
    assert store.to_numpy(layer="conv1").shape == (12, 8)
    with pytest.raises(UsageError, match=r"holds several layers: give one of features, conv1, or several joined by \+"):
        store.to_numpy()
    for one in (store.mapped, lambda: embedpipe.reduce(store), lambda: embedpipe.SimilarityIndex.build(store)):
        with pytest.raises(UsageError, match=r"give one of features, conv1 \(layer='features'"):
            one()


def test_invalid_options_are_named(photos: Path, to: Path) -> None:
    with pytest.raises(UsageError, match="unknown option 'batchsize'; did you mean 'batch_size'"):
        run(photos, to, batchsize=3)
    with pytest.raises(UsageError, match="batch_size must be an integer >= 1, got 0"):
        run(photos, to, batch_size=0)
    with pytest.raises(UsageError, match="no layer 'conv9'"):
        run(photos, to, layer=("conv9",))
    with pytest.raises(UsageError, match="is not a feature store"):
        run(photos, photos)
    with pytest.raises(UsageError, match="must be a folder, and"):
        run(photos, photos / "cat/0000.jpg")
    with pytest.raises(UsageError, match="percent sign"):
        run(photos, to / "a%20b")
    assert not to.exists()


def test_summary_has_device_and_stages(photos: Path, to: Path) -> None:
    summary = run(photos, to, device="cpu").summary.to_dict()
    assert summary["device"] == "cpu"
    assert summary["seen"] == 12
    assert {"read", "decode", "forward", "write"} <= set(summary["stages"])
    assert embedpipe.FeatureStore(to).history()[0]["embedpipe.run"]
