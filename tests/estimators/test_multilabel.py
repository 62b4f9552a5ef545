"""Multi-label classification: reading labels, fitting, metrics and predictions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.utils.class_weight import compute_sample_weight
from stored import make_store

from embedpipe import FeatureStore, fit, load_head
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.estimators import FaissKNNRegressor, TunedRidge, TunedRidgeClassifier
from embedpipe.estimators.wrappers.multilabel import MultiLabelClassifier
from embedpipe.heads.registry import HEADS
from embedpipe.heads.training.training_data import label_sets

LABELS = ["big", "red", "round"]


def made_up(rows: int = 150) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, 6)).astype(np.float32)
    return X, X[:, :3] + 0.5 * rng.standard_normal((rows, 3)) > (1.2, 0.3, 0.0)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    X, Y = made_up()
    texts = [" ; ".join(np.array(LABELS)[row][::-1]) for row in Y]
    weights = np.where(Y[:, 1], 3.0, 1.0)
    return make_store(tmp_path / "s", X, tags=[*texts[:-1], None], size=X[:, 0], weight=weights)


@pytest.mark.parametrize("name", [name for name, tasks in HEADS.items() if "multilabel" in tasks])
def test_every_head_predicts_several_labels(store: FeatureStore, tmp_path: Path, name: str) -> None:
    head = fit(store, name, label="tags", task="multilabel", folds=3, to=tmp_path / "head")
    report = head.report
    assert (head.task, report.classes, report.confusion, report.left_out) == (
        "multilabel", LABELS, [], {"without a tags": 1},
    )  # fmt: skip
    assert list(report.metrics) == ["micro_f1", "macro_f1", "mean_average_precision", "subset_accuracy"]
    for metric, values in report.metrics.items():
        assert np.mean(values) > np.mean(report.baseline[metric]) + 0.05
    table = head.predict(store)
    word = "score" if name in ("ridge", "centroid") else "probability"
    scores = [f"{word}_{label}" for label in LABELS]
    assert table.column_names == ["id", "uri", "tags", *scores, "actual", "fitted_on", "error"]
    limit = 0.5 if word == "probability" else 0.0
    for row in table.to_pylist():
        assert row["tags"] == ";".join(label for label in LABELS if row[f"{word}_{label}"] > limit)
    assert load_head(tmp_path / "head").predict(store).equals(table)


def test_metrics_equal_scikit_learn(store: FeatureStore) -> None:
    X, Y = (array[:-1] for array in made_up())
    report = fit(store, LogisticRegression(), label="tags", task="multilabel").report
    for i, (train, test) in enumerate(KFold(5, shuffle=True, random_state=0).split(X)):
        model = OneVsRestClassifier(LogisticRegression()).fit(X[train], Y[train].astype(int))
        predicted, truth = model.predict(X[test]), Y[test].astype(int)
        expected = {
            "micro_f1": metrics.f1_score(truth, predicted, average="micro"),
            "macro_f1": metrics.f1_score(truth, predicted, average="macro"),
            "mean_average_precision": metrics.average_precision_score(truth, model.predict_proba(X[test])),
            "subset_accuracy": metrics.accuracy_score(truth, predicted),
        }
        assert {name: values[i] for name, values in report.metrics.items()} == pytest.approx(expected)


def test_one_regressor_equals_one_classifier_per_label() -> None:
    X, Y = made_up()
    at_once = MultiLabelClassifier(TunedRidge(alphas=(10.0,))).fit(X, Y)
    one_by_one = MultiLabelClassifier(TunedRidgeClassifier(alphas=(10.0,))).fit(X, Y)
    np.testing.assert_allclose(at_once.decision_function(X), one_by_one.decision_function(X), atol=1e-9)
    assert (at_once.predict(X) == one_by_one.predict(X)).all()
    voted = MultiLabelClassifier(FaissKNNRegressor(7)).fit(X, Y)
    single = MultiLabelClassifier(HEADS["knn"]["classification"](7).set_params(weights="uniform", metric="euclidean"))
    np.testing.assert_allclose(voted.predict_proba(X), single.fit(X, Y).predict_proba(X), atol=1e-12)


def test_constant_labels_are_predicted_as_constants(tmp_path: Path) -> None:
    X, Y = made_up(60)
    Y[:, 1], Y[:, 2] = True, False
    model = MultiLabelClassifier(LogisticRegression(), LABELS).fit(X, Y)
    assert (model.predict(X)[:, 1:] == [True, False]).all()
    assert (model.predict_proba(X)[:, 1:] == [1, 0]).all()
    assert model.classes_.tolist() == LABELS


def test_class_weights_are_computed_per_label(store: FeatureStore) -> None:
    X, Y = (array[:-1] for array in made_up())
    options: dict[str, Any] = {"label": "tags", "task": "multilabel", "folds": 0, "class_weight": "balanced"}
    head = fit(store, LogisticRegression(), **options)
    both = fit(store, LogisticRegression(), **options, sample_weight="weight")
    for k in range(3):
        balanced = compute_sample_weight("balanced", Y[:, k])
        alone = LogisticRegression().fit(X, Y[:, k], balanced)
        np.testing.assert_allclose(head.estimator.estimators_[k].coef_, alone.coef_, rtol=1e-4)
        weighted = LogisticRegression().fit(X, Y[:, k], balanced * np.where(Y[:, 1], 3.0, 1.0))
        np.testing.assert_allclose(both.estimator.estimators_[k].coef_, weighted.coef_, rtol=1e-4)


def test_probabilities_can_be_calibrated(store: FeatureStore) -> None:
    table = fit(store, "centroid", label="tags", task="multilabel", calibrate=True, folds=0).predict(store)
    assert "probability_red" in table.column_names
    with pytest.raises(UsageError, match="knn learns all labels at once and cannot be calibrated: choose logreg, lda"):
        fit(store, "knn", label="tags", task="multilabel", calibrate=True)


def test_label_separator_and_non_text_labels(store: FeatureStore) -> None:
    head = fit(store, "lda", label="tags", task="multilabel", label_separator=" ; ", folds=0)
    assert any(" ; " in text for text in head.predict(store)["tags"].to_pylist())
    with pytest.raises(
        TrainingDataError, match=r"multilabel needs text such as 'red;round' .*, and column 'size' holds float"
    ):
        fit(store, label="size", task="multilabel")
    with pytest.raises(UsageError, match="label_separator must not be empty"):
        fit(store, label="tags", task="multilabel", label_separator="")
    with pytest.raises(UsageError, match=r"takes several labels of an item apart: add task='multilabel'"):
        fit(store, label="tags", label_separator=",")


@pytest.mark.parametrize(
    ("labels", "advice"),
    [
        (["red,round", "round"], "',' occurs in 1 of 2: give label_separator=','"),
        (['["red","round"]', '["round"]'], "write lists as text such as red;round"),
        (["red", "round"], "one label an item is task='classification'"),
    ],
)
def test_separator_that_never_occurs_is_refused(labels: list[str], advice: str) -> None:
    with pytest.raises(TrainingDataError, match=re.escape(advice)):
        label_sets(pa.chunked_array([labels]), "label", ";")
