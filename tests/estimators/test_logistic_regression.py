"""The batched logistic solver against scikit-learn at tight tolerances."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from stored import clusters

from embedpipe.estimators import TunedLogisticRegression, VarianceFloorScaler
from embedpipe.estimators.solvers.column_stats import ColumnStats
from embedpipe.estimators.solvers.lbfgs import solve_path
from embedpipe.estimators.solvers.logistic_loss import LogisticLoss, TrainingSet
from embedpipe.estimators.solvers.principal_rows import PrincipalRows


def principal_rows(X: npt.NDArray[Any]) -> PrincipalRows:
    return PrincipalRows(X, ColumnStats.measure(X, np.arange(len(X))))


def training_set(rows: npt.NDArray[np.int64]) -> TrainingSet:
    return TrainingSet(rows, np.ones(len(rows)))


@pytest.mark.parametrize("classes", [2, 3, pytest.param(40, marks=pytest.mark.long)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_folds_and_penalties_equal_scikit_learn(classes: int, dtype: type) -> None:
    X, y = clusters(400, classes, dim=12, spread=2.0)
    X = (X @ np.random.default_rng(1).standard_normal((12, 30)) + [100.0] * 30).astype(dtype)  # correlated, off centre
    folds = [train for train, _ in StratifiedKFold(4).split(X, y)]
    rows = principal_rows(X)
    loss = LogisticLoss(rows, y, classes, [training_set(train) for train in folds])
    Z = rows.columns.standardised(X.astype(np.float64), np.arange(len(X)))
    Cs = [0.01, 0.3, 10.0]
    for C, result in zip(Cs, solve_path(loss, Cs, tol=1e-9 if dtype == np.float32 else 1e-14), strict=True):
        assert result.converged.all()
        for train, coef, intercept in zip(folds, result.coef, result.intercept, strict=True):
            theirs = LogisticRegression(C=C, tol=1e-8, max_iter=10_000).fit(Z[train], y[train])
            scores = Z @ rows.to_features(coef).T + intercept
            wanted = theirs.decision_function(Z).reshape(len(X), -1)
            assert np.abs(scores - wanted).max() <= (2e-3 if dtype == np.float32 else 1e-4) * np.abs(wanted).max()


@pytest.mark.parametrize("classes", [2, 4])
def test_gradients_equal_finite_differences(classes: int) -> None:
    X, y = clusters(60, classes, dim=5)
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(60, 45, replace=False))
    loss = LogisticLoss(principal_rows(X.astype(np.float64)), y, classes, [TrainingSet(rows, rng.uniform(0.1, 3, 45))])
    shape = (1, loss.n_scores, 6)

    def value(flat: npt.NDArray[np.float64]) -> float:
        point = flat.reshape(shape)
        return float(loss(point[:, :, :-1], point[:, :, -1])[0][0])

    def slope(flat: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        point = flat.reshape(shape)
        _, coef, intercept = loss(point[:, :, :-1], point[:, :, -1])
        return np.concatenate([coef, intercept[:, :, None]], axis=2).ravel()

    assert check_grad(value, slope, rng.standard_normal(np.prod(shape))) < 1e-6


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(10, 60),
    dim=st.integers(1, 80),
    classes=st.integers(2, 5),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    seed=st.integers(0, 1000),
)
def test_solutions_for_all_shapes_and_scales(rows: int, dim: int, classes: int, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = (rng.standard_normal((rows, dim)) * scale + rng.choice([0, 10]) * scale).astype(np.float32)
    X[:, 0] = scale  # constant
    y = np.arange(rows) % classes
    sets = [training_set(np.arange(rows)), training_set(np.arange(rows)[: rows // 2])]
    principal = principal_rows(X)
    loss = LogisticLoss(principal, y, classes, sets)
    (result,) = solve_path(loss, [1.0], tol=1e-8)
    assert result.converged.all()
    _, slopes, _ = loss(result.coef, result.intercept)
    penalty = np.array([1 / each.total for each in sets])[:, None, None] * result.coef
    assert np.abs(slopes + penalty).max() <= 1e-3
    np.testing.assert_allclose(principal.to_features(result.coef)[:, :, 0], 0, atol=1e-5)


def test_threads_do_not_change_the_solution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedpipe.estimators.solvers.logistic_loss.PARALLEL_WORK", 0)
    X, y = clusters(3000, 3, spread=2.0)
    each, three = (TunedLogisticRegression(n_jobs=n).fit(X, y) for n in (1, 3))
    assert each.C_ == three.C_
    np.testing.assert_allclose(each.coef_, three.coef_, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("rows", [40, 400])
def test_rounding_of_the_features_hardly_moves_probabilities(rows: int) -> None:
    X, y = clusters(rows, 5, dim=120, spread=3.0)
    moved = X + np.random.default_rng(0).uniform(-6e-6, 6e-6, X.shape).astype(np.float32)
    first, second = (TunedLogisticRegression().fit(features, y) for features in (X, moved))
    assert first.C_ == second.C_
    assert np.abs(first.predict_proba(X) - second.predict_proba(moved)).max() < 1e-3
    assert (TunedLogisticRegression().fit(X, y).coef_ == first.coef_).all()


def test_loose_solutions_choose_the_penalty_of_exact_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 4))
    problems = [(X, (X[:, 2] > 0).astype(int)), (X, rng.integers(0, 2, 60)), clusters(90, 3, dim=60, spread=2.0)]
    loose = [TunedLogisticRegression().fit(*problem).C_ for problem in problems]
    monkeypatch.setattr("embedpipe.estimators.linear.logistic_regression.CHOICE_TOL", 1e-12)
    assert loose == [TunedLogisticRegression().fit(*problem).C_ for problem in problems]


def test_warns_if_steps_run_out() -> None:
    X, y = clusters(200, 3, spread=2.0)
    with pytest.warns(ConvergenceWarning, match="did not converge in 1 steps: raise max_iter"):
        TunedLogisticRegression(Cs=[1.0], max_iter=1).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert TunedLogisticRegression(Cs=[1.0]).fit(X, y).n_iter_ < 30


def test_sample_and_class_weights_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    y = (np.arange(400) % 10 == 0).astype(int)
    X = (rng.standard_normal((400, 4)) + y[:, None]).astype(np.float32)
    plain, balanced = (TunedLogisticRegression(Cs=[1.0], class_weight=w).fit(X, y) for w in (None, "balanced"))
    assert balanced.predict(X).mean() > 2 * plain.predict(X).mean()
    by_hand = TunedLogisticRegression(Cs=[1.0]).fit(X, y, sample_weight=np.where(y == 1, 5.0, 5 / 9))
    np.testing.assert_allclose(by_hand.coef_, balanced.coef_, rtol=1e-3)
    with pytest.raises(ValueError, match="egative"):
        TunedLogisticRegression().fit(X, y, sample_weight=np.full(400, -1.0))


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dual_solutions_equal_primal_solutions(classes: int, dtype: type) -> None:
    X, y = clusters(50, classes, dim=130, spread=3.0)
    X = (X * np.linspace(0.1, 5, 130) + 20).astype(dtype)
    weights = np.random.default_rng(0).uniform(0.2, 2, 50)
    for C in (0.01, 1.0):
        ours = TunedLogisticRegression(Cs=[C], tol=1e-14).fit(X, y, sample_weight=weights)
        Z = standardised(X, weights)
        theirs = LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(Z, y, sample_weight=weights)
        wanted = theirs.decision_function(Z)
        assert np.abs(ours.decision_function(X) - wanted).max() <= 1e-4 * np.abs(wanted).max()


def standardised(X: npt.NDArray[Any], weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    scaler = VarianceFloorScaler().fit(X.astype(np.float64), sample_weight=weights)
    return np.asarray(scaler.transform(X.astype(np.float64)))
