"""Every metric against scikit-learn, and row weights against repeated rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics

from embedpipe.evaluation.metrics import METRICS, PredictedRows

#: Metric -> scikit-learn's function, without weights.
OFFICIAL: dict[str, Callable[[PredictedRows], float]] = {
    "accuracy": lambda a: metrics.accuracy_score(a.y, a.predicted),
    "balanced_accuracy": lambda a: metrics.recall_score(
        a.y, a.predicted, labels=np.unique(a.y), average="macro", zero_division=0
    ),
    "macro_f1": lambda a: metrics.f1_score(a.y, a.predicted, average="macro"),
    "roc_auc": lambda a: metrics.roc_auc_score(a.y, _given(a)[:, 1]),
    "log_loss": lambda a: metrics.log_loss(a.y, _given(a), labels=range(a.n_classes)),
    "brier": lambda a: metrics.brier_score_loss(a.y, _given(a), labels=range(a.n_classes), scale_by_half=False),
    "r2": lambda a: metrics.r2_score(a.y, a.predicted),
    "mae": lambda a: metrics.mean_absolute_error(a.y, a.predicted),
    "rmse": lambda a: metrics.root_mean_squared_error(a.y, a.predicted),
}


def _given(answers: PredictedRows) -> npt.NDArray[np.float64]:
    given = answers.scores if answers.probabilities is None else answers.probabilities
    assert given is not None
    return given


def _taken(answers: PredictedRows, rows: npt.NDArray[np.int64]) -> PredictedRows:
    shares, scores = (None if part is None else part[rows] for part in (answers.probabilities, answers.scores))
    return PredictedRows(answers.y[rows], answers.predicted[rows], shares, scores, answers.n_classes)


@st.composite
def classified(draw: st.DrawFn) -> PredictedRows:
    """Predictions of two to four classes, not all of which have rows, with tied and with vanishing probabilities."""
    n_classes, n = draw(st.integers(2, 4)), draw(st.integers(2, 25))
    y, predicted = (draw(hnp.arrays(np.int64, n, elements=st.integers(0, n_classes - 1))) for _ in range(2))
    if draw(st.booleans()):
        scores = draw(hnp.arrays(np.int64, (n, n_classes), elements=st.integers(-3, 3))).astype(float)
        if n_classes == 2:  # as of one decision function
            scores[:, 0] = -scores[:, 1]
        return PredictedRows(y, predicted, scores=scores, n_classes=n_classes)
    votes = st.one_of(st.integers(1, 4).map(float), st.sampled_from([1e-30, 1e-20, 1e-9, 1e-4]))
    shares = draw(hnp.arrays(np.float64, (n, n_classes), elements=votes))
    return PredictedRows(y, predicted, shares / shares.sum(axis=1, keepdims=True), n_classes=n_classes)


@st.composite
def predicted_numbers(draw: st.DrawFn) -> PredictedRows:
    n, shift = draw(st.integers(2, 25)), draw(st.sampled_from([0.0, -40.0, 1.7e9]))
    values = st.floats(-10, 10).map(lambda value: round(value, 3))
    y, predicted = (draw(hnp.arrays(np.float64, n, elements=values)) + shift for _ in range(2))
    return PredictedRows(y, predicted)


def _agree(computed: dict[str, float], answers: PredictedRows) -> None:
    for name, value in computed.items():
        if name == "r2" and not np.ptp(answers.y):
            assert math.isnan(value)  # where scikit-learn says 0 or 1
        else:
            assert value == pytest.approx(OFFICIAL[name](answers), rel=1e-6, abs=1e-9), name


@settings(max_examples=30, deadline=None)
@given(classified() | predicted_numbers())
def test_metrics_agree_with_scikit_learn(answers: PredictedRows) -> None:
    computed = answers.metrics()
    assert set(computed) <= {*METRICS["classification" if answers.n_classes else "regression"]}
    assert {"accuracy", "r2"} & set(computed)
    _agree(computed, answers)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_weights_agree_with_repeated_rows(data: st.DataObject) -> None:
    answers = data.draw(classified() | predicted_numbers())
    n = len(answers.y)
    counts = data.draw(hnp.arrays(np.int64, (2, n), elements=st.integers(0, 3)).filter(lambda c: c.sum(axis=1).all()))
    repeated = [_taken(answers, np.repeat(np.arange(n), each)) for each in counts]
    for name in answers.metric_names():
        computed = answers.metric(name, counts.astype(float))
        assert computed.shape == (2,)
        for value, rows in zip(computed, repeated, strict=True):
            if name == "roc_auc" and len(np.unique(rows.y)) < 2:
                assert math.isnan(value)
            elif name != "r2" or np.ptp(rows.y) > 0.1:
                assert value == pytest.approx(OFFICIAL[name](rows), rel=1e-6, abs=1e-9), name


def test_metric_names() -> None:
    y, shares = np.array([0, 1, 1]), np.full((3, 2), 0.5)
    plain = ["accuracy", "balanced_accuracy", "macro_f1"]
    assert PredictedRows(y, y, n_classes=2).metric_names() == plain
    assert PredictedRows(y, y, scores=shares, n_classes=2).metric_names() == [*plain, "roc_auc"]
    assert PredictedRows(y, y, shares, n_classes=2).metric_names() == [*plain, "roc_auc", "log_loss", "brier"]
    assert PredictedRows(y, y, np.full((3, 3), 1 / 3), n_classes=3).metric_names() == [*plain, "log_loss", "brier"]
    ones = np.ones(3, int)
    assert "roc_auc" not in PredictedRows(ones, ones, shares, n_classes=2).metrics()  # undefined for one class
    assert list(PredictedRows(y / 2, y / 2).metrics()) == ["r2", "mae", "rmse"]


@pytest.mark.parametrize("value", [0.1, 1e9 / 3])
def test_r2_of_constant_numbers_is_nan(value: float) -> None:
    y = np.full(7, value)
    assert math.isnan(PredictedRows(y, y + 1).metrics()["r2"])
    assert math.isnan(PredictedRows(y, y).metrics()["r2"])


def test_probabilities_near_certainty_still_order_rows() -> None:
    shares = np.array([[1 - p, p] for p in (1e-30, 1e-20, 1e-25, 1e-18)])
    answers = PredictedRows(np.array([0, 1, 0, 1]), np.zeros(4, int), shares, n_classes=2)
    assert answers.metrics()["roc_auc"] == 1.0


def test_direction_of_every_metric() -> None:
    right: dict[str, Any] = {}
    y = np.array([0, 1, 0, 1, 1])
    right["classification"] = [PredictedRows(y, p, np.eye(2)[p], n_classes=2).metrics() for p in (y, 1 - y)]
    right["regression"] = [PredictedRows(y + 0.5, p + 0.5).metrics() for p in (y, 1 - y)]
    for task, figures in METRICS.items():
        good, bad = right[task]
        assert list(good) == list(figures)
        for name, higher in figures.items():
            assert (good[name] > bad[name]) == higher
