"""Column means and scales, and the effect of the variance floor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.preprocessing import StandardScaler
from stored import clusters

from embedpipe.estimators import (
    ShrunkenLDA,
    TunedLogisticRegression,
    TunedRidge,
    TunedRidgeClassifier,
    VarianceFloorScaler,
)
from embedpipe.estimators.solvers import column_stats as columns
from embedpipe.estimators.solvers.column_stats import ColumnStats

LINEAR = [TunedLogisticRegression, TunedRidgeClassifier]
EVERYTHING = np.arange(200)
WEIGHTS = np.random.default_rng(1).uniform(0.1, 2, 200)


@pytest.fixture(name="X")
def rows_of_many_scales() -> Any:
    """Rows of 40 columns with scales from 1e-4 to 1e4; one column is constant, one is nonzero in a single row."""
    X = np.random.default_rng(0).standard_normal((200, 40)) * np.logspace(-4, 4, 40) + 3
    X[:, 7] = 0.1
    X[:, 30] = 0
    X[5, 30] = 1e-6
    return X


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_variance_floor_is_the_lower_quartile_of_deviations(X: Any, weights: Any) -> None:
    plain = StandardScaler().fit(X, sample_weight=weights)
    result = ColumnStats.measure(X, EVERYTHING, weights)
    np.testing.assert_allclose(result.mean, plain.mean_)
    assert np.flatnonzero(~result.varies).tolist() == [7]
    least = np.sort(np.delete(plain.scale_, 7))[(39 - 1) // 4]
    np.testing.assert_allclose(result.scale, np.where(result.varies, np.maximum(plain.scale_, least), least))
    assert (result.scale > plain.scale_ * (1 + 1e-9)).sum() == 38 // 4
    plainly = ColumnStats.measure(X, EVERYTHING, weights, variance_floor=False)
    np.testing.assert_allclose(plainly.scale, plain.scale_)
    assert plainly.scale[7] == 1


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_scaler_partial_fit_equals_fit(X: Any, weights: Any) -> None:
    whole, parts = VarianceFloorScaler().fit(X, sample_weight=weights), VarianceFloorScaler()
    for rows in np.split(EVERYTHING, [10, 90]):
        parts.partial_fit(X[rows], sample_weight=None if weights is None else weights[rows])
    expected = ColumnStats.measure(X, EVERYTHING, weights)
    for scaler in (whole, parts):
        np.testing.assert_allclose(scaler.scale_, expected.scale)
        np.testing.assert_allclose(scaler.transform(X), expected.standardised(X, EVERYTHING), atol=1e-9)
        np.testing.assert_allclose(scaler.inverse_transform(scaler.transform(X)), X, atol=1e-9)
    assert VarianceFloorScaler(with_std=False).fit(X).scale_ is None


def test_scales_are_proportional_to_units_and_four_columns_are_unchanged(X: Any) -> None:
    np.testing.assert_allclose(
        ColumnStats.measure(X * 1024, EVERYTHING).scale, 1024 * ColumnStats.measure(X, EVERYTHING).scale
    )
    assert (ColumnStats.measure(np.ones_like(X), EVERYTHING).scale == 1).all()
    few = np.ascontiguousarray(X[:, :4])
    np.testing.assert_allclose(ColumnStats.measure(few, EVERYTHING).scale, StandardScaler().fit(few).scale_)


@pytest.mark.parametrize("head", [*LINEAR, TunedRidge, ShrunkenLDA])
@pytest.mark.parametrize("dim", [4, 60])
def test_features_whose_squares_overflow_are_refused(head: Any, dim: int) -> None:
    X, y = clusters(30, dim=dim)
    with pytest.raises(ValueError, match="X has values too large for float64"):
        head().fit(X.astype(np.float64) * 1e200, y)


@pytest.mark.parametrize("head", LINEAR)
def test_constant_column_gets_coefficient_zero(head: Any) -> None:
    """Pixels that are black in all training rows get exactly 0, without rounding errors."""
    X, y = load_digits(return_X_y=True)
    model = head().fit(X[:500] * 1e20, y[:500])
    constant = np.ptp(X[:500], axis=0) == 0
    assert constant.any()
    assert not model.coef_[:, constant].any()
    assert model.score(X[500:] * 1e20, y[500:]) > 0.8


@pytest.mark.parametrize("head", LINEAR)
def test_variance_floor_raises_accuracy_on_rarely_active_pixels(head: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels at the edge of scikit-learn's digits are nonzero in few of 40 pictures."""
    X, y = load_digits(return_X_y=True)
    accuracy = {}
    for share in (0.0, columns.FLOOR_QUANTILE):
        monkeypatch.setattr(columns, "FLOOR_QUANTILE", share)
        right = []
        for seed in range(5):
            order = np.random.default_rng(seed).permutation(len(X))
            model = head().fit(X[order[:40]], y[order[:40]])
            right.append(np.mean(model.predict(X[order[40:]]) == y[order[40:]]))
        accuracy[share] = np.array(right)
    assert (accuracy[columns.FLOOR_QUANTILE] > accuracy[0.0]).all()
    assert accuracy[columns.FLOOR_QUANTILE].mean() > accuracy[0.0].mean() + 0.01
