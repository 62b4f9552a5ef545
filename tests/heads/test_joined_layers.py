"""Heads on several layers: joined end to end in the order named, in one array, in stores and on images."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import TINY
from sklearn.linear_model import LogisticRegression
from stored import clusters, make_spec

from embedpipe import FeatureStore, SimilarityIndex, embed, fit, load_head
from embedpipe._utils.machine import memory
from embedpipe.backbones import LayerSpec
from embedpipe.errors import HeadError, SpecMismatchError, UsageError
from embedpipe.neighbours import nearest_rows, normalised
from embedpipe.splits.mapped_rows import MappedRows
from embedpipe.store.scan import read_layers
from embedpipe.store.schema import vector_column

X, Y = clusters(90, dim=9, spread=2.0)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """A store of two layers in two files, whose ids are not in the order of writing."""
    spec = make_spec(6)
    spec = dataclasses.replace(spec, layers=(*spec.layers, LayerSpec("early.0", "avg", 3)))
    made = FeatureStore.create(tmp_path / "store", spec)
    for rows in (np.arange(40, 90), np.arange(40)):
        columns = {
            "id": [f"row-{i:03d}" for i in rows],
            "content_hash": [f"{i:064x}" for i in rows],
            "source_root": ["made up"] * len(rows),
            "label": np.array(["cat", "dog", "owl"])[Y[rows]],
            "embedding": vector_column(X[rows, :6]),
            "embedding_early_0": vector_column(X[rows, 6:]),
        }
        made.write(pa.table(columns))
    return made.refresh()


@pytest.mark.parametrize("mapped", [False, True])
def test_read_layers_joins_in_the_order_named(store: FeatureStore, mapped: bool) -> None:
    if mapped:
        store.mapped("features")
    some = np.random.default_rng(0).permutation(90)[:50]
    ids = pa.array([f"row-{i:03d}" for i in some])
    layers = store.select_layers("early.0+features")
    read, joined = read_layers(store.table, layers, ids)
    assert read.equals(ids)
    assert joined.dtype == np.float32
    assert joined.flags.c_contiguous
    np.testing.assert_array_equal(joined, np.hstack([X[some, 6:], X[some, :6]]))
    with pytest.raises(UsageError, match="are not in"):
        read_layers(store.table, layers, pa.array(["row-000", "no row"]))


def test_head_is_fitted_saved_and_used_on_joined_layers(store: FeatureStore, tmp_path: Path) -> None:
    head = fit(store, LogisticRegression(), layer="early.0 + features", folds=0, to=tmp_path / "head")
    alone = LogisticRegression().fit(np.hstack([X[:, 6:], X[:, :6]]), Y)
    np.testing.assert_allclose(head.estimator.coef_, alone.coef_)
    assert head.layers == {"early.0": 3, "features": 6}
    again = load_head(tmp_path / "head")
    assert again.spec == head.spec
    assert again.predict(store).equals(head.predict(store))
    predicted = head.predict(store)["label"].to_pylist()
    assert np.mean([a == b for a, b in zip(predicted, np.array(["cat", "dog", "owl"])[Y], strict=True)]) > 0.7
    one = fit(store, LogisticRegression(), layer="features", folds=0)
    assert one.layers == {"features": 6}


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            "features+erly.0",
            r"has no layer 'erly.0' \(layer=\.\.\.\); did you mean 'early.0'\? Available: features, early.0",
        ),
        ("embedding_early_0", "has no layer 'embedding_early_0'"),
        ("features+features", "layer='features\\+features' names a layer twice"),
        ("features+", "has no layer ''"),
        (None, r"give one of features, early.0, or several joined by \+ \(layer='features': the network's output\)"),
    ],
)
def test_layer_that_cannot_be_resolved_is_refused(store: FeatureStore, layer: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit(store, layer=layer)


def test_store_reads_one_layer_or_several_joined(store: FeatureStore) -> None:
    assert store.layers == {"features": 6, "early.0": 3}
    np.testing.assert_array_equal(store.to_numpy(layer="early.0"), X[:, 6:])
    np.testing.assert_array_equal(store.to_numpy(layer="early.0+features"), np.hstack([X[:, 6:], X[:, :6]]))
    np.testing.assert_array_equal(store.take(["row-007"], layer="features+early.0"), X[[7]])
    with pytest.raises(UsageError, match="a memory map holds one layer"):
        store.mapped("early.0+features")


def test_store_without_one_of_the_layers_is_refused(store: FeatureStore, tmp_path: Path) -> None:
    head = fit(store, "centroid", layer="features+early.0", folds=0)
    spec = dataclasses.replace(store.spec, layers=store.spec.layers[:1])
    with pytest.raises(SpecMismatchError, match="early"):
        head.predict(FeatureStore.create(tmp_path / "other", spec))
    head.spec = head.spec.only("features")
    head.save(tmp_path / "head")
    with pytest.raises(HeadError, match="the estimator does not match the manifest"):
        load_head(tmp_path / "head")


def test_images_are_predicted_from_both_layers(photos: Path, tmp_path: Path) -> None:
    store = embed(photos, tmp_path / "s", backbone=TINY, layer=("features", "conv1"))
    names = sorted(store.layers)
    for layer in ("+".join(names), "+".join(names[::-1])):
        head = fit(store, "centroid", layer=layer, folds=0)
        new, old = head.predict(photos, trust=True), head.predict(store)
        assert list(head.layers) == layer.split("+")
        assert new["label"].to_pylist() == old["label"].to_pylist()
        np.testing.assert_allclose(np.asarray(new["score_cat"]), np.asarray(old["score_cat"]), atol=1e-5)


def test_joined_layers_stay_in_memory_maps(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "used_memory", lambda: 0)
    in_memory, by_blocks = (fit(store, "ridge", layer="early.0+features", memory=limit) for limit in ("1TB", "46kB"))
    np.testing.assert_allclose(by_blocks.estimator.coef_, in_memory.estimator.coef_, rtol=1e-9)
    monkeypatch.setattr("embedpipe.querying.index.MAPPED_BYTES", 0)
    index = SimilarityIndex.load(store.path, "early.0+features")
    assert isinstance(index.vectors, MappedRows)
    joined = np.hstack([X[:, 6:], X[:, :6]])
    cosines, rows = index.search(joined[3:5], 4)
    expected_cosines, expected_rows = nearest_rows(normalised(joined[3:5]), joined, 4, "cosine")
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(cosines, expected_cosines)
