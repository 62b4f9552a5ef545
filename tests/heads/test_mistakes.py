"""Held-out predictions of a fit, the mistakes among them, and what predicting training rows says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pytest
from command import run
from page import ODD, Page
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from stored import clusters, make_store

import embedpipe
from embedpipe import FeatureStore, Head, fit
from embedpipe.errors import UsageError
from embedpipe.heads.doubt import measure_doubt
from embedpipe.heads.mistakes import Mistakes


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    X, y = clusters(60, spread=2.0)
    return X, np.array(["cat", "dog", "owl"])[y]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, data: tuple[np.ndarray, np.ndarray]) -> FeatureStore:
    X, y = data
    numbers = X[:, 0].astype(float) + np.arange(60) % 2
    tags = ["red;round" if i % 2 else "red" if i % 3 else ";" for i in range(60)]
    split = ["train", "train", "train", "test"] * 15
    path = tmp_path_factory.mktemp("stores") / "made up"
    return make_store(path, X, label=y.tolist(), number=numbers.tolist(), tags=tags, which=split)


@pytest.fixture(scope="module")
def head(store: FeatureStore) -> Head:
    return fit(store, LogisticRegression(max_iter=500))


def test_held_out_predictions_are_those_of_scikit_learn(head: Head, data: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = data
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    probabilities = cross_val_predict(LogisticRegression(max_iter=500), X, y, cv=folds, method="predict_proba")
    order = np.argsort(probabilities, axis=1)
    classes, rows = np.array(["cat", "dog", "owl"]), np.arange(60)
    assert head.held_out is not None
    assert head.held_out.column_names == ["id", "actual", "predicted", "confidence", "second", "margin"]
    assert head.held_out["id"].to_pylist() == [f"row-{i:03d}" for i in range(60)]
    assert head.held_out["actual"].to_pylist() == y.tolist()
    assert head.held_out["predicted"].to_pylist() == classes[order[:, -1]].tolist()
    assert head.held_out["second"].to_pylist() == classes[order[:, -2]].tolist()
    first, second = probabilities[rows, order[:, -1]], probabilities[rows, order[:, -2]]
    np.testing.assert_allclose(head.held_out["confidence"].to_numpy(), first, atol=1e-6)
    np.testing.assert_allclose(head.held_out["margin"].to_numpy(), first - second, atol=1e-6)


def test_mistakes_are_the_wrong_rows_the_surest_first(head: Head) -> None:
    mistakes = head.mistakes()
    assert 0 < len(mistakes) == 60 - np.trace(head.report.confusion)
    assert mistakes.table.column_names == ["id", "actual", "predicted", "confidence", "second", "margin", "uri"]
    assert not pc.any(pc.equal(mistakes.table["actual"], mistakes.table["predicted"])).as_py()
    assert mistakes.table["confidence"].to_pylist() == sorted(mistakes.table["confidence"].to_pylist(), reverse=True)
    assert repr(mistakes).startswith(f"Mistakes(head='LogisticRegression', wrong={len(mistakes)}, rows=60")
    assert "row-0" in mistakes._repr_html_()


def test_a_notebook_shows_the_pictures_of_mistakes(tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), "red").save(tmp_path / "red.png")
    uris = [str(tmp_path / "red.png"), str(tmp_path / "gone.png")]
    columns = {"id": ["a", "b"], "actual": ["<cat>", "dog"], "predicted": ["dog", "owl"], "confidence": [0.98765, None]}
    table = pa.table({**columns, "uri": uris})
    html = Mistakes(table, "lda", "label", "test split", "classification", 9)._repr_html_()
    assert html.count('<img src="data:image/jpeg;base64,') == 1
    assert "2 of 9 held-out rows are wrong, lda, test split" in html
    assert "&lt;cat&gt;, predicted dog (0.988)<br>a</td>" in html
    assert "cannot be read</em><br>dog, predicted owl<br>b</td>" in html


def test_a_test_split_holds_its_rows_out(
    store: FeatureStore, data: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    X, y = data
    split = make_store(tmp_path / "split", X, label=y.tolist(), split=["train", "validation", "train", "test"] * 15)
    head = fit(split, "lda", to=tmp_path / "head")
    assert head.held_out is not None
    assert head.held_out["id"].to_pylist() == [f"row-{i:03d}" for i in range(3, 60, 4)]
    table = head.predict(split)
    assert table["fitted_on"].to_pylist() == [True, True, True, False] * 15
    shown = run("predict", tmp_path / "head", split.path, "--to", tmp_path / "p.csv")
    assert "on the 15 items that have a label, and that the head was not fitted on" in shown.stdout
    assert "WARNING: the head was fitted on 45 of these items" in shown.stdout


def test_rows_added_after_the_fit_are_not_those_it_was_fitted_on(
    data: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    X, y = data
    grown = make_store(tmp_path / "grown", X, label=[*y[:50].tolist(), *[None] * 10])
    head = fit(grown, "centroid")
    grown.label(pa.table({"id": ["row-055"], "label": ["cat"]}))
    table = head.predict(grown.refresh())
    assert table["fitted_on"].to_pylist() == [True] * 50 + [False] * 10


def test_numbers_and_sets_of_labels_have_mistakes_too(store: FeatureStore, tmp_path: Path) -> None:
    numbers = fit(store, "ridge", label="number").mistakes()
    residual = numbers.table["residual"].to_numpy()
    assert len(numbers) == 60
    assert (np.diff(np.abs(residual)) <= 0).all()
    np.testing.assert_allclose(residual, numbers.table["actual"].to_numpy() - numbers.table["predicted"].to_numpy())
    numbers.save(tmp_path / "numbers.html")
    assert "The errors of ridge , the largest first" in Page(tmp_path / "numbers.html").words
    sets = fit(store, "centroid", label="tags", task="multilabel").mistakes()
    assert sets.table.column_names == ["id", "actual", "predicted", "uri"]
    assert set(sets.table["actual"].to_pylist()) <= {"red;round", "red", ""}


def test_a_head_without_probabilities_has_margins(store: FeatureStore) -> None:
    table = fit(store, "centroid").mistakes().table
    assert table.column_names == ["id", "actual", "predicted", "second", "margin", "uri"]
    assert table["margin"].to_pylist() == sorted(table["margin"].to_pylist(), reverse=True)


def test_doubt_of_one_score_is_that_of_two_classes() -> None:
    doubt = measure_doubt(np.array([[2.0], [-0.5]]), np.array([1, 0]))
    assert (doubt.second.tolist(), doubt.margin.tolist()) == ([0, 1], [2.0, 0.5])


def test_mistakes_of_a_head_from_disk_or_without_measuring_are_refused(
    head: Head, store: FeatureStore, tmp_path: Path
) -> None:
    head.save(tmp_path / "head")
    loaded = embedpipe.load_head(tmp_path / "head", trust=True)
    assert loaded.held_out is None
    with pytest.raises(UsageError, match="not saved in a head: fit it again"):
        loaded.mistakes()
    with pytest.raises(UsageError, match="fit it with folds=5, or with a test split"):
        fit(store, "centroid", folds=0).mistakes()


@pytest.mark.parametrize("suffix", [".html", ".csv", ".jsonl", ".xlsx"])
def test_fit_writes_mistakes(store: FeatureStore, tmp_path: Path, suffix: str) -> None:
    shown = run("fit", store.path, "--head", "lda", "--mistakes", tmp_path / f"m{suffix}")
    wrong = len(fit(store, "lda").mistakes())
    assert f"{wrong} mistakes on 60 held-out rows: {tmp_path / f'm{suffix}'}" in shown.stdout
    if suffix == ".csv":
        assert pa.csv.read_csv(tmp_path / "m.csv").num_rows == wrong
    if suffix == ".jsonl":
        rows = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
        assert len(rows) == wrong
    if suffix == ".html":
        words = Page(tmp_path / "m.html").words
        assert f"lda gets {wrong} of 60 rows wrong" in words
        assert "5-fold cross-validation" in words


def test_a_name_that_is_neither_a_page_nor_a_table_is_refused_before_the_fit(tmp_path: Path) -> None:
    shown = run("fit", tmp_path / "nowhere", "--mistakes", tmp_path / "m.pdf")
    assert shown.exit_code == 2
    assert "must end in .html, .csv, .tsv, .parquet, .jsonl or .xlsx" in shown.stderr


def test_names_on_the_page_are_escaped(data: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    X, y = data
    known = {"cat": ODD[0], "dog": ODD[1], "owl": ODD[2]}
    uris = [f"/tmp/{name}" for name in ODD[:4]] * 15
    odd = make_store(tmp_path / "odd", X, label=[known[each] for each in y.tolist()], uri=uris)
    fit(odd, "lda").mistakes().save(tmp_path / "m.html")
    page = Page(tmp_path / "m.html")
    assert all(name in page.words for name in known.values())
    assert all(link.startswith("file:///tmp/") for link in page.links)


def test_the_least_confident_come_first_on_request(head: Head, store: FeatureStore, tmp_path: Path) -> None:
    table = head.predict(store)
    assert table.column_names[:6] == ["id", "uri", "label", "confidence", "second", "margin"]
    probabilities = np.stack([table[f"probability_{name}"].to_numpy() for name in ("cat", "dog", "owl")], axis=1)
    np.testing.assert_allclose(table["confidence"].to_numpy(), probabilities.max(axis=1))
    np.testing.assert_allclose(table["margin"].to_numpy(), np.diff(np.sort(probabilities, axis=1))[:, -1])
    confidence = head.predict(store, least_confident_first=True)["confidence"].to_pylist()
    assert confidence == sorted(table["confidence"].to_pylist())
    numbers = fit(store, "ridge", label="number", interval_coverage=0.8, folds=0)
    widths = numbers.predict(store, least_confident_first=True)
    width = widths["number_high"].to_numpy() - widths["number_low"].to_numpy()
    assert (np.diff(width) <= 1e-9).all()
    with pytest.raises(
        UsageError, match="needs a head of classes, or one of numbers that was fitted with interval_coverage"
    ):
        fit(store, "ridge", label="number", folds=0).predict(store, least_confident_first=True)
