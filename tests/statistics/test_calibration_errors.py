"""Calibration errors: hand-computed values, and classifiers whose true error is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedpipe.statistics import calibration_errors

QUICK = settings(max_examples=40, deadline=None)


def two_classes(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities of two classes, the second of which is predicted, and the true classes."""
    return np.stack([1 - confidence, confidence], axis=1), right.astype(int)


def simulated(rows: int, sharpness: float, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return probabilities, true classes and the true ECE of a classifier whose log-odds are scaled by a factor."""
    rng = np.random.default_rng(seed)
    odds = np.abs(rng.normal(3, 2, rows))
    confidence, truth = 1 / (1 + np.exp(-odds)), 1 / (1 + np.exp(-odds * sharpness))
    which = np.ceil(confidence * 15).astype(int)
    true_error = np.abs(np.bincount(which, truth - confidence)).sum() / rows
    return *two_classes(confidence, rng.random(rows) < truth), float(true_error)


def test_errors_equal_hand_computed_values() -> None:
    p = [[0.9, 0.1, 0], [0.9, 0, 0.1], [0.3, 0.3, 0.4], [0.2, 0.4, 0.4]]
    result = calibration_errors(p, [0, 1, 2, 2], bins=10)
    assert result.confidence == pytest.approx([0.4, 0.9])
    assert result.accuracy.tolist() == [0.5, 0.5]
    assert result.rows.tolist() == [2, 2]
    assert result.ece == pytest.approx(0.5 * 0.1 + 0.5 * 0.4)
    # Chance: 0, 1 or 2 of 2 rows are right.
    of_04 = 0.36 * 0.4 + 0.48 * 0.1 + 0.16 * 0.6
    of_09 = 0.01 * 0.9 + 0.18 * 0.4 + 0.81 * 0.1
    assert result.by_chance == pytest.approx((of_04 + of_09) / 2)


def test_by_chance_equals_simulation() -> None:
    rng = np.random.default_rng(0)
    p, y, _ = simulated(372, 1, 0)
    shown = [calibration_errors(p, (rng.random(372) < p[:, 1]).astype(int)).ece for _ in range(500)]
    assert calibration_errors(p, y).by_chance == pytest.approx(np.mean(shown), rel=0.05)


def test_debiased_error_of_a_calibrated_classifier_is_small() -> None:
    result = [calibration_errors(*simulated(372, 1, seed)[:2]) for seed in range(300)]
    assert 0.025 < np.mean([each.ece for each in result]) < 0.035
    assert np.mean([each.debiased for each in result]) < 0.0075
    assert np.median([each.debiased for each in result]) < 0.004


@pytest.mark.parametrize(("rows", "sharpness", "near"), [(372, 0.4, 0.005), (372, 2.5, 0.005), (2624, 0.6, 0.003)])
def test_debiased_error_of_a_miscalibrated_classifier(rows: int, sharpness: float, near: float) -> None:
    result, truths = [], []
    for seed in range(200):
        p, y, true_error = simulated(rows, sharpness, seed)
        result.append(calibration_errors(p, y))
        truths.append(true_error)
    assert np.mean(truths) > 0.05
    assert np.mean([each.debiased for each in result]) == pytest.approx(np.mean(truths), abs=near)
    # Subtracting the expected ECE of a calibrated classifier would give too low an error.
    assert np.mean([each.ece - each.by_chance for each in result]) < np.mean(truths) - near


@QUICK
@given(st.integers(1, 80), st.integers(1, 5), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_errors_are_within_bounds(rows: int, classes: int, bins: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, y = rng.dirichlet(np.full(classes, 0.3), rows), rng.integers(classes, size=rows)
    result = calibration_errors(p, y, bins)
    assert 0 <= result.debiased <= result.ece <= 1
    assert 0 <= result.by_chance <= 0.5 + 1e-9
    assert result.rows.sum() == rows
    assert result.rows @ result.accuracy == pytest.approx((p.argmax(axis=1) == y).sum())


@pytest.mark.parametrize(("y", "error"), [([0, 0, 0], 0), ([1, 1, 1], 1)])
def test_certain_predictions(y: list[int], error: float) -> None:
    result = calibration_errors([[1, 0]] * 3, y)
    assert (result.ece, result.by_chance, result.debiased) == (error, 0, error)


def test_one_class_and_one_row() -> None:
    assert calibration_errors([[1.0]], [0]).ece == 0
    result = calibration_errors([[0.75, 0.25]], [0])
    assert result.ece == pytest.approx(0.25)
    assert result.by_chance == pytest.approx(2 * 0.75 * 0.25)


def test_float32_over_many_classes() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(1000), 20).astype(np.float32)
    assert calibration_errors(p, np.arange(20)).rows.sum() == 20


@pytest.mark.parametrize(
    ("p", "y", "message"),
    [
        (np.zeros((0, 2)), [], "n >= 1"),
        ([0.5, 0.5], [0, 1], "n_classes"),
        ([[0.5, 0.5]], [0, 1], "n_classes"),
        ([[0.5, 0.5], [0.5, 0.4]], [0, 1], "sum to 1 in each row, .* in row 1"),
        ([[1.5, -0.5]], [0], "row 0"),
        ([[np.nan, 0.5]], [0], "row 0"),
        ([[0.5, 0.5]], [2], "integers from 0 to 1"),
        ([[0.5, 0.5]], [-1], "integers from 0 to 1"),
        ([[0.5, 0.5]], ["a"], "integers from 0 to 1"),
    ],
)
def test_invalid_predictions_are_refused(p: object, y: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibration_errors(p, y)
