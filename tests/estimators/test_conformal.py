"""Prediction intervals against the formula of the paper, and their coverage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import KFold
from sklearn.utils.estimator_checks import parametrize_with_checks
from stored import clusters, make_store

from embedpipe import fit, load_head
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.estimators import FaissKNNRegressor, TunedRidge
from embedpipe.estimators.wrappers.conformal import CrossConformalRegressor


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.no_cover
@parametrize_with_checks([CrossConformalRegressor(TunedRidge(), coverage=0.5)])
def test_passes_scikit_learn_estimator_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def numbers(rows: int, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, 6)).astype(np.float32)
    return X, X @ np.arange(6) + rng.standard_normal(rows) * np.exp(X[:, 0] / 2)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95])
def test_interval_ends_equal_the_formula_of_the_paper(coverage: float) -> None:
    X, y = numbers(57, seed=0)
    new = numbers(5, seed=1)[0]
    folds = list(KFold(4, shuffle=True, random_state=3).split(X))
    result = CrossConformalRegressor(LinearRegression(), coverage=coverage, cv=folds).fit(X, y).predict_interval(new)
    # Barber et al. (2021), equation (11), one row at a time.
    for x, (low, high) in zip(new, result, strict=True):
        lows, highs = [], []
        for train, test in folds:
            model = LinearRegression().fit(X[train], y[train])
            centre = model.predict(x[None])[0]
            for i in test:
                residual = abs(y[i] - model.predict(X[i][None])[0])
                lows.append(centre - residual)
                highs.append(centre + residual)
        n = len(y)
        assert low == pytest.approx(np.sort(lows)[int(np.floor((1 - coverage) * (n + 1) + 1e-9)) - 1], rel=1e-5)
        assert high == pytest.approx(np.sort(highs)[int(np.ceil(coverage * (n + 1) - 1e-9)) - 1], rel=1e-5)


@pytest.mark.parametrize("head", [TunedRidge(), FaissKNNRegressor()])
def test_intervals_have_the_given_coverage(head: Any) -> None:
    new, truth = numbers(2000, seed=99)
    inside = []
    for seed in range(5):
        X, y = numbers(300, seed)
        low, high = CrossConformalRegressor(head, coverage=0.9).fit(X, y).predict_interval(new).T
        inside.append(((low <= truth) & (truth <= high)).mean())
    assert 0.88 < np.mean(inside) < 0.95


def test_coverage_is_reported_and_intervals_are_saved(tmp_path: Path) -> None:
    X, y = numbers(200, seed=2)
    store = make_store(tmp_path / "s", X, age=y, label=["a", "b"] * 100)
    for name in ("ridge", "knn"):
        head = fit(store, name, label="age", interval_coverage=0.9, to=tmp_path / "head")
        assert 0.8 < np.mean(head.report.metrics["coverage"]) <= 1
        assert np.mean(head.report.metrics["interval_width"]) > 0
        table = head.predict(store)
        assert table.column_names == ["id", "uri", "age", "age_low", "age_high", "actual", "fitted_on", "error"]
        low, middle, high = (np.asarray(table[column]) for column in ("age_low", "age", "age_high"))
        assert ((low <= middle) & (middle <= high)).mean() > 0.99
        assert load_head(tmp_path / "head").predict(store).equals(table)
    with pytest.raises(UsageError, match=r"interval_coverage=0.9 is for regression, and the task is classification"):
        fit(store, interval_coverage=0.9)
    with pytest.raises(UsageError, match=r"interval_coverage must be between 0 and 1, such as 0.9, got 90"):
        fit(store, label="age", interval_coverage=90)
    with pytest.raises(TrainingDataError, match=r"coverage=0.999 needs 999 held-out rows, got 160"):
        fit(store, label="age", interval_coverage=0.999)


def test_sample_weights_are_used_in_the_fit() -> None:
    X, y = clusters(60)
    X, y = X, X[:, 0].astype(float)
    y[:20] = 5.0
    weights = np.r_[np.zeros(20), np.ones(40)]
    model = CrossConformalRegressor(TunedRidge(alphas=(1e-3,)), coverage=0.5).fit(X, y, weights)
    np.testing.assert_allclose(model.predict(X[20:]), X[20:, 0], atol=0.01)
