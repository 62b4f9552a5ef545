"""`reduce`: a layer of principal components, learned on the store, through which new items and queries go too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from command import run
from conftest import TINY, write_photo
from sklearn.decomposition import PCA
from stored import make_store

import embedpipe
from embedpipe.backbones.options import ReloadOptions
from embedpipe.backbones.projection import read_projection
from embedpipe.embedding.layers.principal_components import fit_components
from embedpipe.errors import StoreError, UsageError
from embedpipe.finetuning.source import load_frozen
from embedpipe.store.layers.projections import PROJECTIONS


def made_up(rows: int = 120, dim: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scales = np.geomspace(1, 0.05, dim)
    return (rng.normal(size=(rows, dim)) * scales @ rng.normal(size=(dim, dim)) + 100).astype(np.float32)


@pytest.mark.parametrize("whiten", [False, True])
def test_components_are_those_of_scikit_learn(whiten: bool) -> None:
    X = made_up()
    pca = PCA(5, whiten=whiten, svd_solver="full").fit(X.astype(np.float64))
    found = fit_components([X[:7], X[7:50], X[50:]], 5, whiten=whiten)
    expected, projected = pca.transform(X), found.projection(X)
    signs = np.sign((expected * projected).sum(axis=0))
    np.testing.assert_allclose(projected * signs, expected, rtol=1e-3, atol=1e-4)
    assert found.explained == pytest.approx(pca.explained_variance_ratio_.sum(), rel=1e-6)
    if whiten:
        np.testing.assert_allclose(projected.std(axis=0, ddof=1), 1, rtol=1e-3)


def test_blocks_do_not_matter() -> None:
    X = made_up()
    whole, parts = (fit_components(blocks, 4, whiten=False).projection for blocks in ([X], np.array_split(X, 9)))
    np.testing.assert_allclose(whole.matrix, parts.matrix, atol=1e-9)


def test_more_components_than_directions_are_refused() -> None:
    X = np.repeat(made_up(60, 3), 2, axis=1)
    with pytest.raises(UsageError, match="dimensions must be <= 3"):
        fit_components([X], 5, whiten=True)
    with pytest.raises(UsageError, match="dimensions must be < 6"):
        fit_components([X], 6, whiten=False)
    with pytest.raises(UsageError, match="vectors must differ to have principal components, and all 9 are equal"):
        fit_components([np.ones((9, 3), np.float32)], 2, whiten=False)


def test_test_rows_are_not_seen(tmp_path: Path) -> None:
    X = made_up()
    splits = ["Training"] * 60 + ["val"] * 30 + ["test"] * 30
    store = make_store(tmp_path / "store", X, split=splits, label=["a", "b"] * 60)
    report = embedpipe.reduce(store, dimensions=3, sample=50)
    expected = fit_components([X[:60]], 3, whiten=False).projection(X)
    np.testing.assert_allclose(store.refresh().to_numpy(layer="features.pca3"), expected, rtol=1e-4, atol=1e-4)
    assert (report.fitted_rows, report.fitted_on) == (60, "the rows of the split train")
    assert (report.compared, report.compared_on) == (50, "rows that the projection has not seen")
    assert 0 < report.explained_variance <= 1
    assert 0 < report.neighbours_kept <= 1
    assert report.head
    assert report.head.classes == 2
    other = make_store(tmp_path / "other", X, split=[None if s == "Training" else s for s in splits])
    assert "not in the split test" in embedpipe.reduce(other, dimensions=3, sample=0).fitted_on


def test_other_test_rows_give_the_same_projection(tmp_path: Path) -> None:
    X = made_up()
    moved = X.copy()
    moved[90:] *= -3
    splits = ["train"] * 90 + ["test"] * 30
    hashes = set()
    for name, values in (("one", X), ("two", moved)):
        store = make_store(tmp_path / name, values, split=splits)
        embedpipe.reduce(store, dimensions=3, sample=0)
        hashes.add(store.refresh().spec.layers[-1].reduction.sha256)
    assert len(hashes) == 1


@pytest.fixture
def photos_store(make_photos: Callable[..., Path], tmp_path: Path) -> tuple[Path, embedpipe.FeatureStore]:
    photos = make_photos(40)
    store = embedpipe.embed(photos, tmp_path / "store", backbone=TINY)
    before = store.to_numpy()
    embedpipe.reduce(store, dimensions=4)
    assert (store.refresh().to_numpy(layer="features") == before).all()
    assert (store.to_numpy() == before).all()  # what reads the store without a name reads what it did before
    return photos, store


def test_new_photos_queries_and_predictions_go_through_it(
    photos_store: tuple[Path, embedpipe.FeatureStore], tmp_path: Path
) -> None:
    photos, store = photos_store
    (reduction,) = (layer.reduction for layer in store.spec.layers if layer.reduction)
    write_photo(photos / "cat/zz-new.jpg", seed=321)
    later = embedpipe.embed(photos, store.path, backbone=TINY)
    assert later.summary.embedded == 1
    expected = reduction.read()(later.to_numpy(layer="features"))
    np.testing.assert_allclose(later.to_numpy(layer="features.pca4"), expected, rtol=1e-5, atol=1e-6)
    copy = write_photo(tmp_path / "copy.jpg", seed=321)
    hits = embedpipe.search(later, str(copy), layer="features.pca4", trust=True, k=1)
    assert hits.table["id"].to_pylist() == ["cat/zz-new.jpg"]
    head = embedpipe.fit(later, head="centroid", layer="features.pca4", folds=0, to=tmp_path / "head")
    loaded = embedpipe.load_head(tmp_path / "head")
    Path(store.path).rename(tmp_path / "elsewhere")  # a head holds its projection
    again = embedpipe.load_head(tmp_path / "head").predict(photos, trust=True)
    assert again["label"] == loaded.predict(embedpipe.FeatureStore(tmp_path / "elsewhere"))["label"]
    assert head.layers == {"features.pca4": 4}
    assert embedpipe.verify(tmp_path / "elsewhere", trust=True).ok


def test_a_layer_is_added_beside_it(photos_store: tuple[Path, embedpipe.FeatureStore]) -> None:
    photos, store = photos_store
    changed = store.ids()[2]
    write_photo(photos / changed, seed=5)
    added = embedpipe.embed(store.path, backbone=TINY, add_layer="conv1")
    assert added.layers == {"features": 12, "features.pca4": 4, "conv1": 8}
    (reduction,) = (layer.reduction for layer in added.spec.layers if layer.reduction)
    expected = reduction.read()(added.to_numpy(layer="features"))
    np.testing.assert_allclose(added.to_numpy(layer="features.pca4"), expected, rtol=1e-5, atol=1e-6)


def test_verify_finds_vectors_that_are_not_projected(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", made_up())
    embedpipe.reduce(store, dimensions=3, sample=0)
    assert embedpipe.verify(store.refresh(), sample=0).ok
    rows = store.to_arrow().slice(0, 2)
    at = rows.schema.get_field_index("embedding_features_pca3")
    other = rows.set_column(at, rows.schema.field(at), rows.column(at).take(pa.array([1, 0])))
    store.write(other.set_column(rows.schema.get_field_index("source_size"), "source_size", pa.array([1, 1])))
    report = embedpipe.verify(store.refresh(), sample=0)
    assert report.checks[-1].detail == "2 vectors of ['embedding_features_pca3'] are not those of their projection"


def test_a_damaged_projection_is_refused(photos_store: tuple[Path, embedpipe.FeatureStore]) -> None:
    _, store = photos_store
    (file,) = Path(store.path, PROJECTIONS).iterdir()
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    spec = embedpipe.FeatureStore(store.path).spec
    read_projection.cache_clear()
    with pytest.raises(StoreError, match="SHA-256"):
        spec.vectors({"embedding": store.to_numpy(layer="features")})
    file.unlink()
    with pytest.raises(StoreError, match="missing"):
        spec.vectors({"embedding": store.to_numpy(layer="features")})


def test_imported_vectors_are_reduced_too(tmp_path: Path) -> None:
    X = made_up(40)
    ids = [f"{i:02d}" for i in range(len(X))]
    store = embedpipe.import_vectors(X[:30], tmp_path / "store", ids=ids[:30], labels=["a", "b"] * 15)
    embedpipe.reduce(store, dimensions=3, sample=0)
    more = embedpipe.import_vectors(X[30:], store.path, ids=ids[30:])
    assert more.layers == {"features": 12, "features.pca3": 3}
    expected = more.spec.vectors({"embedding": X})["embedding_features_pca3"]
    np.testing.assert_allclose(more.to_numpy(layer="features.pca3"), expected, rtol=1e-5, atol=1e-5)
    hits = embedpipe.search(more, X[7], layer="features.pca3", k=1)
    assert hits.table["id"].to_pylist() == [ids[7]]
    head = embedpipe.fit(store, head="centroid", layer="features.pca3", folds=0)
    assert head.predict(X[:5])["label"].to_pylist() == head.predict(store.refresh())["label"].to_pylist()[:5]


def test_what_cannot_be_reduced_is_refused(photos_store: tuple[Path, embedpipe.FeatureStore]) -> None:
    _, store = photos_store
    for options, message in (
        ({"dimensions": 4}, "already"),  # no layer is asked for, as the network gave one
        ({"layer": "features.pca4", "dimensions": 2}, "one layer of the network"),
        ({"layer": "features", "dimensions": 12}, "dimensions must be < 12"),
        ({"layer": "features", "dimensions": 0}, "dimensions must be >= 1"),
        ({"layer": "featurs", "dimensions": 2}, "did you mean 'features'"),
        ({"layer": "features", "dimensions": 2, "label": "nope"}, "has no column 'nope'"),
    ):
        with pytest.raises(UsageError, match=message):
            embedpipe.reduce(store, **options)
    with pytest.raises(UsageError, match="fine-tuning needs a layer of the network"):
        load_frozen(store.spec.only("features.pca4"), ReloadOptions(), "cpu")


def test_on_the_command_line(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", made_up(), label=["a", "b"] * 60)
    result = run("reduce", store.path, "--dimensions", "3", "--whiten", "--sample", "60", "--json")
    report = json.loads(result.stdout)
    assert (report["layer"], report["fitted_rows"], report["compared"]) == ("features.white3", 120, 60)
    shown = run("reduce", store.path, "--dimensions", "2")
    assert "of the variance, learned on 120 rows: all rows, as the store has no splits" in shown.stdout
    assert "reduced from features" in run("info", store.path).stdout


def test_a_writer_without_the_projection_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", made_up())
    rows = store.to_arrow().slice(0, 1).set_column(0, "id", pa.array(["new"]))
    embedpipe.reduce(store.path, dimensions=3, sample=0)
    with pytest.raises(StoreError, match="embedding_features_pca3"):
        store.write(rows)
