"""Temperature calibration against scikit-learn; predicted classes stay, probabilities improve."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold
from sklearn.utils.estimator_checks import parametrize_with_checks
from stored import clusters, make_store

from embedpipe import fit, load_head
from embedpipe.errors import UsageError
from embedpipe.estimators import TunedLogisticRegression, TunedRidgeClassifier
from embedpipe.estimators.wrappers import calibration
from embedpipe.estimators.wrappers.calibration import TemperatureCalibratedClassifier
from embedpipe.heads.registry import HEADS

NAMES = np.array(["cat", "dog", "owl"])
CLASSIFIERS = [name for name, tasks in HEADS.items() if "classification" in tasks]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.no_cover
@parametrize_with_checks([TemperatureCalibratedClassifier(TunedRidgeClassifier(), cv=2)])
def test_passes_scikit_learn_estimator_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_temperature_equals_scikit_learn_without_doubt(
    classes: int, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "least_doubt", lambda y, weights: 0.0)
    X, y = clusters(240, classes, spread=2.5)
    X = X.astype(np.float64)  # of float32 logits scikit-learn's temperature is less exact
    weights = np.random.default_rng(1).uniform(0, 3, len(y)) if weighted else None
    head = LogisticRegression(C=100)
    folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(X, y))
    theirs = CalibratedClassifierCV(head, method="temperature", ensemble=False, cv=folds).fit(X, y, weights)
    ours = TemperatureCalibratedClassifier(head, cv=folds).fit(X, y, weights)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-5)
    assert ours.temperature_ > 1


@pytest.mark.parametrize("rows", [30, 300])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_probabilities_stay_below_1_where_all_rows_are_right(name: str, rows: int) -> None:
    X, y = clusters(rows, spread=0.01)
    shares = TemperatureCalibratedClassifier(HEADS[name]["classification"](rows * 2 // 3)).fit(X, y).predict_proba(X)
    doubt = 1 - shares[np.arange(rows), y].mean()
    assert 0.1 / rows < doubt < 1 / rows


def test_doubt_is_a_weight_of_the_next_class() -> None:
    logits = np.random.default_rng(0).standard_normal((50, 3))
    y = logits.argmax(axis=1)
    y[:9] = logits[:9].argmin(axis=1)
    others = logits.copy()
    others[np.arange(50), y] = -np.inf
    twice, labels = np.concatenate([logits, logits]), np.concatenate([y, others.argmax(axis=1)])
    weights = np.repeat([0.9, 0.1], 50)
    doubted = calibration.best_temperature(logits, y, None, doubt=0.1)
    assert doubted == pytest.approx(calibration.best_temperature(twice, labels, weights), rel=1e-6)


def test_doubt_counts_rows_by_their_weight() -> None:
    y, weights = np.zeros(8, np.int64), np.repeat([3.0, 0.0], 4)
    assert calibration.least_doubt(y, None) == 1 / 18
    assert calibration.least_doubt(y, weights) == 1 / 26
    assert calibration.least_doubt(y, weights / 12) == 1 / 10


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_calibration_keeps_predicted_classes(name: str, classes: int) -> None:
    X, y = clusters(200, classes, spread=1.8)
    new, truth = clusters(300, classes, spread=1.8, seed=1)
    head = HEADS[name]["classification"](100)
    calibrated = TemperatureCalibratedClassifier(head).fit(X, NAMES[y])
    plain = clone(head).fit(X, NAMES[y])
    shares = calibrated.predict_proba(new)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert (calibrated.predict(new) == plain.predict(new)).all()
    assert (calibrated.classes_[shares.argmax(axis=1)] == plain.predict(new)).all()
    if hasattr(plain, "predict_proba"):  # which is not much better where there was nothing to learn
        before = plain.predict_proba(new).astype(np.float64)
        assert loss_of(shares, truth) < loss_of(before / before.sum(axis=1, keepdims=True), truth) + 0.02
    assert loss_of(shares, truth) < np.log(classes)


def loss_of(shares: Any, truth: Any) -> float:
    return float(log_loss(truth, np.clip(shares, 0, 1)))


class Counted(TunedRidgeClassifier):
    """Records the number of penalties of each fit."""

    fits: ClassVar[list[int]] = []

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        self.fits.append(len(self.alphas))
        return super().fit(X, y, sample_weight)


def test_inner_estimator_chooses_its_penalty_once() -> None:
    X, y = clusters(150, spread=2.0)
    calibrated = TemperatureCalibratedClassifier(Counted()).fit(X, y)
    assert Counted.fits == [29, 1, 1, 1, 1, 1]
    assert calibrated.estimator_.alpha_ == TunedRidgeClassifier().fit(X, y).alpha_


def test_given_splits_are_used_for_penalty_and_temperature() -> None:
    X, y = clusters(150, spread=2.0)
    splits = [(np.arange(100), np.arange(100, 150))]
    calibrated = TemperatureCalibratedClassifier(TunedLogisticRegression(), cv=splits).fit(X, y)
    assert calibrated.estimator_.C_ == TunedLogisticRegression(cv=splits).fit(X, y).C_
    assert calibrated.estimator_.cv is None
    mixed = y.copy()
    mixed[100:] = np.random.default_rng(0).permutation(mixed[100:])
    right, wrong = (
        TemperatureCalibratedClassifier(LogisticRegression(), cv=splits).fit(X, labels) for labels in (y, mixed)
    )
    assert wrong.temperature_ > 5 * right.temperature_


def test_class_missing_from_a_fold_gives_finite_probabilities(recwarn: pytest.WarningsRecorder) -> None:
    X, y = clusters(93, spread=1.5)
    y[90:] = [3, 3, 4]
    for head in (LogisticRegression(), HEADS["knn"]["classification"](20)):
        shares = TemperatureCalibratedClassifier(head).fit(X, y).predict_proba(X)
        assert shares.shape == (93, 5)
        assert np.isfinite(shares).all()
    assert not [warning for warning in recwarn if "overflow" in str(warning.message)]


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="calibration needs two classes with two rows or more"):
        TemperatureCalibratedClassifier(LogisticRegression()).fit(np.eye(3), [0, 1, 2])


def test_calibrated_head_is_saved_and_predicts_the_same(tmp_path: Path) -> None:
    X, y = clusters(120, spread=2.0)
    store = make_store(tmp_path / "s", X, label=NAMES[y], size=X[:, 0] + 0.25)
    for name in ("ridge", "knn"):
        head = fit(store, name, calibrate=True, folds=3, to=tmp_path / "head")
        plain = fit(store, name, folds=3)
        assert head.report.chosen["temperature"] > 0
        assert head.report.metrics["accuracy"] == plain.report.metrics["accuracy"]
        assert np.mean(head.report.metrics["log_loss"]) < np.mean(head.report.baseline["log_loss"])
        table = head.predict(store)
        assert [name for name in table.column_names if "_" in name][:3] == [f"probability_{name}" for name in NAMES]
        assert load_head(tmp_path / "head").predict(store).equals(table)
    with pytest.raises(UsageError, match="calibrate=True is for classification and multilabel"):
        fit(store, label="size", calibrate=True)
