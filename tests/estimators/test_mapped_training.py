"""Linear estimators on memory maps: the coefficients are those of the same rows in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

from embedpipe.estimators.linear import lda
from embedpipe.estimators.linear.centroid import CentroidClassifier
from embedpipe.estimators.linear.lda import ShrunkenLDA
from embedpipe.estimators.linear.logistic_regression import TunedLogisticRegression
from embedpipe.estimators.linear.ridge import TunedRidge, TunedRidgeClassifier
from embedpipe.estimators.solvers import column_stats, logistic_loss, principal_rows
from embedpipe.estimators.wrappers.calibration import TemperatureCalibratedClassifier
from embedpipe.estimators.wrappers.conformal import CrossConformalRegressor
from embedpipe.estimators.wrappers.multilabel import MultiLabelClassifier
from embedpipe.estimators.wrappers.rejection import RejectingClassifier
from embedpipe.neighbours import exact
from embedpipe.splits.mapped_rows import MappedRows

ROWS, DIM = 211, 7
RNG = np.random.default_rng(3)
#: Columns of very different means and scales, which centring in one pass would lose.
X = (RNG.standard_normal((ROWS, DIM)) * np.logspace(-2, 1, DIM) + np.logspace(2, -1, DIM)).astype(np.float32)
Z = (X - X.mean(axis=0)) / X.std(axis=0)
CLASSES = np.array(["a", "b", "c"])[np.argmax(Z[:, :3] + RNG.standard_normal((ROWS, 3)), axis=1)]
NUMBERS = Z @ RNG.standard_normal(DIM) + RNG.standard_normal(ROWS)
WEIGHTS = RNG.random(ROWS)
ORDER = RNG.permutation(ROWS)

#: Estimator, what it learns, and whether it takes weights.
CASES = {
    "ridge": (TunedRidgeClassifier(), CLASSES, True),
    "ridge of numbers": (TunedRidge(), NUMBERS, True),
    "ridge of two classes": (TunedRidgeClassifier(), CLASSES == "a", True),
    "lda": (ShrunkenLDA(), CLASSES, False),
    "lda of rare classes": (ShrunkenLDA(), np.where(np.arange(ROWS) % 50 == 0, "rare", CLASSES), False),
    "lda of two classes": (ShrunkenLDA(), CLASSES == "a", False),
    "centroid": (CentroidClassifier(), CLASSES, False),
    "logreg": (TunedLogisticRegression(), CLASSES, True),
    "logreg of two classes": (TunedLogisticRegression(class_weight="balanced"), CLASSES == "a", True),
}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make blocks of 10 to 16 rows, which do not divide the rows, and keep no rows in memory."""
    monkeypatch.setattr(column_stats, "BLOCK", 8 * DIM * 10)
    monkeypatch.setattr(exact, "ROW_BLOCK", 4 * DIM * 13)
    monkeypatch.setattr(logistic_loss, "BLOCK", 4 * DIM * 16)
    monkeypatch.setattr(principal_rows, "BLOCK", 4 * DIM * 11)
    monkeypatch.setattr(principal_rows, "MAX_COPY", 0)
    monkeypatch.setattr(lda, "PRODUCTS", 2 * 8 * DIM**2)


def mapped(rows: np.ndarray) -> MappedRows:
    """Return ``X[rows]`` as rows of two maps."""
    place = np.argsort(ORDER)  # the maps hold the rows in another order
    return MappedRows([X[ORDER, :4], X[ORDER, 4:]]).take(place[rows])


@pytest.mark.parametrize(
    ("name", "weighted"), [(name, weighted) for name, case in CASES.items() for weighted in {False, case[2]}]
)
def test_coefficients_are_those_in_memory(name: str, weighted: bool, request: pytest.FixtureRequest) -> None:
    estimator, y, _ = CASES[name]
    given: dict[str, Any] = {"sample_weight": WEIGHTS} if weighted else {}
    in_memory = clone(estimator).fit(X, y, **given)
    request.getfixturevalue("small_blocks")
    by_blocks = clone(estimator).fit(mapped(np.arange(ROWS)), y, **given)
    assert by_blocks.n_features_in_ == DIM
    # L-BFGS in float32 stops where the loss is within its tolerance; the others are closed formulas.
    tolerance = 2e-3 if "logreg" in name else 1e-9
    for values in ("coef_", "intercept_"):
        expected = getattr(in_memory, values)
        got = getattr(by_blocks, values)
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())
    assert getattr(by_blocks, "C_", None) == getattr(in_memory, "C_", None)
    assert getattr(by_blocks, "alpha_", None) == getattr(in_memory, "alpha_", None)
    rows = np.arange(3, ROWS, 2)
    np.testing.assert_array_equal(by_blocks.predict(mapped(rows)), by_blocks.predict(X[rows]))


@pytest.mark.parametrize("name", CASES)
def test_the_same_blocks_give_the_same_bits(name: str, small_blocks: None) -> None:
    estimator, y, _ = CASES[name]
    rows = np.arange(ROWS)
    in_memory, by_blocks = clone(estimator).fit(X, y), clone(estimator).fit(mapped(rows), y)
    # In memory, the mean of all rows is summed in one go, and classes are read one after another.
    tolerance = 0 if "ridge" in name or "logreg" in name else 1e-10
    np.testing.assert_allclose(by_blocks.coef_, in_memory.coef_, rtol=tolerance)


@pytest.mark.parametrize(
    ("wrapper", "y", "method"),
    [
        (TemperatureCalibratedClassifier(TunedRidgeClassifier()), CLASSES, "predict_proba"),
        (RejectingClassifier(ShrunkenLDA(), share=0.2), CLASSES, "reject_score"),
        (CrossConformalRegressor(TunedRidge()), NUMBERS, "predict_interval"),
        (MultiLabelClassifier(TunedRidge()), np.stack([CLASSES == "a", CLASSES == "b"], axis=1), "decision_function"),
    ],
)
def test_wrappers_learn_the_same_from_maps(wrapper: Any, y: np.ndarray, method: str, small_blocks: None) -> None:
    in_memory, by_blocks = clone(wrapper).fit(X, y), clone(wrapper).fit(mapped(np.arange(ROWS)), y)
    expected = getattr(in_memory, method)(X)
    np.testing.assert_allclose(getattr(by_blocks, method)(mapped(np.arange(ROWS))), expected, rtol=1e-7)


def test_device_holds_a_copy_of_mapped_rows() -> None:
    rows = mapped(np.arange(ROWS))
    on_device = ShrunkenLDA(device="cpu").fit(rows, CLASSES)
    np.testing.assert_allclose(on_device.coef_, ShrunkenLDA().fit(X, CLASSES).coef_, rtol=1e-8)
