"""The reject option: the rejected share, by probability and by distance, and its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks
from stored import clusters, make_store

from embedpipe import FeatureStore, fit, load_head
from embedpipe.errors import UsageError
from embedpipe.estimators import CentroidClassifier, TunedRidgeClassifier
from embedpipe.estimators.wrappers.calibration import TemperatureCalibratedClassifier
from embedpipe.estimators.wrappers.rejection import RejectingClassifier
from embedpipe.heads.options import RejectBy

NAMES = np.array(["cat", "dog", "owl"])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.no_cover
@parametrize_with_checks([RejectingClassifier(TunedRidgeClassifier(), by="distance")])
def test_passes_scikit_learn_estimator_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("by", ["probability", "distance"])
@pytest.mark.parametrize("cv", [None, 4])
def test_given_share_of_new_rows_is_rejected(by: RejectBy, cv: int | None) -> None:
    X, y = clusters(600, spread=2.0)
    new, truth = clusters(3000, spread=2.0, seed=1)
    head = RejectingClassifier(LogisticRegression(), share=0.2, by=by, cv=cv).fit(X, NAMES[y])
    rejected = head.rejected(new)
    assert 0.14 < rejected.mean() < 0.26
    assert (head.predict(new) == LogisticRegression().fit(X, NAMES[y]).predict(new)).all()
    assert (rejected == (head.reject_score(new) > head.threshold_)).all()
    if by == "probability":
        right = head.predict(new) == NAMES[truth]
        assert right[~rejected].mean() > right.mean() + 0.03
        np.testing.assert_allclose(head.reject_score(new), 1 - head.predict_proba(new).max(axis=1))


def test_threshold_is_exceeded_by_the_share_of_out_of_fold_rows() -> None:
    X, y = clusters(200, spread=2.0)
    train, held_out = np.arange(100), np.arange(100, 200)
    head = RejectingClassifier(LogisticRegression(), share=0.1, cv=[(train, held_out)]).fit(X, y)
    unseen = 1 - LogisticRegression().fit(X[train], y[train]).predict_proba(X[held_out]).max(axis=1)
    assert (unseen > head.threshold_).sum() == 10


def test_distance_is_that_to_the_tenth_neighbour_and_finds_unknown_classes() -> None:
    X, y = clusters(300, spread=0.3)
    head = RejectingClassifier(LogisticRegression(), by="distance").fit(X, y)
    strange = -X[:50]
    assert head.rejected(strange).all()
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    cosines = np.sort(unit[:5].astype(float) @ unit.T.astype(float), axis=1)
    np.testing.assert_allclose(head.reject_score(X[:5]), 1 - cosines[:, -10], atol=1e-6)
    # The threshold is leave-one-out: otherwise every training row would be its own neighbour.
    assert (1 - cosines[:, -11] > head.threshold_).sum() <= 5


def test_rejection_wraps_calibration_and_refits_it_once_per_fold() -> None:
    X, y = clusters(200, spread=2.0)
    head = RejectingClassifier(TemperatureCalibratedClassifier(CentroidClassifier())).fit(X, y)
    assert head.estimator_.temperature_ < 1
    assert 0.3 < head.threshold_ < 0.7


REJECTING: dict[str, dict[str, Any]] = {
    "knn": {"head": "knn"},
    "calibrated ridge": {"head": "ridge", "calibrate": True},
    "ridge by distance": {"head": "ridge", "reject_by": "distance"},
}


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    X, y = clusters(150, spread=2.5)
    return make_store(tmp_path / "s", X, label=NAMES[y], size=X[:, 0] + 0.25, rejected=["yes", "no", "no"] * 50)


@pytest.mark.parametrize("name", REJECTING)
def test_rejected_share_and_accuracy_of_the_rest_are_reported(store: FeatureStore, name: str) -> None:
    metrics = fit(store, **REJECTING[name], reject_share=0.2, folds=3).report.metrics
    assert 0.05 < np.mean(metrics["rejected"]) < 0.4
    if "distance" not in name:
        assert np.mean(metrics["accuracy_of_the_rest"]) > np.mean(metrics["accuracy"])


@pytest.mark.parametrize("name", REJECTING)
def test_predictions_have_columns_of_the_rejection(store: FeatureStore, name: str) -> None:
    table = fit(store, **REJECTING[name], reject_share=0.2, folds=0).predict(store)
    assert table.column_names[:3] == ["id", "uri", "label"]
    assert table.column_names[-5:] == ["rejected", "reject_score", "actual", "fitted_on", "error"]
    assert table["label"].null_count == 0
    assert set(table["rejected"].to_pylist()) == {True, False}


@pytest.mark.parametrize("name", REJECTING)
def test_saved_rejecting_head_predicts_the_same(store: FeatureStore, tmp_path: Path, name: str) -> None:
    head = fit(store, **REJECTING[name], reject_share=0.2, folds=0, to=tmp_path / "head")
    assert load_head(tmp_path / "head").predict(store).equals(head.predict(store))


def test_label_named_rejected_keeps_both_columns(store: FeatureStore) -> None:
    assert "prediction" in fit(store, "knn", label="rejected", reject_share=0.2, folds=0).predict(store).column_names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "ridge", "reject_share": 0.1}, r"ridge gives no probabilities to reject by: add calibrate=True, or"),
        ({"label": "size", "reject_share": 0.1}, r"reject_share=0.1 is for classification, and the task is regression"),
        (
            {"reject_share": 0.1, "reject_by": "distanse"},
            r"reject_by must be one of probability, distance, got 'distanse'",
        ),
        ({"reject_by": "distance"}, r"reject_by='distance' needs a share of rows to reject: add reject_share=0.1"),
    ],
)
def test_invalid_rejection_options_are_refused(store: FeatureStore, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit(store, **options)
