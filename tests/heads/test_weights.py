"""Weights of classes and rows: they enter fitting and choosing, and not the figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from stored import clusters, make_store

from embedpipe import FeatureStore, fit
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.estimators import TunedRidge, VarianceFloorScaler

NAMES = np.array(["cat", "dog", "owl"])


def rare(rows: int = 160) -> tuple[Any, Any]:
    """Return rows of which few are of the last class."""
    X, y = clusters(rows, spread=2.5)
    kept = (y < 2) | (np.arange(rows) % 5 == 0)
    return X[kept], y[kept]


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    X, y = rare()
    rng = np.random.default_rng(0)
    return make_store(
        tmp_path / "s", X, label=NAMES[y], size=X[:, 0] + 0.25,
        weight=rng.uniform(0, 2, len(y)), times=rng.integers(0, 3, len(y)), none=[0.0] * len(y),
        bad=[1.0] * 7 + [float("nan")] + [-1.0] * (len(y) - 8), some=[1.0, None] + [1.0] * (len(y) - 2),
    )  # fmt: skip


def test_class_and_sample_weights_equal_those_of_scikit_learn(store: FeatureStore) -> None:
    X, y = store.to_numpy(label="label")
    weights = np.asarray(store.to_arrow(["weight"])["weight"])
    head = fit(store, LogisticRegression(), class_weight="balanced", folds=0).estimator
    np.testing.assert_allclose(head.coef_, LogisticRegression(class_weight="balanced").fit(X, y).coef_, rtol=1e-4)
    head = fit(store, LogisticRegression(), sample_weight="weight", folds=0).estimator
    np.testing.assert_allclose(head.coef_, LogisticRegression().fit(X, y, weights).coef_, rtol=1e-4)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    piped = fit(store, pipeline, sample_weight="weight", folds=0).estimator
    expected = pipeline.fit(X, y, logisticregression__sample_weight=weights)
    np.testing.assert_allclose(piped[-1].coef_, expected[-1].coef_, rtol=1e-4)


def test_metrics_are_not_weighted(store: FeatureStore) -> None:
    X, y = store.to_numpy(label="label")
    report = fit(store, LogisticRegression(), class_weight="balanced").report
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    predicted = cross_val_predict(LogisticRegression(class_weight="balanced"), X, y, cv=folds)
    expected = [accuracy_score(y[test], predicted[test]) for _, test in folds.split(X, y)]
    assert report.metrics["accuracy"] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["logreg", "ridge"])
def test_balanced_class_weight_finds_more_of_the_rare_class(store: FeatureStore, name: str) -> None:
    counts = []
    for weight in (None, "balanced"):
        report = fit(store, name, class_weight=weight).report
        counts.append(np.array(report.confusion)[:, 2].sum())
    assert counts[1] > counts[0]


def test_integer_weight_equals_repeated_rows() -> None:
    X, _ = clusters(60)
    y, times = X @ np.arange(8) + np.sin(np.arange(60)), np.arange(60) % 3
    weighted = TunedRidge(alphas=(10.0,)).fit(X, y, times)
    repeated = TunedRidge(alphas=(10.0,)).fit(np.repeat(X, times, axis=0), np.repeat(y, times))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-6)
    Z = VarianceFloorScaler().fit(X, sample_weight=times)
    theirs = Ridge(alpha=10.0).fit(Z.transform(X), y, times)
    np.testing.assert_allclose(weighted.predict(X), theirs.predict(Z.transform(X)), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"head": "lda", "class_weight": "balanced"}, UsageError, "lda takes no class_weight: choose logreg or ridge"),
        ({"head": "knn", "sample_weight": "weight"}, UsageError, "knn takes no sample_weight: choose logreg or ridge"),
        ({"head": KNeighborsClassifier(), "sample_weight": "weight"}, UsageError, "KNeighborsClassifier takes no"),
        ({"class_weight": "balance"}, UsageError, "class_weight must be one of balanced, got 'balance'; did you mean"),
        ({"label": "size", "class_weight": "balanced"}, UsageError, "is for classification and multilabel"),
        ({"sample_weight": ""}, UsageError, "no column ''"),
        ({"sample_weight": "wieght"}, UsageError, r"no column 'wieght' \(sample_weight=\.+\); did you mean 'weight"),
        ({"sample_weight": "label"}, TrainingDataError, "weights must be numbers, and column 'label' holds string"),
        ({"sample_weight": "bad"}, TrainingDataError, "111 in column 'bad' are not, such as nan of 'row-007'"),
        ({"sample_weight": "some"}, TrainingDataError, "1 in column 'some' are not, such as None of 'row-001'"),
        ({"sample_weight": "none"}, TrainingDataError, "some weight in column 'none' must be above 0"),
    ],
)  # fmt: skip
def test_bad_weights_are_refused(
    store: FeatureStore, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fit(store, **options)


def test_integers_are_weights(store: FeatureStore) -> None:
    assert fit(store, "ridge", sample_weight="times", folds=3).report.metrics["accuracy"]
    assert fit(store, "ridge", label="size", sample_weight="times", folds=3).report.metrics["r2"]
