"""Intervals of metrics, and paired differences between candidates on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from embedpipe.evaluation.metrics import PredictedRows
from embedpipe.evaluation.unseen import pooled, unseen_range
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
    share_interval,
    smallest_p,
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
#: Bootstrap draws of a single test set; for large test sets fewer. A quarter of the weights is in memory at a time.
MAX_DRAWS, MIN_DRAWS = 2000, 400
MAX_WEIGHTS = 1 << 24
#: Up to so many test rows, values of folds may be equal by chance; draws that measure the error of their mean.
FEW_ROWS, FEW_DRAWS = 2000, 200
#: Half the width of a 95 % interval, in standard errors.
Z95 = 1.959963984540054

Floats = npt.NDArray[np.float64]


class ComparisonWithBest(NamedTuple):
    """Paired comparison of one candidate with the best.

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


def tested_per_trained(splits: Splits) -> float:
    """Return the number of test rows divided by that of training rows, averaged over resamples."""
    return float(np.mean([len(resample.test) / len(resample.train) for resample in splits.resamples]))


def estimates(
    values: dict[str, list[float]], splits: Splits, predictions: Sequence[PredictedRows]
) -> dict[str, Estimate]:
    """Return the mean and the 95 % interval of each metric.

    For cross-validation this is the corrected resampled interval (`embedpipe.statistics.corrected_interval`). For a
    single test set it is `embedpipe.statistics.share_interval` of the accuracy, and the percentile bootstrap over rows
    of the other metrics. If the test set has groups, every metric is bootstrapped over groups. No interval is narrower
    than what the test rows may leave unseen (`embedpipe.evaluation.unseen`).
    """
    result: dict[str, Estimate] = {}
    tested, single = _tested(splits, predictions), len(predictions) == 1
    names = [name for name in values if single and (name != "accuracy" or _has_groups(splits))]
    of_draws: dict[str, Floats] = {}
    if names:
        drawn_metrics = _drawn(splits, lambda weights: np.stack([tested.metric(name, weights) for name in names]))
        of_draws = dict(zip(names, drawn_metrics, strict=True))
    for name, per_resample in values.items():
        value = float(np.mean(per_resample))
        within = _unseen(name, value, splits, tested)
        if not single:
            correct = [each.correct for each in predictions] if name == "accuracy" else None
            least = _least_error(name, splits, tested, within, correct)
            ratio, repeats = tested_per_trained(splits), count_repeats(splits)
            value, low, high = corrected_interval(per_resample, ratio, repeats=repeats, min_standard_error=least)
        elif name not in of_draws:
            value, low, high = share_interval(int(tested.correct.sum()), len(tested.y))
        else:
            drawn = from_draws(value, of_draws[name], units=_units(splits), within=within)
            low, high = drawn.low, drawn.high
        lowest, highest = BOUNDS[name]
        result[name] = Estimate(value, max(min(low, within[0]), lowest), min(max(high, within[1]), highest))
    return result


def _tested(splits: Splits, predictions: Sequence[PredictedRows]) -> PredictedRows:
    """Return the predictions of the first repeat, in which each row is tested once."""
    return pooled(predictions[: len(_first_repeat(splits))])


def _first_repeat(splits: Splits) -> list[npt.NDArray[np.int64]]:
    """Return the test rows of the resamples of the first repeat, which come first."""
    return [each.test for each in splits.resamples if each.seed == splits.resamples[0].seed]


def _groups(splits: Splits) -> npt.NDArray[np.int64]:
    """Return the group of each test row of the first repeat: rows of one group are not independent."""
    rows = np.concatenate(_first_repeat(splits))
    return rows if splits.groups is None else splits.groups[rows]


def _units(splits: Splits) -> int:
    """Return the number of independent test rows."""
    return len(np.unique(_groups(splits)))


def _unseen(
    metric: str, value: float, splits: Splits, tested: PredictedRows, reference: PredictedRows | None = None
) -> tuple[float, float]:
    """Return the ends that an interval has at least; ``value`` is the mean over resamples."""
    at = tested.metric(metric)[0] - (0.0 if reference is None else reference.metric(metric)[0])
    low, high = unseen_range(metric, tested, _groups(splits), reference)
    # the metric of all rows may differ from its mean over folds
    ends = value + low - at, value + high - at
    return (float(min(ends)), float(max(ends))) if np.isfinite(ends).all() else (value, value)


def _has_groups(splits: Splits) -> bool:
    """Return whether a single test set has groups of several rows: its rows are then not independent."""
    test = splits.resamples[0].test
    return splits.groups is not None and len(np.unique(splits.groups[test])) < len(test)


def _drawn(splits: Splits, values: Callable[[Floats], Floats]) -> Floats:
    """Return values of bootstrap draws of a single test set, (..., n_draws); groups are drawn whole.

    Parameters
    ----------
    values : callable
        Gets the weights of the rows, (n_some_draws, n_test), and returns an array (..., n_some_draws).
    """
    test, generator = splits.resamples[0].test, np.random.default_rng(0)
    draws = min(max(MAX_WEIGHTS // len(test), MIN_DRAWS), MAX_DRAWS)
    step = max(1, MAX_WEIGHTS // 4 // len(test))
    groups = None if splits.groups is None else splits.groups[test]
    parts = [
        values(draw_counts(len(test), min(step, draws - start), groups=groups, seed=generator))
        for start in range(0, draws, step)
    ]
    return np.concatenate(parts, axis=-1)


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
    return differences_of(tests, higher_is_better, margin)


def differences_of(tests: Sequence[ComparisonWithBest], higher_is_better: bool, margin: float) -> list[Difference]:
    """Correct the p-values of the tests, and add the verdicts."""
    # The best was chosen on the same rows, so the correction is for all pairs of candidates.
    adjusted = holm([test.p for test in tests], len(tests) * (len(tests) + 1) // 2)
    return [_difference(test, float(p), higher_is_better, margin) for test, p in zip(tests, adjusted, strict=True)]


def _resampled_test(
    metric: str,
    margin: float,
    splits: Splits,
    best_values: list[float],
    other_values: list[float],
    best: Sequence[PredictedRows],
    other: Sequence[PredictedRows],
) -> ComparisonWithBest:
    repeats, ratio = count_repeats(splits), tested_per_trained(splits)
    by_resample = np.subtract(other_values, best_values)
    rows = _tested(splits, best), _tested(splits, other)
    within = _unseen(metric, float(by_resample.mean()), splits, rows[1], rows[0])
    differ = None
    if metric == "accuracy":
        differ = [first.correct != second.correct for first, second in zip(best, other, strict=True)]
    least = _least_error(metric, splits, rows[1], within, differ, rows[0])
    test = corrected_t(by_resample, ratio, margin, repeats=repeats, min_standard_error=least)
    estimate = Estimate(test.mean, min(test.low, within[0]), max(test.high, within[1]))
    posterior = (test.worse, test.equal, test.better)
    if (estimate.low, estimate.high) != (test.low, test.high):
        posterior = normal_posterior(estimate, margin)
    return ComparisonWithBest(
        estimate, max(test.p, smallest_p(_units(splits))), posterior, "corrected resampled t-test"
    )


def _least_error(
    metric: str,
    splits: Splits,
    tested: PredictedRows,
    within: tuple[float, float],
    events: Sequence[npt.NDArray[np.bool_]] | None,
    reference: PredictedRows | None = None,
) -> float:
    """Return the standard error of a mean over folds due to the number of test rows alone.

    For a share of ``events`` it is that of Laplace's rule of succession; for every metric, and for rows in groups, that
    of a bootstrap of few rows. If these have no spread, it is that of an interval as wide as ``within``.
    """
    least = 0.0
    if events is not None:
        rows = sum(len(each) for each in events) / count_repeats(splits)
        share = (sum(int(each.sum()) for each in events) / count_repeats(splits) + 1) / (rows + 2)
        least = float(np.sqrt(share * (1 - share) / rows))
    if len(tested.y) <= FEW_ROWS and (events is None or splits.groups is not None):
        weights = draw_counts(len(tested.y), FEW_DRAWS, groups=_groups(splits))
        drawn = tested.metric(metric, weights) - (0.0 if reference is None else reference.metric(metric, weights))
        drawn = drawn[np.isfinite(drawn)]
        least = max(least, float(drawn.std()) if len(drawn) else 0.0)
    return least or (within[1] - within[0]) / (2 * Z95)


def _single_test_set(
    metric: str, margin: float, splits: Splits, best: PredictedRows, other: PredictedRows
) -> ComparisonWithBest:
    difference = float(other.metric(metric)[0] - best.metric(metric)[0])
    within = _unseen(metric, difference, splits, other, best)
    if metric == "accuracy" and not _has_groups(splits):
        first, second = best.correct, other.correct
        low, high = paired_interval(
            int((first & second).sum()),
            int((first & ~second).sum()),
            int((~first & second).sum()),
            int((~first & ~second).sum()),
        )
        p, name = mcnemar(first, second), "McNemar's exact test"
    else:
        drawn = _drawn(splits, lambda weights: other.metric(metric, weights) - best.metric(metric, weights))
        paired = from_draws(difference, drawn, units=_units(splits), within=within)
        low, high, p, name = paired.low, paired.high, paired.p, "paired bootstrap"
    estimate = Estimate(difference, min(low, within[0]), max(high, within[1]))
    return ComparisonWithBest(estimate, p, normal_posterior(estimate, margin), name)


def normal_posterior(estimate: Estimate, margin: float) -> tuple[float, float, float]:
    """Return the probabilities of a normal distribution with this interval: below -margin, within it, above it."""
    spread = (estimate.high - estimate.low) / (2 * Z95)
    middle = (estimate.high + estimate.low) / 2
    below, above = float(ndtr((-margin - middle) / spread)), float(ndtr((middle - margin) / spread))
    return below, max(1 - below - above, 0.0), above


def _difference(test: ComparisonWithBest, adjusted: float, higher_is_better: bool, margin: float) -> Difference:
    below, equal, above = test.posterior
    worse, better = (below, above) if higher_is_better else (above, below)
    if equal >= LEVEL and -margin <= test.estimate.low and test.estimate.high <= margin:
        verdict = "equivalent"
    elif adjusted < 1 - LEVEL:
        verdict = "worse" if (test.estimate.value < 0) == higher_is_better else "better"
    else:
        verdict = "undecided"
    return Difference(test.estimate, test.name, test.p, adjusted, worse, equal, better, verdict)
