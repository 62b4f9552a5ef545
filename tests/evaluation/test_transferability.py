"""H-score and LogME against their definitions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize
from sklearn.covariance import ledoit_wolf
from stored import clusters

from embedpipe.evaluation.ranking.transferability import h_score, log_me


def best_evidence(X: npt.NDArray[np.float64], t: npt.NDArray[np.float64]) -> float:
    """Return the largest log density of t under N(0, X X' / a + I / b), by a general optimiser."""
    gram, identity = X @ X.T, np.eye(len(t))

    def cost(logs: npt.NDArray[np.float64]) -> float:
        a, b = np.exp(np.clip(logs, -12, 12))
        covariance = gram / a + identity / b
        logdet = np.linalg.slogdet(2 * np.pi * covariance)[1]
        return float(t @ np.linalg.solve(covariance, t) + logdet) / 2

    starts = [(0, 0), (-3, 2), (3, 4)]
    return -min(float(minimize(cost, start, method="Nelder-Mead", options={"fatol": 1e-9}).fun) for start in starts)


@pytest.mark.parametrize(("rows", "dim"), [(40, 6), (20, 25)])
def test_log_me_is_the_maximum_evidence_of_classes(rows: int, dim: int) -> None:
    X, y = clusters(rows, dim=dim, spread=2.0)
    wide = X.astype(np.float64)
    expected = np.mean([best_evidence(wide, (y == k).astype(float)) for k in range(3)]) / rows
    assert log_me(X, y) == pytest.approx(expected, abs=1e-6)


def test_log_me_of_numbers_is_scale_invariant() -> None:
    X, _ = clusters(30, dim=4)
    target = X @ [1.0, -1.0, 0.5, 0.0] + np.random.default_rng(1).standard_normal(30)
    standardised = (target - target.mean()) / target.std()
    expected = best_evidence(X.astype(np.float64), standardised) / 30
    assert log_me(X, target, "regression") == pytest.approx(expected, abs=1e-6)
    assert log_me(X, 1000 * target + 7, "regression") == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("rows", "dim"), [(60, 5), (18, 30)])
def test_h_score_agrees_with_its_definition(rows: int, dim: int) -> None:
    X, y = clusters(rows, dim=dim)
    covariance, shrinkage = ledoit_wolf(X.astype(np.float64))
    means = np.array([X[y == k].mean(axis=0, dtype=np.float64) for k in range(3)])[y]
    between = np.cov(means, rowvar=False, bias=True)
    expected = np.trace(np.linalg.inv(covariance) @ ((1 - shrinkage) * between))
    assert h_score(X, y) == pytest.approx(expected, rel=1e-9)
    assert 0 < h_score(X, y) < 2


def test_constant_columns_change_nothing() -> None:
    X, y = clusters(40)
    wider = np.hstack([X, np.zeros((40, 3))])
    assert log_me(wider, y) == pytest.approx(log_me(X, y), abs=1e-9)
    constant = np.full((40, 8), 3.0)
    assert h_score(constant, y) == 0
    assert np.isfinite(log_me(constant, y))
    assert log_me(np.zeros((40, 8)), y) < log_me(X, y)
    assert h_score(np.hstack([X, np.full((40, 2), 7.0)]), y) > 1


def test_scores_are_higher_for_separated_classes() -> None:
    good, y = clusters(60, spread=0.3)
    bad, _ = clusters(60, spread=3.0)
    assert h_score(good, y) > h_score(bad, y)
    assert log_me(good, y) > log_me(bad, y)
    assert h_score(good, y.astype(str)) == pytest.approx(h_score(good, y))


def test_a_perfect_fit_is_finite() -> None:
    X = np.eye(12)
    y = np.arange(12) % 2
    assert np.isfinite(log_me(X, y))
    assert np.isfinite(h_score(X, y))
    exact = np.random.default_rng(0).standard_normal((30, 3))
    assert np.isfinite(log_me(exact, exact @ [1.0, 2.0, 3.0], "regression"))


@pytest.mark.parametrize("score", [h_score, log_me])
def test_wrong_arrays_are_refused(score: object) -> None:
    assert callable(score)
    X, y = clusters(12)
    with pytest.raises(ValueError, match="at least 2 distinct labels, got only 1"):
        score(X, np.ones(12, int))
    with pytest.raises(ValueError, match="at least 2 distinct labels, got only 'a'"):
        score(X, np.array(["a"] * 12, object))
    with pytest.raises(ValueError, match="shape"):
        score(X, y[:-1])
    X[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        score(X, y)
