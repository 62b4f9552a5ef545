"""Heads as scikit-learn's own classes and as torch modules: equal predictions, without embedpipe, or a reason."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from stored import clusters, make_store

from embedpipe import FeatureStore, Head, fit
from embedpipe.errors import UsageError
from embedpipe.estimators import (
    AutoClassifier,
    FaissKNNClassifier,
    FaissKNNRegressor,
    TemperatureCalibratedClassifier,
    TextPriorClassifier,
    TunedLogisticRegression,
    VarianceFloorScaler,
    ZeroShotClassifier,
)
from embedpipe.heads.conversion.plain_sklearn import plain_pipeline
from embedpipe.heads.conversion.torch_module import torch_module

NAMES = np.array(["cat", "dog", "ówl"])
DIM = 8


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    X, y = clusters(90, spread=1.0)
    columns: dict[str, Any] = {"label": NAMES[y], "binary": NAMES[y % 2], "weight": X[:, 0] + 0.25}
    columns["tags"] = [";".join(NAMES[: 1 + i % 3]) for i in y]  # all rows are of the first
    columns |= {"price": X[:, 1] * 10, "colour": np.array(["red", "blue"])[y % 2]}
    return make_store(tmp_path_factory.mktemp("conversion") / "store", X, **columns)


def new_rows(zeros: bool = True) -> npt.NDArray[np.float32]:
    rows = clusters(50, spread=2.0, seed=1)[0]
    if zeros:
        rows[0] = 0
    return rows


def outputs(estimator: Any, X: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """Return probabilities, or scores of a classifier without them."""
    method = next((name for name in ("predict_proba", "decision_function") if hasattr(estimator, name)), None)
    return None if method is None else np.asarray(getattr(estimator, method)(X))


def assert_equal(head: Head, X: npt.NDArray[np.float32]) -> None:
    plain = pickle.loads(pickle.dumps(head.to_sklearn()))
    expected, predicted = head.estimator.predict(X), plain.predict(X)
    if head.task == "regression":
        np.testing.assert_allclose(predicted, expected, rtol=1e-6, atol=1e-6)
    else:
        assert (predicted == expected).all()
    scores, made = outputs(head.estimator, X), outputs(plain, X)
    assert (scores is None) == (made is None)
    if scores is not None:
        assert hasattr(plain, "predict_proba") == hasattr(head.estimator, "predict_proba")
        np.testing.assert_allclose(made, scores, rtol=1e-9, atol=1e-6)


def assert_torch_equal(head: Head, X: npt.NDArray[np.float32]) -> None:
    result = head.to_torch()(torch.from_numpy(X)).numpy()
    assert result.dtype == np.float32
    if head.task == "regression":
        np.testing.assert_allclose(result, head.estimator.predict(X), rtol=1e-4, atol=1e-4)
        return
    scores = outputs(head.estimator, X)
    assert head.classes is not None
    assert scores is not None
    assert result.shape == (len(X), len(head.classes))
    if head.task == "multilabel":
        made = expit(result) if hasattr(head.estimator, "predict_proba") else result
    elif hasattr(head.estimator, "predict_proba"):
        made = softmax(result, axis=1)
    else:
        made = result if scores.ndim == 2 else result[:, 1] - result[:, 0]
    np.testing.assert_allclose(made, scores, rtol=1e-4, atol=1e-4)


HEADS: dict[str, tuple[Any, dict[str, Any]]] = {
    "logreg": ("logreg", {}),
    "logreg of two": ("logreg", {"label": "binary"}),
    "logreg calibrated": ("logreg", {"calibrate": True}),
    "logreg rejecting": ("logreg", {"reject_share": 0.1}),
    "lda": ("lda", {}),
    "lda without a component": ("lda", {"remove_components": 1}),
    "ridge": ("ridge", {}),
    "ridge of two, calibrated": ("ridge", {"label": "binary", "calibrate": True}),
    "centroid": ("centroid", {}),
    "centroid of two": ("centroid", {"label": "binary"}),
    "knn": ("knn", {}),
    "knn without a component": ("knn", {"remove_components": 1}),
    "numbers": ("ridge", {"label": "weight"}),
    "numbers with intervals": ("ridge", {"label": "weight", "interval_coverage": 0.9}),
    "numbers of neighbours": ("knn", {"label": "weight"}),
    "labels": ("logreg", {"label": "tags", "task": "multilabel"}),
    "labels by ridge": ("ridge", {"label": "tags", "task": "multilabel"}),
    "a Normalizer first": (make_pipeline(Normalizer(), TunedLogisticRegression()), {}),
    "a scaler first": (make_pipeline(VarianceFloorScaler(), LogisticRegression()), {}),
    "scikit-learn's regression": (LinearRegression(), {"label": "weight"}),
}


@pytest.mark.parametrize("name", HEADS)
def test_predictions_of_both_conversions_are_those_of_the_head(store: FeatureStore, name: str) -> None:
    estimator, options = HEADS[name]
    head = fit(store, estimator, folds=0, **options)
    rows = new_rows(zeros=estimator != "knn")  # all rows are equally far from zeros, and any of them may vote
    assert_equal(head, rows)
    assert_torch_equal(head, rows)


def test_columns_and_forests_become_pipelines_and_no_modules(store: FeatureStore) -> None:
    with_columns = fit(store, "logreg", features="price,colour", folds=0)
    rows = np.column_stack([new_rows(), np.linspace(-9, 9, 50), np.arange(50) % 3]).astype(np.float32)
    rows[3, DIM] = np.nan
    assert_equal(with_columns, rows)
    forest = fit(store, RandomForestClassifier(5, random_state=0), folds=0)
    assert_equal(forest, new_rows())
    for head, step in ((with_columns, "ColumnTransformer"), (forest, "RandomForestClassifier")):
        with pytest.raises(UsageError, match=f"steps must be linear, or nearest neighbours by cosine, got {step}"):
            head.to_torch()


@pytest.mark.parametrize("kind", [ZeroShotClassifier, TextPriorClassifier])
@pytest.mark.parametrize("classes", [2, 3])
def test_class_names_become_directions_of_unit_vectors(store: FeatureStore, kind: type, classes: int) -> None:
    X, y = clusters(60, classes, DIM)
    model = kind(np.random.default_rng(0).standard_normal((classes, DIM)), NAMES[:classes]).fit(X, NAMES[y])
    plain, rows = plain_pipeline(model, "zero-shot"), new_rows()
    np.testing.assert_allclose(plain.predict_proba(rows), model.predict_proba(rows), atol=1e-6)
    logits = torch_module(plain, "zero-shot")(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(softmax(logits, axis=1), model.predict_proba(rows), atol=1e-4)


def test_the_layer_that_auto_chose_is_taken_out_of_the_rows() -> None:
    X, y = clusters(60)
    noise = np.random.default_rng(2).standard_normal((60, 4)).astype(np.float32)
    auto = AutoClassifier([("noise", 4), ("signal", DIM)], cv=2).fit(np.hstack([noise, X]), NAMES[y])
    auto.start_, auto.stop_ = 4, 4 + DIM
    auto.estimator_ = TemperatureCalibratedClassifier(TunedLogisticRegression()).fit(X, NAMES[y])
    rows = np.hstack([np.zeros((50, 4), np.float32), new_rows()])
    plain = plain_pipeline(auto, "auto")
    np.testing.assert_allclose(plain.predict_proba(rows), auto.predict_proba(rows), atol=1e-6)
    logits = torch_module(plain, "auto")(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(softmax(logits, axis=1), auto.predict_proba(rows), atol=1e-4)


@settings(max_examples=30)
@given(
    rows=st.integers(3, 40),
    k=st.integers(1, 6),
    temperature=st.floats(0.003, 5),
    metric=st.sampled_from(["cosine", "euclidean"]),
    weights=st.sampled_from(["uniform", "distance", "softmax"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_neighbours_vote_as_they_do_in_the_head(
    rows: int, k: int, temperature: float, metric: Any, weights: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((rows, 3)).astype(np.float32), np.arange(rows) % 3
    metric = "cosine" if weights == "softmax" else metric
    options: dict[str, Any] = {"weights": weights, "metric": metric, "temperature": temperature}
    queries = rng.standard_normal((9, 3)).astype(np.float32)
    classifier = FaissKNNClassifier(min(k, rows), **options).fit(X, NAMES[y])
    plain = plain_pipeline(classifier, "knn")
    np.testing.assert_allclose(plain.predict_proba(queries), classifier.predict_proba(queries), atol=1e-6)
    regressor = FaissKNNRegressor(min(k, rows), **options).fit(X, X[:, :2])
    np.testing.assert_allclose(plain_pipeline(regressor, "knn").predict(queries), regressor.predict(queries), atol=1e-6)


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (FaissKNNClassifier(recall_target=0.9), r"approximate \(recall_target=0.9\). Fit knn"),
        (FaissKNNClassifier(metric="cosine", weights="softmax", temperature=1e-3), "must be >= 0.003, got 0.001"),
        (TemperatureCalibratedClassifier(FaissKNNClassifier()), r"its nearest neighbours are calibrated\. Fit logreg"),
    ],
)
def test_heads_without_an_equal_are_refused_with_the_reason(estimator: Any, reason: str) -> None:
    X, y = clusters(300)
    with pytest.raises(UsageError, match=rf"head 'mine' has no equal in scikit-learn: .*{reason}"):
        plain_pipeline(estimator.fit(X, y), "mine")


def test_conversion_to_torch_is_refused_in_its_own_name(store: FeatureStore) -> None:
    with pytest.raises(UsageError, match=r"head 'knn-approx' has no equal in torch: its neighbours are approximate"):
        fit(store, "knn-approx", folds=0).to_torch()


def test_estimators_that_hold_parts_of_embedpipe_are_refused() -> None:
    X, y = clusters(60)
    from sklearn.ensemble import BaggingClassifier

    bag = BaggingClassifier(TunedLogisticRegression(), 2).fit(X, y)
    with pytest.raises(UsageError, match=r"it holds embedpipe.estimators\.TunedLogisticRegression"):
        plain_pipeline(bag, "mine")


def test_several_labels_by_neighbours_are_refused(store: FeatureStore) -> None:
    head = fit(store, "knn", label="tags", task="multilabel", folds=0)
    with pytest.raises(UsageError, match="no table of probabilities for several labels"):
        head.to_sklearn()


LOAD = """
import pickle, sys
sys.modules["embedpipe"] = None  # importing it fails
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        X, predicted, model = pickle.load(file)
    assert model.predict(X).tolist() == predicted
"""


def test_pickles_are_loaded_without_embedpipe(store: FeatureStore, tmp_path: Path) -> None:
    paths = []
    for name in ("logreg", "centroid", "knn"):
        head = fit(store, name, folds=0)
        paths.append(tmp_path / name)
        predicted = head.estimator.predict(new_rows()).tolist()
        paths[-1].write_bytes(pickle.dumps((new_rows(), predicted, head.to_sklearn())))
    subprocess.run([sys.executable, "-c", LOAD, *paths], check=True, cwd=tmp_path)
