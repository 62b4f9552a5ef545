"""Heads on several layers: joined end to end in the order named, in one array, in stores and on photos."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import TINY
from sklearn.linear_model import LogisticRegression
from stored import clusters, make_spec

from embedpipe import FeatureStore, embed, fit, load_head
from embedpipe.backbones import LayerSpec
from embedpipe.errors import HeadError, SpecMismatchError, UsageError
from embedpipe.store.scan import read_joined
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
def test_vectors_are_joined_in_the_order_named(store: FeatureStore, mapped: bool) -> None:
    if mapped:
        store.mapped("embedding")
    some = np.random.default_rng(0).permutation(90)[:50]
    ids = pa.array([f"row-{i:03d}" for i in some])
    dims = {"embedding_early_0": 3, "embedding": 6}
    joined = read_joined(store.table, dims, ids)
    assert joined.dtype == np.float32
    assert joined.flags.c_contiguous
    np.testing.assert_array_equal(joined, np.hstack([X[some, 6:], X[some, :6]]))
    with pytest.raises(UsageError, match="are not in"):
        read_joined(store.table, dims, pa.array(["row-000", "no row"]))


def test_a_head_learns_keeps_and_uses_both(store: FeatureStore, tmp_path: Path) -> None:
    head = fit(store, LogisticRegression(), column="embedding_early_0 + embedding", folds=0, to=tmp_path / "head")
    alone = LogisticRegression().fit(np.hstack([X[:, 6:], X[:, :6]]), Y)
    np.testing.assert_allclose(head.estimator.coef_, alone.coef_)
    assert head.dims == {"embedding_early_0": 3, "embedding": 6}
    again = load_head(tmp_path / "head")
    assert again.spec == head.spec
    assert again.predict(store).equals(head.predict(store))
    found = head.predict(store)["label"].to_pylist()
    assert np.mean([a == b for a, b in zip(found, np.array(["cat", "dog", "owl"])[Y], strict=True)]) > 0.7
    one = fit(store, LogisticRegression(), column="embedding", folds=0)
    assert one.dims == {"embedding": 6}


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("embedding+embedding_erly_0", "column='embedding_erly_0' .*did you mean 'embedding_early_0'"),
        ("embedding+embedding", "names an embedding twice"),
        ("embedding+", "column='' does not name one embedding"),
    ],
)
def test_what_names_no_layers_is_said(store: FeatureStore, column: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit(store, column=column)


def test_a_store_without_one_of_the_layers_is_refused(store: FeatureStore, tmp_path: Path) -> None:
    head = fit(store, "centroid", column="embedding+embedding_early_0", folds=0)
    spec = dataclasses.replace(store.spec, layers=store.spec.layers[:1])
    with pytest.raises(SpecMismatchError, match="early"):
        head.predict(FeatureStore.create(tmp_path / "other", spec))
    head.spec = head.spec.only("embedding")
    head.save(tmp_path / "head")
    with pytest.raises(HeadError, match="the estimator is not the manifest's"):
        load_head(tmp_path / "head")


def test_photos_are_predicted_from_both_layers(photos: Path, tmp_path: Path) -> None:
    store = embed(photos, tmp_path / "s", backbone=TINY, layer=("features", "conv1"))
    columns = sorted(store.dims)
    for column in ("+".join(columns), "+".join(columns[::-1])):
        head = fit(store, "centroid", column=column, folds=0)
        new, old = head.predict(photos, trust=True), head.predict(store)
        assert list(head.dims) == column.split("+")
        assert new["label"].to_pylist() == old["label"].to_pylist()
        np.testing.assert_allclose(np.asarray(new["score_cat"]), np.asarray(old["score_cat"]), atol=1e-5)
