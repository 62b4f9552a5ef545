"""Intervals of metrics, and paired differences between candidates on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from embedpipe.evaluation.metrics import PredictedRows
from embedpipe.splits.make import Splits
from embedpipe.statistics import (
    Difference,
    Estimate,
    corrected_interval,
    corrected_t,
    draw_counts,
    from_draws,
    holm,
    mcnemar,
    paired_interval,
    wilson,
)

#: Posterior probability from which candidates are equivalent; p-values below ``1 - LEVEL`` are significant.
LEVEL = 0.95
#: Smallest and largest possible value of each metric.
BOUNDS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "roc_auc"), (0.0, 1.0)),
    **dict.fromkeys(("log_loss", "mae", "rmse"), (0.0, np.inf)),
    "brier": (0.0, 2.0),
    "r2": (-np.inf, 1.0),
}
#: Bootstrap draws of a single test set; for large test sets fewer, to bound the number of weights in memory.
MAX_DRAWS, MIN_DRAWS = 2000, 400
MAX_WEIGHTS = 1 << 24

Floats = npt.NDArray[np.float64]


class TestAgainstBest(NamedTuple):
    """Paired test of one candidate against the best.

    Attributes
    ----------
    estimate : Estimate
        The candidate's metric minus the best's.
    p : float
        Not corrected.
    posterior : tuple of 3 floats
        Probability that the difference is below ``-margin``, within the margin, and above it.
    name : str
        Name of the test.
    """

    estimate: Estimate
    p: float
    posterior: tuple[float, float, float]
    name: str


def count_repeats(splits: Splits) -> int:
    """Return the number of repeats of a cross-validation."""
    return len({resample.seed for resample in splits.resamples})


def test_train_ratio(splits: Splits) -> float:
    """Return the number of test rows divided by that of training rows, averaged over resamples."""
    return float(np.mean([len(resample.test) / len(resample.train) for resample in splits.resamples]))


def estimates(
    values: dict[str, list[float]], splits: Splits, predictions: Sequence[PredictedRows]
) -> dict[str, Estimate]:
    """Return the mean and the 95 % interval of each metric.

    For cross-validation this is the corrected resampled interval (`embedpipe.statistics.corrected_interval`). For a
    single test set it is the score interval (Wilson, 1927) of the accuracy, and the percentile bootstrap over rows of
    the other metrics. If the test set has groups, every metric is bootstrapped over groups.
    """
    result: dict[str, Estimate] = {}
    if len(predictions) > 1:
        ratio, repeats = test_train_ratio(splits), count_repeats(splits)
        for name, per_resample in values.items():
            least = _least_error([each.correct for each in predictions], repeats) if name == "accuracy" else 0.0
            mean, low, high = corrected_interval(per_resample, ratio, repeats=repeats, min_standard_error=least)
            lowest, highest = BOUNDS[name]
            result[name] = Estimate(mean, max(low, lowest), min(high, highest))
        return result
    (test_set,), weights = predictions, _bootstrap_weights(splits)
    for name, (value,) in values.items():
        if name == "accuracy" and not _has_groups(splits):
            result[name] = Estimate(*wilson(int(test_set.correct.sum()), len(test_set.y)))
        else:
            interval = from_draws(value, test_set.metric(name, weights))
            result[name] = Estimate(value, interval.low, interval.high)
    return result


def _has_groups(splits: Splits) -> bool:
    """Return whether a single test set has groups of several rows: its rows are then not independent."""
    test = splits.resamples[0].test
    return splits.groups is not None and len(np.unique(splits.groups[test])) < len(test)


def _bootstrap_weights(splits: Splits) -> Floats:
    """Return bootstrap weights of the rows of a single test set, (n_draws, n_test); groups are drawn whole."""
    test = splits.resamples[0].test
    draws = max(MAX_WEIGHTS // len(test), MIN_DRAWS)
    return draw_counts(len(test), min(draws, MAX_DRAWS), groups=None if splits.groups is None else splits.groups[test])


def differences(
    metric: str,
    higher_is_better: bool,
    margin: float,
    splits: Splits,
    values: Sequence[list[float]],
    predictions: Sequence[Sequence[PredictedRows]],
) -> list[Difference]:
    """Compare all candidates with the best, which is the first; return one difference for each of the others.

    The p-values are corrected for all pairs (`embedpipe.statistics.holm`), because the best is chosen on the same rows.
    For cross-validation the tests are the corrected resampled t-test and the Bayesian correlated t-test
    (`embedpipe.statistics.corrected_t`). On a single test set, accuracy is compared by McNemar's exact test with
    Newcombe's interval. Other metrics, and test sets with groups, are compared by the paired bootstrap; the
    probabilities are then those of a normal distribution with the same interval.
    """
    tests = [
        _resampled_test(metric, margin, splits, values[0], other_values, predictions[0], other)
        if len(splits.resamples) > 1
        else _single_test_set(metric, margin, splits, predictions[0][0], other[0])
        for other_values, other in zip(values[1:], predictions[1:], strict=True)
    ]
    return differences_of(tests, higher_is_better)


def differences_of(tests: Sequence[TestAgainstBest], higher_is_better: bool) -> list[Difference]:
    """Correct the p-values of the tests, and add the verdicts."""
    # The best was chosen on the same rows, so the correction is for all pairs of candidates.
    adjusted = holm([test.p for test in tests], len(tests) * (len(tests) + 1) // 2)
    return [_difference(test, float(p), higher_is_better) for test, p in zip(tests, adjusted, strict=True)]


def _resampled_test(
    metric: str,
    margin: float,
    splits: Splits,
    best_values: list[float],
    other_values: list[float],
    best: Sequence[PredictedRows],
    other: Sequence[PredictedRows],
) -> TestAgainstBest:
    repeats = count_repeats(splits)
    disagreements = [first.correct != second.correct for first, second in zip(best, other, strict=True)]
    least = _least_error(disagreements, repeats) if metric == "accuracy" else 0.0
    ratio = test_train_ratio(splits)
    test = corrected_t(np.subtract(other_values, best_values), ratio, margin, repeats=repeats, min_standard_error=least)
    estimate = Estimate(test.mean, test.low, test.high)
    return TestAgainstBest(estimate, test.p, (test.worse, test.equal, test.better), "corrected resampled t-test")


def _least_error(events: Sequence[npt.NDArray[np.bool_]], repeats: int) -> float:
    """Return the standard error of an event's share due to the number of rows alone (Laplace's rule of succession)."""
    rows = sum(len(each) for each in events) / repeats
    share = (sum(int(each.sum()) for each in events) / repeats + 1) / (rows + 2)
    return float(np.sqrt(share * (1 - share) / rows))


def _single_test_set(
    metric: str, margin: float, splits: Splits, best: PredictedRows, other: PredictedRows
) -> TestAgainstBest:
    if metric == "accuracy" and not _has_groups(splits):
        first, second = best.correct, other.correct
        low, high = paired_interval(
            int((first & second).sum()),
            int((first & ~second).sum()),
            int((~first & second).sum()),
            int((~first & ~second).sum()),
        )
        estimate = Estimate(float(second.mean() - first.mean()), low, high)
        p, name = mcnemar(first, second), "McNemar's exact test"
    else:
        weights = _bootstrap_weights(splits)
        difference = float(other.metric(metric)[0] - best.metric(metric)[0])
        paired = from_draws(difference, other.metric(metric, weights) - best.metric(metric, weights))
        estimate = Estimate(paired.difference, paired.low, paired.high)
        p, name = paired.p, "paired bootstrap"
    spread = (estimate.high - estimate.low) / (2 * 1.96)
    if spread:
        middle = (estimate.high + estimate.low) / 2
        below, above = float(ndtr((-margin - middle) / spread)), float(ndtr((middle - margin) / spread))
    else:
        below, above = float(estimate.value < -margin), float(estimate.value > margin)
    return TestAgainstBest(estimate, p, (below, max(1 - below - above, 0.0), above), name)


def _difference(test: TestAgainstBest, adjusted: float, higher_is_better: bool) -> Difference:
    below, equal, above = test.posterior
    worse, better = (below, above) if higher_is_better else (above, below)
    if equal >= LEVEL:
        verdict = "equivalent"
    elif adjusted < 1 - LEVEL:
        verdict = "worse" if (test.estimate.value < 0) == higher_is_better else "better"
    else:
        verdict = "undecided"
    return Difference(test.estimate, test.name, test.p, adjusted, worse, equal, better, verdict)
