"""`ShrunkenLDA` against scikit-learn's least-squares solution."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from embedpipe.estimators import ShrunkenLDA


def rows_of(counts: list[int], dim: int, seed: int = 0) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Return shuffled correlated float64 rows, off-centre, with scales from 0.01 to 100, and their classes."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    common = rng.standard_normal((len(y), 5)) @ rng.standard_normal((5, dim))
    X = common + rng.standard_normal((len(y), dim)) + rng.standard_normal((len(counts), dim))[y]
    return (X + 3) * 10 ** rng.uniform(-2, 2, dim), y


def theirs(X: npt.NDArray[Any], y: npt.NDArray[Any]) -> LinearDiscriminantAnalysis:
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(X, y)


def check_equal(X: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
    ours, other = ShrunkenLDA().fit(X, y), theirs(X, y)
    mine, least_squares = ours.coef_ * X.std(axis=0), other.coef_ * X.std(axis=0)
    # scikit-learn's least squares lose digits on badly scaled columns, relative to the largest coefficient.
    np.testing.assert_allclose(mine, least_squares, rtol=1e-5, atol=1e-7 * np.abs(least_squares).max())
    np.testing.assert_allclose(ours.intercept_, other.intercept_, rtol=1e-5)
    new = X + np.random.default_rng(1).standard_normal(X.shape) * X.std(axis=0)
    np.testing.assert_allclose(ours.decision_function(new), other.decision_function(new), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours.predict_proba(new), other.predict_proba(new), rtol=1e-5, atol=1e-12)
    np.testing.assert_array_equal(ours.predict(new), other.predict(new))


@pytest.mark.parametrize("dim", [1, 7, 30, 150, 400], ids="{} features".format)
@pytest.mark.parametrize("counts", [[90, 90], [40, 60, 50, 70], [150, 12, 2, 45]], ids=["two", "many", "uneven"])
def test_solution_equals_scikit_learn(counts: list[int], dim: int) -> None:
    """Fewer rows than features in all classes, in some classes, and in total."""
    check_equal(*rows_of(counts, dim))


@pytest.mark.parametrize("dim", [20, 300])
def test_constant_and_repeated_columns_equal_scikit_learn(dim: int) -> None:
    X, y = rows_of([40, 50, 60], dim)
    X[:, 0] = 2.0
    X[y == 1, 1] = 7.0
    X[:, 3] = X[:, 2]
    check_equal(X, y)


@pytest.mark.filterwarnings("ignore:Only one sample available")
@pytest.mark.parametrize("dim", [20, 300])
def test_class_of_one_row_equals_scikit_learn(dim: int) -> None:
    check_equal(*rows_of([60, 1, 40], dim))


def test_rows_constant_within_classes_give_the_class_priors() -> None:
    """As in scikit-learn: without a covariance all coefficients are 0."""
    X = np.repeat([[1.0, 2.0], [3.0, 4.0]], [2, 3], axis=0)
    head = ShrunkenLDA().fit(X, np.array(["a", "a", "b", "b", "b"]))
    np.testing.assert_array_equal(head.coef_, 0)
    np.testing.assert_allclose(head.predict_proba(X[:1]), [[0.4, 0.6]])


def test_singular_covariance_without_shrinkage_is_solved() -> None:
    """Rows at the corners of a square have a Ledoit-Wolf shrinkage of 0; repeated columns make them singular."""
    corners = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    X = np.vstack([corners, corners + np.array([6.0, 0.0])])
    for columns in ([0, 0], [0, 0] * 8):
        head = ShrunkenLDA().fit(X[:, columns], np.repeat([0, 1], 4))
        np.testing.assert_allclose(head.decision_function(X[:, columns]), 6 * (X[:, 0] - 3), rtol=1e-4)


def test_float32_rows_are_solved_in_float64() -> None:
    X, y = rows_of([200, 300], 40)
    single = X.astype(np.float32)
    ours = ShrunkenLDA().fit(single, y)
    np.testing.assert_allclose(ours.coef_, ShrunkenLDA().fit(single.astype(np.float64), y).coef_, rtol=1e-9)
    assert ours.coef_.dtype == np.float64


def test_blocks_do_not_change_the_solution(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = rows_of([150, 12, 45], 30)
    whole = ShrunkenLDA().fit(X, y).coef_
    monkeypatch.setattr("embedpipe.estimators.solvers.column_stats.BLOCK", 8 * 30 * 7)
    np.testing.assert_allclose(ShrunkenLDA().fit(X, y).coef_, whole, rtol=1e-9)


def test_one_class_per_row_is_refused() -> None:
    with pytest.raises(ValueError, match="some class must have two rows or more, got 3 rows of 3 classes"):
        ShrunkenLDA().fit(np.eye(3), ["a", "b", "c"])


def test_a_column_of_another_scale_counts_like_the_others() -> None:
    X, y = rows_of([90, 60], 7)
    expected = ShrunkenLDA().fit(X, y).decision_function(X)
    X[:, 2] *= 1e-30
    np.testing.assert_allclose(ShrunkenLDA().fit(X, y).decision_function(X), expected, rtol=1e-7)
