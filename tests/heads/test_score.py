"""`Head.score` on vectors, stores and labels of one's own, and the report as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import r2_score
from stored import clusters, make_store

from embedpipe import FeatureStore, Head, fit
from embedpipe.errors import UsageError

#: Contents of 60 items that no head was fitted on.
OTHER = [f"f{number:063x}" for number in range(60)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    X, y = clusters(60, spread=2.0)
    tags = np.array(["b", "a;b", "a"])[y].tolist()
    label = np.array(["cat", "dog", "owl"])[y].tolist()
    return make_store(tmp_path_factory.mktemp("score") / "store", X, label=label, size=X[:, 0].tolist(), tags=tags)


@pytest.fixture(scope="module")
def head(store: FeatureStore) -> Head:
    return fit(store, "lda", folds=3)


def test_score_of_vectors_and_of_a_store_is_the_accuracy(store: FeatureStore, head: Head, tmp_path: Path) -> None:
    X, y = store.to_numpy("label")
    accuracy = float((head.estimator.predict(X) == y).mean())
    assert 0.5 < accuracy < 1
    assert head.score(X, y) == head.score(X, y.tolist()) == accuracy
    other = make_store(tmp_path / "other", X, label=y.tolist(), content_hash=OTHER)
    assert head.score(other) == head.score(other.path) == accuracy
    assert head.score(other, ["cat"] * len(y)) == (head.estimator.predict(X) == "cat").mean()
    with pytest.warns(UserWarning, match="too high, as the head was fitted on 60 of these 60 items: see head.report"):
        assert head.score(store) == accuracy


@pytest.mark.parametrize("values", [[0, 1, 2], [0.0, 1.0, 2.0], ["0", "1", "2"]], ids=["int", "float", "text"])
def test_classes_are_equal_in_any_type(tmp_path: Path, values: list[Any]) -> None:
    X, y = clusters(60, spread=0.1)
    numbered = make_store(tmp_path / "store", X, label=[values[number] for number in y])
    fitted = fit(numbered, "lda", folds=0)
    truths = y, y.astype(float), y.tolist(), list(map(str, y.tolist()))
    assert [fitted.score(X, truth) for truth in truths] == [1.0] * 4


def test_score_of_numbers_is_r2(store: FeatureStore) -> None:
    numbers = fit(store, "ridge", label="size", folds=0)
    X, y = store.to_numpy("size")
    assert numbers.score(X, y) == pytest.approx(r2_score(y, numbers.estimator.predict(X)))


def test_score_of_several_labels_is_the_share_of_equal_sets(store: FeatureStore) -> None:
    tagged = fit(store, "logreg", label="tags", task="multilabel", folds=0)
    X, y = store.to_numpy("tags")
    exact = tagged.score(X, y)
    assert exact == tagged.score(X, [";".join(reversed(tags.split(";"))) for tags in y])
    sets = np.empty(len(y), object)
    sets[:] = [np.array(tags.split(";")) for tags in y]
    assert exact == tagged.score(X, sets)
    assert 0.3 < exact <= 1


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_rows_whose_label_is_missing_are_left_out(store: FeatureStore, head: Head, missing: Any) -> None:
    X, y = store.to_numpy("label")
    some = [missing if number < 20 else label for number, label in enumerate(y.tolist())]
    assert head.score(X, some) == head.score(X, pd.Series(some, dtype=object)) == head.score(X[20:], y[20:])
    numbers = fit(store, "ridge", label="size", folds=0)
    X, y = store.to_numpy("size")
    assert numbers.score(X, [missing, *y[1:]]) == numbers.score(X[1:], y[1:])


def test_labels_that_lack_or_do_not_fit_are_refused(store: FeatureStore, head: Head, tmp_path: Path) -> None:
    X = store.to_numpy()
    unlabelled = make_store(tmp_path / "bare", X, content_hash=OTHER)
    with pytest.raises(UsageError, match="score needs true labels, and there is no 'label': give y"):
        head.score(X)
    with pytest.raises(UsageError, match="there is no 'label'"):
        head.score(unlabelled)
    with pytest.raises(UsageError, match="y must have one value for each item, got 1 for 60 items"):
        head.score(unlabelled, ["cat"])
    with pytest.raises(UsageError, match="at least one item with a label and a prediction"):
        head.score(X, [None] * 60)


def test_report_is_a_small_table_in_a_notebook(head: Head, store: FeatureStore) -> None:
    html = head.report._repr_html_()
    assert "measured by 3-fold cross-validation" in html
    assert f"{100 * np.mean(head.report.metrics['accuracy']):.1f}\xa0%" in html
    assert "<th>baseline</th>" in html
    assert "not measured" in fit(store, "lda", folds=0).report._repr_html_()
