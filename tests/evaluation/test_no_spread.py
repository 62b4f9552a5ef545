"""Zero spread is no certainty: intervals where all test rows, folds or seeds agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from embedpipe.evaluation.differences import differences, estimates
from embedpipe.evaluation.metrics import METRICS, PredictedRows
from embedpipe.splits.make import Resample, Splits

QUICK = settings(max_examples=25, deadline=None)
RESAMPLINGS = ("test split", "5 folds", "2 x 5 folds")


def exact_width(n: int) -> float:
    """Return the width of the exact interval of a share if all n rows are alike."""
    return float(binomtest(0, n).proportion_ci(0.95, "exact").high)


def splits_of(n: int, resampling: str, groups: npt.NDArray[np.int64] | None = None) -> Splits:
    """Return splits that test rows 0 to n - 1; a single test set has n more rows to train on."""
    ids = [f"{row}" for row in range(2 * n)]
    everything = np.arange(n)
    if resampling == "test split":
        resamples = [Resample(0, 0, np.arange(n, 2 * n), everything)]
        groups = None if groups is None else np.r_[groups, groups.max() + 1 + everything]
    else:
        repeats = 2 if resampling.startswith("2") else 1
        resamples = [
            Resample(seed, fold, np.setdiff1d(everything, test), test)
            for seed in range(repeats)
            for fold, test in enumerate(np.sort(part) for part in np.array_split(np.roll(everything, seed), 5))
        ]
    return Splits(ids, resamples, resampling, groups)


def answers(splits: Splits, y: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> list[PredictedRows]:
    """Return the predictions of each resample, as sure as can be."""
    classes = int(y.max()) + 1
    return [
        PredictedRows(y[part.test], predicted[part.test], np.eye(classes)[predicted[part.test]], n_classes=classes)
        for part in splits.resamples
    ]


def values_of(parts: list[PredictedRows], names: list[str]) -> dict[str, list[float]]:
    return {name: [float(part.metric(name)[0]) for part in parts] for name in names}


METRIC_NAMES = ["accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "log_loss", "brier"]


@QUICK
@given(st.integers(10, 60), st.sampled_from(RESAMPLINGS))
def test_all_right_is_never_certain(n: int, resampling: str) -> None:
    splits, y = splits_of(n, resampling), np.arange(n) % 2
    parts = answers(splits, y, y)
    for name, estimate in estimates(values_of(parts, METRIC_NAMES), splits, parts).items():
        width = estimate.high - estimate.low
        if METRICS["classification"][name]:
            assert estimate.value == estimate.high == 1
            assert width >= exact_width(n) - 1e-9
        else:
            assert estimate.value == pytest.approx(0, abs=0.01)
            assert width > 0.01


@QUICK
@given(st.integers(10, 60), st.sampled_from(RESAMPLINGS), st.floats(0, 1), st.integers(0, 99))
def test_intervals_are_never_narrower_than_the_exact_one_of_equal_rows(
    n: int, resampling: str, chance: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    splits, y = splits_of(n, resampling), np.arange(n) % 2
    predicted = np.where(rng.random(n) < chance, y, 1 - y)
    parts = answers(splits, y, predicted)
    result = estimates(values_of(parts, ["accuracy", "balanced_accuracy"]), splits, parts)
    for estimate in result.values():
        assert estimate.high - estimate.low >= exact_width(n) - 1e-9
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


@QUICK
@given(st.integers(10, 60), st.sampled_from(RESAMPLINGS), st.sampled_from(METRIC_NAMES), st.floats(0, 1))
def test_heads_that_agree_on_few_rows_are_not_equivalent(n: int, resampling: str, metric: str, chance: float) -> None:
    splits, y = splits_of(n, resampling), np.arange(n) % 2
    predicted = np.where(np.random.default_rng(0).random(n) < chance, y, 1 - y)
    parts = answers(splits, y, predicted)
    values = values_of(parts, [metric])[metric]
    if not np.isfinite(values).all():
        return
    (result,) = differences(metric, METRICS["classification"][metric], 0.01, splits, [values] * 2, [parts] * 2)
    assert result.estimate.value == 0
    assert result.verdict == "undecided"
    assert result.p == 1
    assert result.equal < 0.95
    assert result.estimate.low < -0.01
    assert result.estimate.high > 0.01
    if metric in ("accuracy", "balanced_accuracy"):
        assert min(result.estimate.high, -result.estimate.low) >= exact_width(n) - 1e-9


@pytest.mark.parametrize("resampling", RESAMPLINGS)
def test_heads_that_agree_on_many_rows_are_equivalent(resampling: str) -> None:
    splits, y = splits_of(800, resampling), np.arange(800) % 2
    parts = answers(splits, y, y)
    values = values_of(parts, ["accuracy"])["accuracy"]
    (result,) = differences("accuracy", True, 0.01, splits, [values] * 2, [parts] * 2)
    assert result.verdict == "equivalent"
    assert -0.01 < result.estimate.low < result.estimate.high < 0.01


@pytest.mark.parametrize("resampling", RESAMPLINGS)
@pytest.mark.parametrize("copies", [2, 5])
def test_copies_of_rows_do_not_narrow_intervals(resampling: str, copies: int) -> None:
    groups = np.arange(50) // copies
    splits, y = splits_of(50, resampling, groups), (np.arange(50) // copies) % 2
    parts = answers(splits, y, y)
    result = estimates(values_of(parts, ["accuracy", "balanced_accuracy"]), splits, parts)
    for estimate in result.values():
        assert estimate.high - estimate.low >= exact_width(50 // copies) - 1e-9


@pytest.mark.parametrize("resampling", RESAMPLINGS)
def test_rare_class_leaves_balanced_accuracy_more_uncertain(resampling: str) -> None:
    y = np.r_[np.zeros(95, np.int64), np.ones(5, np.int64)]
    y = y[np.random.default_rng(1).permutation(100)]
    splits = splits_of(100, resampling)
    parts = answers(splits, y, y)
    values = {name: [1.0] * len(parts) for name in ("accuracy", "balanced_accuracy")}
    result = estimates(values, splits, parts)
    assert result["balanced_accuracy"].low <= 1 - exact_width(5) / 2 + 1e-9
    assert result["accuracy"].low > 0.9


@pytest.mark.parametrize("resampling", RESAMPLINGS)
def test_constant_difference_on_few_rows_is_not_significant_beyond_the_sign_test(resampling: str) -> None:
    splits, y = splits_of(10, resampling), np.arange(10) % 2
    best, other = answers(splits, y, y), answers(splits, y, 1 - y)
    for metric in ("accuracy", "brier"):
        values = [values_of(parts, [metric])[metric] for parts in (best, other)]
        (result,) = differences(metric, METRICS["classification"][metric], 0.01, splits, values, [best, other])
        assert 2.0**-9 <= result.p <= 0.01
        assert result.estimate.low < result.estimate.high


@pytest.mark.parametrize("resampling", RESAMPLINGS)
def test_exact_predictions_of_numbers_are_not_certain(resampling: str) -> None:
    splits, y = splits_of(30, resampling), np.random.default_rng(0).normal(5, 2, 30)
    parts = [PredictedRows(y[each.test], y[each.test]) for each in splits.resamples]
    result = estimates(values_of(parts, ["r2", "mae", "rmse"]), splits, parts)
    assert result["r2"].value == result["r2"].high == 1
    assert result["r2"].low < 0.95
    for name in ("mae", "rmse"):
        assert result[name].low == result[name].value == 0
        assert result[name].high > 0.1
    (difference,) = differences("mae", False, 0.01, splits, [[0.0] * len(parts)] * 2, [parts] * 2)
    assert difference.verdict == "undecided"


@pytest.mark.parametrize("resampling", RESAMPLINGS)
def test_constant_numbers_have_intervals_too(resampling: str) -> None:
    splits = splits_of(20, resampling)
    parts = [PredictedRows(np.full(len(each.test), 3.0), np.full(len(each.test), 3.0)) for each in splits.resamples]
    result = estimates({"mae": [0.0] * len(parts)}, splits, parts)["mae"]
    assert result.low < result.high


def test_folds_that_agree_by_chance_have_the_error_of_their_rows() -> None:
    """One of six answers is wrong in each of five folds: their values are equal, and say nothing of the spread."""
    splits, y = splits_of(30, "5 folds"), np.arange(30) % 2
    predicted = y.copy()
    predicted[::6] = 1 - predicted[::6]
    parts = answers(splits, y, predicted)
    values = values_of(parts, ["accuracy", "brier"])
    assert len(set(values["brier"])) == 1
    for estimate in estimates(values, splits, parts).values():
        assert estimate.high - estimate.low > 0.2
