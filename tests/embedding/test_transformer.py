"""`EmbeddingTransformer` in pipelines, searches and column transformers of scikit-learn."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import TINY
from PIL import Image
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import embedpipe
from embedpipe import EmbeddingTransformer
from embedpipe._utils.config import cache_folder
from embedpipe.errors import BackboneError, StoreError, UsageError


@pytest.fixture
def paths(photos: Path) -> list[str]:
    return sorted(str(path) for path in photos.rglob("*.jpg"))


@pytest.fixture
def y(paths: list[str]) -> list[str]:
    return [Path(path).parent.name for path in paths]


@pytest.fixture
def forwarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file that grows by one byte per image that the network embeds, in any process."""
    log = tmp_path / "forwarded"
    log.touch()
    monkeypatch.setenv("TINY_LOG", str(log))
    return log


def test_features_equal_those_of_embed(paths: list[str], photos: Path, tmp_path: Path) -> None:
    store = embedpipe.embed(photos, tmp_path / "store", backbone=TINY)
    X = EmbeddingTransformer(TINY).fit(paths).transform(paths)
    assert X.dtype == np.float32
    np.testing.assert_allclose(X, store.to_numpy(), rtol=1e-4, atol=1e-6)
    twice = EmbeddingTransformer(TINY, store=None).fit(paths).transform([paths[3], paths[0], paths[3]])
    np.testing.assert_allclose(twice, X[[3, 0, 3]], rtol=1e-4, atol=1e-6)


def test_a_forked_child_leaves_the_store_of_its_parent_in_the_cache(
    paths: list[str], forwarded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = EmbeddingTransformer(TINY).fit(paths)
    model.transform(paths)
    with monkeypatch.context() as child:
        child.setattr("embedpipe.store.delta_log._first_process", [1])
        with pytest.raises(StoreError, match="forked"):
            model.transform(paths)
    before = forwarded.stat().st_size
    model.transform(paths)
    assert forwarded.stat().st_size == before


@pytest.mark.parametrize("n_jobs", [None, pytest.param(2, marks=pytest.mark.long)])
def test_cross_validation_embeds_each_photo_once(
    paths: list[str], y: list[str], forwarded: Path, n_jobs: int | None
) -> None:
    model = make_pipeline(EmbeddingTransformer(TINY), StandardScaler(), LogisticRegression(max_iter=1000))
    scores = cross_val_score(model, paths, y, cv=3, n_jobs=n_jobs)
    assert scores.shape == (3,)
    search = GridSearchCV(model, {"logisticregression__C": [0.1, 1.0]}, cv=2, n_jobs=n_jobs).fit(paths, y)
    assert set(search.predict(paths[:2])) <= set(y)
    assert forwarded.stat().st_size == 12


def test_clone_and_pickle_hold_no_weights(paths: list[str]) -> None:
    transformer = EmbeddingTransformer(TINY, batch_size=3).fit(paths)
    assert clone(transformer).get_params() == transformer.get_params()
    assert not hasattr(clone(transformer), "spec_")
    transformer.set_params(batch_size=5)
    payload = pickle.dumps(transformer)
    assert len(payload) < 5000
    np.testing.assert_array_equal(pickle.loads(payload).transform(paths), transformer.transform(paths))


def test_feature_names_and_pandas_output(paths: list[str]) -> None:
    transformer = EmbeddingTransformer(TINY, layer=("features", "conv1")).fit(paths)
    names = transformer.get_feature_names_out()
    assert list(names[:2]) == ["embeddingtransformer0", "embeddingtransformer1"]
    assert len(names) == 20
    frame = transformer.set_output(transform="pandas").transform(paths)
    assert isinstance(frame, pd.DataFrame)
    assert frame.shape == (12, 20)
    assert list(frame.columns) == list(names)


def test_a_fit_on_a_list_forgets_the_names_of_a_frame(paths: list[str]) -> None:
    transformer = EmbeddingTransformer(TINY).fit(pd.DataFrame({"photo": paths}))
    assert transformer.feature_names_in_.tolist() == ["photo"]
    assert not hasattr(transformer.fit(paths), "feature_names_in_")
    assert transformer.get_feature_names_out()[0] == "embeddingtransformer0"


def test_column_transformer_with_other_columns(paths: list[str], y: list[str]) -> None:
    frame = pd.DataFrame({"photo": paths, "camera": ["a", "b"] * 6})
    for column in ("photo", ["photo"]):
        columns = ColumnTransformer(
            [("image", EmbeddingTransformer(TINY), column), ("rest", OneHotEncoder(), ["camera"])]
        )
        assert columns.fit(frame).transform(frame).shape == (12, 14)
        assert columns.get_feature_names_out()[0] == "image__photo_0"
        model = make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(frame, y)
        assert len(model.predict(frame)) == 12


def test_images_arrays_and_bytes_give_the_same_features(paths: list[str]) -> None:
    transformer = EmbeddingTransformer(TINY, store=None).fit(paths)
    image = Image.open(paths[0])
    pixels = np.asarray(image)
    expected = transformer.transform([paths[0]])
    for item in (image, pixels, Path(paths[0]), Path(paths[0]).read_bytes()):
        np.testing.assert_allclose(transformer.transform([item]), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(transformer.transform(np.stack([pixels])), expected, rtol=1e-4, atol=1e-6)


def test_given_store_is_looked_up_by_content(paths: list[str], photos: Path, tmp_path: Path, forwarded: Path) -> None:
    store = embedpipe.embed(photos, tmp_path / "store", backbone=TINY)
    done = forwarded.stat().st_size
    X = EmbeddingTransformer(TINY, store=store.path).fit(paths).transform(paths)
    assert forwarded.stat().st_size == done
    np.testing.assert_array_equal(X, store.to_numpy())


def test_without_a_cache_or_with_a_damaged_one_features_are_the_same(
    paths: list[str], tmp_path: Path, forwarded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = EmbeddingTransformer(TINY).fit(paths).transform(paths)
    for file in cache_folder().glob("transformer/*/*.parquet"):
        file.write_bytes(b"damaged")
    for _ in range(2):  # the second run makes the cache again
        np.testing.assert_array_equal(EmbeddingTransformer(TINY).fit(paths).transform(paths), first)
    count = len(forwarded.read_bytes())
    np.testing.assert_array_equal(EmbeddingTransformer(TINY).fit(paths).transform(paths), first)
    assert len(forwarded.read_bytes()) == count
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("EMBEDPIPE_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="nothing is cached"):
        np.testing.assert_array_equal(EmbeddingTransformer(TINY).fit(paths).transform(paths), first)


def test_unreadable_items_are_named(paths: list[str], tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    transformer = EmbeddingTransformer(TINY).fit(paths)
    with pytest.raises(UsageError, match=r"2 of 3 are not(.|\n)*item 1 .*broken.jpg"):
        transformer.transform([paths[0], str(tmp_path / "broken.jpg"), str(tmp_path / "broken.jpg")])
    with pytest.raises(UsageError, match=r"item 0 .*nowhere.jpg"):
        transformer.transform([str(tmp_path / "nowhere.jpg")])


def test_invalid_input_is_refused(paths: list[str]) -> None:
    transformer = EmbeddingTransformer(TINY).fit(paths)
    with pytest.raises(UsageError, match="got a single item"):
        transformer.transform(paths[0])
    with pytest.raises(UsageError, match="at least one item"):
        transformer.fit([])
    with pytest.raises(UsageError, match="one column, got 2"):
        transformer.fit(pd.DataFrame({"a": paths, "b": paths}))


def test_unknown_backbone_and_missing_fit_are_errors(paths: list[str]) -> None:
    with pytest.raises(BackboneError):
        EmbeddingTransformer("timm/resnet9999").fit(paths)
    with pytest.raises(ValueError, match="not fitted"):
        EmbeddingTransformer(TINY).transform(paths)
