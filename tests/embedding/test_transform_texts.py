"""`EmbeddingTransformer` on columns of texts, beside other columns, in the hands of scikit-learn, pandas and skrub."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import skrub
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tiny_text_backbone import TINY_TEXT

import embedpipe
from embedpipe import EmbeddingTransformer
from embedpipe.errors import StoreError, UsageError

TEXTS = [f"text {i} of {topic}" for i, topic in enumerate(["spam eggs", "home soon", "spam ham", "love you"] * 6)]
Y = [text.split()[3] == "spam" for text in TEXTS]


def tiny(**options: object) -> EmbeddingTransformer:
    return EmbeddingTransformer(TINY_TEXT, modality="text", **options)


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame({"body": TEXTS, "length": np.arange(24.0), "other": TEXTS[::-1]}, index=range(100, 124))


def test_features_equal_those_of_embed_for_any_container(frame: pd.DataFrame, tmp_path: Path) -> None:
    expected = embedpipe.embed(TEXTS, tmp_path / "store", backbone=TINY_TEXT, modality="text").to_numpy()
    polars = pl.from_pandas(frame)
    kinds = [TEXTS, frame["body"], frame[["body"]], polars["body"], polars[["body"]], np.array(TEXTS)[:, None]]
    kinds += [frame["body"].astype("category"), frame["body"].astype("string"), pd.array(TEXTS)]
    for X in kinds:
        np.testing.assert_allclose(tiny().fit(X).transform(X), expected, rtol=1e-5, atol=1e-6)


def test_missing_and_blank_texts_give_zeros() -> None:
    X = ["one text", None, float("nan"), pd.NA, "", " \n\t", "one text"]
    features = tiny().fit(X).transform(X)
    assert features.shape == (7, 12)
    assert not features[1:6].any()
    np.testing.assert_array_equal(features[0], features[6])
    assert features[0].any()
    assert not tiny().fit(X).transform([None, ""]).any()
    with pytest.raises(UsageError, match=r"got the number 3\.5"):
        tiny().fit(X).transform(["fine", 3.5])
    with pytest.raises(UsageError, match=r"item 1 .*lone"):
        tiny().fit(X).transform(["fine", "half \ud800"])


def test_column_transformer_with_other_columns(frame: pd.DataFrame) -> None:
    for column in ("body", ["body"]):
        columns = ColumnTransformer([("text", tiny(), column), ("rest", StandardScaler(), ["length"])])
        assert columns.fit_transform(frame).shape == (24, 13)
        assert list(columns.get_feature_names_out()[[0, 11, 12]]) == ["text__body_0", "text__body_11", "rest__length"]
    columns.set_output(transform="pandas")
    out = columns.fit_transform(frame)
    assert list(out.index) == list(frame.index)
    model = make_pipeline(columns, StandardScaler(), LogisticRegression())
    assert cross_val_score(model, frame, Y, cv=3).mean() > 0.9


def test_set_output_gives_pandas_and_polars(frame: pd.DataFrame) -> None:
    out = tiny().set_output(transform="pandas").fit_transform(frame["body"])
    assert list(out.columns[:2]) == ["body_0", "body_1"]
    assert list(out.index) == list(frame.index)
    out = tiny().set_output(transform="polars").fit_transform(pl.from_pandas(frame)[["body"]])
    assert out.columns[:2] == ["body_0", "body_1"]


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_skrub_applies_the_transformer_to_each_column(frame: pd.DataFrame, library: str) -> None:
    table = frame if library == "pandas" else pl.from_pandas(frame)
    apply = skrub.ApplyToCols(tiny(), cols=["body", "other"])
    out = apply.fit_transform(table)
    assert out.shape == (24, 25)
    assert {"body_0", "other_11", "length"} <= set(out.columns)
    assert set(apply.transform(table[:3]).columns) == set(out.columns)
    vectorizer = skrub.TableVectorizer(high_cardinality=tiny(), cardinality_threshold=5)
    model = make_pipeline(vectorizer, StandardScaler(), LogisticRegression())
    assert model.fit(table, Y).score(table, Y) > 0.9


def test_cache_does_not_keep_texts(tmp_path: Path) -> None:
    tiny(store=tmp_path / "cache").fit(TEXTS).transform(TEXTS)
    assert "text" not in embedpipe.FeatureStore(tmp_path / "cache").data_columns


def test_unwritable_cache_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError, match="EMBEDPIPE_CACHE"):
        tiny(store=tmp_path / "file" / "store").fit(TEXTS).transform(TEXTS)


def test_chunk_reads_whole_text_files(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("word " * 20 + "another")
    whole, start = tiny(chunk=True), tiny()
    assert not np.allclose(whole.fit([path]).transform([path]), start.fit([path]).transform([path]))
    np.testing.assert_array_equal(whole.transform([path]), whole.transform([path.read_text()]))
