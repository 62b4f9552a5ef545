"""Columns beside the vectors: read, fitted inside the folds, saved, predicted, and refused where they leak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from stored import clusters, make_store

from embedpipe import FeatureStore, evaluate, fit, load_head
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.heads.columns.table_columns import (
    MISSING,
    UNSEEN,
    TableColumn,
    column_values,
    leak_notes,
    learn_columns,
    value_notes,
)

ROWS = 90


def made_store(path: Path, **columns: Any) -> FeatureStore:
    """Return a store of noise whose label depends on a price and a colour."""
    rng = np.random.default_rng(0)
    price, colour = rng.normal(100, 20, ROWS), rng.choice(["red", "green", "blue"], ROWS)
    label = np.where(colour == "red", "owl", np.where(price > 100, "cat", "dog"))
    prices: list[float | None] = price.tolist()
    prices[4] = None
    colours: list[str | None] = colour.tolist()
    colours[7] = None
    known: dict[str, Any] = {"label": label, "price": prices, "colour": colours}
    return make_store(path, rng.standard_normal((ROWS, 8)), **{**known, **columns})


def test_columns_are_read_as_numbers_and_codes() -> None:
    rows = pa.table({"price": [1, None, 3], "kind": ["b", "a", None], "sold": [True, False, None]})
    columns = learn_columns(rows, ["price", "kind", "sold"], ["label"])
    assert [(column.kind, column.categories) for column in columns] == [
        ("number", ()),
        ("category", ("a", "b")),
        ("category", ("false", "true")),
    ]
    new = pa.table({"price": ["7.5", "8", None], "kind": ["c", "b", None], "sold": [None, True, False]})
    values = column_values(columns, new)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, [[7.5, UNSEEN, MISSING], [8, 1, 1], [np.nan, MISSING, 0]])
    assert value_notes(columns, values) == [
        "column 'price': 1 of 3 values are missing; the median stands for them, with a mark",
        "column 'kind': 1 of 3 values are missing; they are a category of their own",
        "column 'kind': 1 of 3 values were in no row that the head learned from; they count for nothing",
        "column 'sold': 1 of 3 values are missing; they are a category of their own",
    ]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([[1]] * 20), "'x' holds list<item: int64>"),
        (pa.nulls(20, pa.float64()), "'x' of features has no value"),
        (pa.array([float("nan"), None] * 10), "'x' of features has no value"),
        (pa.array(range(5, 25)), "'x' of features numbers the rows"),
        (pa.array([f"photo {i}" for i in range(20)]), "has 20 different texts in 20 rows"),
    ],
    ids=["lists", "nothing", "not a number", "row numbers", "names of rows"],
)
def test_columns_that_cannot_be_features_are_refused(column: pa.Array, message: str) -> None:
    with pytest.raises((UsageError, TrainingDataError), match=message):
        learn_columns(pa.table({"x": column}), ["x"], ["label"])


@pytest.mark.parametrize("value", ["cheap", float("inf"), 1e39])
def test_values_that_are_not_numbers_are_named(value: Any) -> None:
    with pytest.raises(UsageError, match="column 'price' must hold"):
        column_values([TableColumn("price", "number")], pa.table({"price": [value]}))


def test_columns_that_are_the_label_are_refused_and_those_that_decide_it_noted() -> None:
    y = np.array(["cat", "dog", "owl"] * 6)
    category = TableColumn("code", "category", ("a", "b", "c", "d", "e", "f"))
    codes = np.searchsorted(["cat", "dog", "owl"], y).astype(np.float32)[:, None]
    with pytest.raises(TrainingDataError, match="'code' of features is the label in other words"):
        leak_notes([category], codes, y)
    finer = codes * 2 + (np.arange(18) < 9)[:, None]
    assert leak_notes([category], finer, y) == [
        "each value of column 'code' has one label only: leave it out if it is not known before the label"
    ]
    assert leak_notes([category], np.roll(codes, 5, axis=0)[::-1], np.sort(y)) == []
    numbers = np.linspace(0.5, 9, 18)
    with pytest.raises(TrainingDataError, match="'cents' of features is the label"):
        leak_notes([TableColumn("cents", "number")], (100 * numbers).astype(np.float32)[:, None], numbers)


@pytest.mark.parametrize("head", ["logreg", "ridge", "lda", LogisticRegression()])
def test_heads_learn_from_columns(tmp_path: Path, head: Any) -> None:
    store = made_store(tmp_path / "s")
    without = np.mean(fit(store, head, folds=3).report.metrics["accuracy"])
    fitted = fit(store, head, features="price,colour", folds=3)
    assert np.mean(fitted.report.metrics["accuracy"]) > max(without, 0.5) + 0.2
    assert fitted.name.endswith(" with price, colour")
    assert [column.name for column in fitted.columns] == ["price", "colour"]
    assert fitted.report.notes[:2] == [
        "column 'price': 1 of 90 values are missing; the median stands for them, with a mark",
        "column 'colour': 1 of 90 values are missing; they are a category of their own",
    ]


def test_columns_are_scaled_and_encoded_by_the_training_rows_alone(tmp_path: Path) -> None:
    split = ["train"] * 60 + ["test"] * 30
    rare = ["usual"] * 40 + ["other"] * 20 + ["new"] * 30
    store = made_store(tmp_path / "s", split=split, rare=rare)
    fitted = fit(store, features=["price", "rare"])
    transformer: ColumnTransformer = fitted.estimator[0]
    rows = store.to_arrow(["price"]).column("price").to_pylist()[:60]
    known = [price for price in rows if price is not None]
    imputer, scaler = (step for _, step in transformer.named_transformers_["number"].steps)
    assert imputer.statistics_[0] == pytest.approx(np.median(known))
    assert scaler.mean_[0] == pytest.approx(np.mean([*known, np.median(known)]))
    (learned,) = transformer.named_transformers_["category"].categories_
    assert learned.tolist() == [1, 2]  # other and usual; "new" is in test rows only
    assert fitted.columns[1].categories == ("new", "other", "usual")
    X = np.zeros((1, 10), np.float32)  # a vector of 8, a price, and the code of "new"
    assert transformer.transform(X)[0, -2:].tolist() == [0, 0]


def test_a_head_with_columns_is_saved_and_predicts_without_trust(tmp_path: Path) -> None:
    store = made_store(tmp_path / "s")
    fitted = fit(store, features="price,colour", calibrate=True, remove_components=1, to=tmp_path / "head")
    again = load_head(tmp_path / "head")
    assert again.columns == fitted.columns
    table = again.predict(store)
    assert table.equals(fitted.predict(store))
    X = np.hstack([store.to_numpy(), column_values(fitted.columns, store.to_arrow(["price", "colour"]))])
    assert table["label"].to_pylist() == again.estimator.predict(X).tolist()


def test_rejection_and_intervals_pass_missing_values_on(tmp_path: Path) -> None:
    store = made_store(tmp_path / "s", size=np.random.default_rng(1).normal(size=ROWS))
    fitted = fit(store, features="price", reject_share=0.2, folds=0)
    assert 0 < sum(fitted.predict(store)["rejected"].to_pylist()) < 45
    sized = fit(store, label="size", features="price,label", interval_coverage=0.9, folds=0)
    assert "size_low" in sized.predict(store).column_names


def test_several_labels_and_weights_of_classes(tmp_path: Path) -> None:
    store = made_store(tmp_path / "s", tags=["red;round" if i % 3 else "red" for i in range(ROWS)])
    fitted = fit(store, "logreg", label="tags", task="multilabel", features="price,colour", folds=0)
    assert {*fitted.predict(store)["tags"].to_pylist()} <= {"red", "red;round"}
    balanced = fit(store, features="price", class_weight="balanced", folds=0)
    assert balanced.predict(store)["label"].null_count == 0


def test_a_store_without_the_columns_is_refused_by_name(tmp_path: Path) -> None:
    fitted = fit(made_store(tmp_path / "s"), features="price,colour", folds=0)
    other = make_store(tmp_path / "t", clusters(20)[0], colour=["red"] * 20)
    with pytest.raises(UsageError, match=r"vectors and the columns price, colour, and .*t' has no price"):
        fitted.predict(other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": "prize"}, "has no column 'prize'.*did you mean 'price'"),
        ({"features": "label"}, "column 'label' is the label, a weight or a group"),
        ({"features": "price,price"}, "got 'price' twice"),
        ({"features": "uri"}, "column 'uri' says where a row comes from"),
        ({"features": "price", "head": "knn"}, "knn compares rows by distances"),
        ({"features": "price", "head": "centroid"}, "centroid compares rows by distances"),
        ({"features": "price", "head": "auto"}, "auto chooses among layers"),
        ({"features": "price", "reject_share": 0.1, "reject_by": "distance"}, "compares vectors"),
    ],
)
def test_what_takes_no_columns_says_so(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit(made_store(tmp_path / "s"), **options)


def test_vectors_on_disk_take_no_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedpipe.heads.fit.fits_memory", lambda *shape: False)
    with pytest.raises(UsageError, match="features needs all vectors in memory"):
        fit(made_store(tmp_path / "s"), features="price")


def test_evaluate_compares_heads_with_and_without_columns(tmp_path: Path) -> None:
    result = evaluate(made_store(tmp_path / "s"), heads=["ridge", "knn"], features="price,colour", repeats=1, folds=3)
    assert result.best.name == "ridge with price, colour"
    assert {candidate.name for candidate in result.candidates[1:]} == {"ridge", "knn"}
    assert all(each.difference and each.difference.estimate.value < -0.2 for each in result.candidates[1:])
    assert "column 'price': 1 of 90 values are missing; the median stands for them, with a mark" in result.notes
    with pytest.raises(UsageError, match=r"features.* must be left out with"):
        evaluate(made_store(tmp_path / "t"), protocol="clip-lp", features="price")
