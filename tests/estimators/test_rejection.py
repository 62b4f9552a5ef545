"""The reject option: about the share asked for, by probability or by distance, and nothing is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks
from stored import clusters, make_store

from embedpipe import fit, load_head
from embedpipe.errors import UsageError
from embedpipe.estimators import CentroidClassifier, TunedRidgeClassifier
from embedpipe.estimators.wrappers.calibration import TemperatureCalibratedClassifier
from embedpipe.estimators.wrappers.rejection import RejectingClassifier
from embedpipe.heads.options import RejectBy

NAMES = np.array(["cat", "dog", "owl"])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([RejectingClassifier(TunedRidgeClassifier(), by="distance")])
def test_keeps_scikit_learns_contract(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("by", ["probability", "distance"])
@pytest.mark.parametrize("cv", [None, 4])
def test_new_rows_are_rejected_about_as_often_as_asked(by: RejectBy, cv: int | None) -> None:
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


def test_the_threshold_is_exceeded_by_the_share_of_unseen_rows() -> None:
    X, y = clusters(200, spread=2.0)
    train, held_out = np.arange(100), np.arange(100, 200)
    head = RejectingClassifier(LogisticRegression(), share=0.1, cv=[(train, held_out)]).fit(X, y)
    unseen = 1 - LogisticRegression().fit(X[train], y[train]).predict_proba(X[held_out]).max(axis=1)
    assert (unseen > head.threshold_).sum() == 10


def test_distance_is_that_to_the_tenth_nearest_row_and_finds_what_is_of_no_class() -> None:
    X, y = clusters(300, spread=0.3)
    head = RejectingClassifier(LogisticRegression(), by="distance").fit(X, y)
    strange = -X[:50]
    assert head.rejected(strange).all()
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    cosines = np.sort(unit[:5].astype(float) @ unit.T.astype(float), axis=1)
    np.testing.assert_allclose(head.reject_score(X[:5]), 1 - cosines[:, -10], atol=1e-6)
    # Of its own rows each is left out, or all would be near.
    assert (1 - cosines[:, -11] > head.threshold_).sum() <= 5


def test_rejection_is_around_calibration_and_refits_it_only_once_a_fold() -> None:
    X, y = clusters(200, spread=2.0)
    head = RejectingClassifier(TemperatureCalibratedClassifier(CentroidClassifier())).fit(X, y)
    assert head.estimator_.temperature_ < 1
    assert 0.3 < head.threshold_ < 0.7


def test_prediction_and_rejection_stand_side_by_side(tmp_path: Path) -> None:
    X, y = clusters(150, spread=2.5)
    store = make_store(tmp_path / "s", X, label=NAMES[y], size=X[:, 0] + 0.25, rejected=["yes", "no", "no"] * 50)
    for options in ({"head": "knn"}, {"head": "ridge", "calibrate": True}, {"head": "ridge", "reject_by": "distance"}):
        head = fit(store, **options, reject_share=0.2, folds=3, to=tmp_path / "head")
        assert 0.05 < np.mean(head.report.metrics["rejected"]) < 0.4
        if "reject_by" not in options:
            assert np.mean(head.report.metrics["accuracy_of_the_rest"]) > np.mean(head.report.metrics["accuracy"])
        table = head.predict(store)
        assert table.column_names[:3] == ["id", "uri", "label"]
        assert table.column_names[-4:] == ["rejected", "reject_score", "actual", "error"]
        assert table["label"].null_count == 0
        assert set(table["rejected"].to_pylist()) == {True, False}
        assert load_head(tmp_path / "head").predict(store).equals(table)
    assert "prediction" in fit(store, "knn", label="rejected", reject_share=0.2, folds=0).predict(store).column_names
    with pytest.raises(UsageError, match=r"ridge gives no probabilities to reject by: add --calibrate, or"):
        fit(store, "ridge", reject_share=0.1)
    with pytest.raises(UsageError, match=r"reject_share=0.1 is for classification, and the task is regression"):
        fit(store, label="size", reject_share=0.1)
    with pytest.raises(
        UsageError, match=r"reject_by must be one of probability, distance, got 'distanse'; did you mean 'distance'"
    ):
        fit(store, reject_share=0.1, reject_by="distanse")
    with pytest.raises(UsageError, match=r"reject_by='distance' needs a share of rows to reject: add reject_share=0.1"):
        fit(store, reject_by="distance")
