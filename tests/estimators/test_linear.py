"""Linear estimators against scikit-learn on standardised features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import normalize
from stored import clusters

from embedpipe.estimators import (
    CentroidClassifier,
    TunedLogisticRegression,
    TunedRidge,
    TunedRidgeClassifier,
    VarianceFloorScaler,
)


@pytest.mark.parametrize("classes", [2, 5])
def test_coefficients_on_raw_features_equal_a_pipeline(classes: int) -> None:
    X, y = clusters(300, classes)
    X = (X * [1, 10, 100, 1, 1, 1, 1e-3, 1] + 50).astype(np.float64)
    ours = TunedLogisticRegression(Cs=[0.3], max_iter=5000).fit(X, y)
    theirs = make_pipeline(VarianceFloorScaler(), LogisticRegression(C=0.3, max_iter=5000)).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=2e-3)


@pytest.mark.parametrize("shape", [(300, 8), (40, 60)], ids=["tall", "wide"])
def test_ridge_equals_scikit_learn_on_standardised_features(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal(shape) * rng.uniform(0.1, 10, shape[1]) + 5
    y = X @ rng.standard_normal(shape[1]) + rng.standard_normal(shape[0])
    ours = TunedRidge(alphas=[3.0]).fit(X, y)
    theirs = make_pipeline(VarianceFloorScaler(), Ridge(alpha=3.0)).fit(X, y)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-8)


@pytest.mark.parametrize(
    ("head", "parameter", "chosen"),
    [
        (TunedLogisticRegression, "Cs", "C_"),
        (TunedRidgeClassifier, "alphas", "alpha_"),
        (TunedRidge, "alphas", "alpha_"),
    ],
)
def test_chosen_penalty_grows_with_noise(head: Any, parameter: str, chosen: str) -> None:
    """Noise needs a strong penalty, well separated classes a weak one."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((120, 60))
    y = np.arange(120) % 2
    clean = np.where(y[:, None] == 1, 1.0, -1.0) + 0.3 * noise
    values = [1e-5, 1e-3, 1e-1, 10.0] if parameter == "Cs" else [0.1, 10.0, 1e3, 1e5]
    strict, loose = (getattr(head(**{parameter: values}).fit(X, y), chosen) for X in (noise, clean))
    assert (strict < loose) if parameter == "Cs" else (strict > loose)


def test_penalty_is_chosen_on_the_given_splits() -> None:
    X, y = clusters(200, spread=2.0)
    rng = np.random.default_rng(0)
    wrong = y.copy()
    wrong[150:] = rng.permutation(y[150:])
    split = [(np.arange(150), np.arange(150, 200))]
    free, held = (TunedLogisticRegression(cv=cv).fit(X, wrong).C_ for cv in (None, split))
    # With shuffled held-out labels, the strongest penalty has the least held-out loss.
    assert held < free
    assert held == 1e-5


def test_class_only_in_held_out_rows_is_ignored() -> None:
    X, y = clusters(60)
    y[50:] = 3
    head = TunedLogisticRegression(cv=[(np.arange(50), np.arange(45, 60))]).fit(X, y)
    assert set(head.predict(X)) <= {0, 1, 2, 3}
    assert head.predict_proba(X).shape == (60, 4)


def test_centroid_equals_nearest_mean_of_centred_normalised_rows() -> None:
    X, y = clusters(200, spread=1.5)
    directions = normalize(X.astype(np.float64) - X.mean(axis=0))
    theirs = NearestCentroid().fit(directions, y)
    cosines = directions @ normalize(theirs.centroids_).T
    ours = CentroidClassifier().fit(X, y)
    np.testing.assert_allclose(ours.decision_function(X), cosines, atol=1e-5)
    assert (ours.predict(X) == cosines.argmax(axis=1)).all()


@pytest.mark.parametrize("head", [TunedLogisticRegression, TunedRidgeClassifier, CentroidClassifier])
def test_fit_does_not_change_training_rows(head: Any) -> None:
    X, y = clusters(90)
    before = X.copy()
    head().fit(X, y)
    assert (before == X).all()


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (TunedLogisticRegression(Cs=[]), r"Cs must be positive numbers, got \[\]"),
        (TunedLogisticRegression(Cs=[0.0, 1.0]), "must be positive numbers"),
        (TunedRidgeClassifier(alphas=[-1.0]), r"alphas must be positive numbers, got \[-1.0\]"),
    ],
)
def test_penalties_not_above_zero_are_refused(head: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        head.fit(*clusters(30))


def test_penalty_is_chosen_despite_a_class_of_one_row() -> None:
    X, y = clusters(120, spread=1.5)
    y[0] = 7
    rare, common = TunedLogisticRegression().fit(X, y), TunedLogisticRegression().fit(X[1:], y[1:])
    assert list(rare.classes_) == [0, 1, 2, 7]
    assert TunedLogisticRegression.FALLBACK not in (rare.C_, common.C_)
    alone = TunedLogisticRegression().fit(X[:3], np.arange(3))
    assert alone.C_ == TunedLogisticRegression.FALLBACK
