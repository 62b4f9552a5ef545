"""Intervals of figures, and differences between candidates that saw the same rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from embedpipe.evaluation.metrics import Answers
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

#: Of a posterior, from which candidates are called equivalent; p-values below 1 less this are significant.
LEVEL = 0.95
#: What a figure can be.
BOUNDS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "roc_auc"), (0.0, 1.0)),
    **dict.fromkeys(("log_loss", "mae", "rmse"), (0.0, np.inf)),
    "brier": (0.0, 2.0),
    "r2": (-np.inf, 1.0),
}
#: Draws of the bootstrap of a single test set; of a large one so many that this many counts are kept, but not fewer.
DRAWS, FEWEST_DRAWS = 2000, 400
MOST_COUNTS = 1 << 24

Floats = npt.NDArray[np.float64]


def repeats_of(splits: Splits) -> int:
    """Return how often all rows were cut into folds."""
    return len({resample.seed for resample in splits.resamples})


def ratio_of(splits: Splits) -> float:
    """Return test rows over training rows, the mean over resamples."""
    return float(np.mean([len(one.test) / len(one.train) for one in splits.resamples]))


def estimates(values: dict[str, list[float]], splits: Splits, answers: Sequence[Answers]) -> dict[str, Estimate]:
    """Return each figure's mean and interval.

    Over folds, the corrected resampled interval (`embedpipe.statistics.corrected_interval`). On one test set, the
    score interval (Wilson, 1927) of the accuracy, and the percentile bootstrap of the others over its rows; where rows
    belong together, of all over their groups.
    """
    if len(answers) > 1:
        ratio, repeats = ratio_of(splits), repeats_of(splits)
        found = {}
        for name, each in values.items():
            least = _least([one.right for one in answers], repeats) if name == "accuracy" else 0.0
            mean, low, high = corrected_interval(each, ratio, repeats=repeats, least=least)
            lowest, highest = BOUNDS[name]
            found[name] = Estimate(mean, max(low, lowest), min(high, highest))
        return found
    (one,), drawn = answers, _drawn(splits)
    found = {}
    for name, (value,) in values.items():
        if name == "accuracy" and not _grouped(splits):
            found[name] = Estimate(*wilson(int(one.right.sum()), len(one.y)))
        else:
            test = from_draws(value, one.figure(name, drawn))
            found[name] = Estimate(value, test.low, test.high)
    return found


def _grouped(splits: Splits) -> bool:
    """Say whether rows of a single test set belong together, and so are not as many as they seem."""
    test = splits.resamples[0].test
    return splits.groups is not None and len(np.unique(splits.groups[test])) < len(test)


def _drawn(splits: Splits) -> Floats:
    """Return how often a bootstrap counts each row of a single test set, near-duplicates together."""
    test = splits.resamples[0].test
    draws = max(MOST_COUNTS // len(test), FEWEST_DRAWS)
    return draw_counts(len(test), min(draws, DRAWS), groups=None if splits.groups is None else splits.groups[test])


def differences(
    metric: str,
    higher_is_better: bool,
    margin: float,
    splits: Splits,
    values: Sequence[list[float]],
    answers: Sequence[Sequence[Answers]],
) -> list[Difference]:
    """Compare candidates with the best, which is the first; return one difference for each of the others.

    The p-values are corrected for all pairs (`embedpipe.statistics.holm`), as the best was not known before.
    Over folds, the corrected resampled t-test and the Bayesian correlated t-test (`embedpipe.statistics.corrected_t`).
    On one test set, for accuracy McNemar's exact test with Newcombe's interval, for other figures, and where rows
    belong together, the paired bootstrap; probabilities are then those of a normal distribution with that interval.
    """
    found = [
        _resampled(metric, margin, splits, values[0], each, answers[0], other)
        if len(splits.resamples) > 1
        else _on_one_test_set(metric, margin, splits, answers[0][0], other[0])
        for each, other in zip(values[1:], answers[1:], strict=True)
    ]
    return judged(found, higher_is_better)


#: What a test found: the difference, p, posterior probabilities (below, within, above the margin), and its name.
Found = tuple[Estimate, float, tuple[float, float, float], str]


def judged(found: Sequence[Found], higher_is_better: bool) -> list[Difference]:
    """Return the verdicts on all candidates but the best, from their tests against it."""
    # The best was found on the same rows, so any pair could have been the one that is compared.
    adjusted = holm([p for _, p, _, _ in found], len(found) * (len(found) + 1) // 2)
    return [
        _difference(estimate, test, p, float(corrected), posterior, higher_is_better)
        for (estimate, p, posterior, test), corrected in zip(found, adjusted, strict=True)
    ]


def _resampled(
    metric: str,
    margin: float,
    splits: Splits,
    best: list[float],
    other: list[float],
    first: Sequence[Answers],
    second: Sequence[Answers],
) -> Found:
    repeats = repeats_of(splits)
    apart = [one.right != two.right for one, two in zip(first, second, strict=True)]
    least = _least(apart, repeats) if metric == "accuracy" else 0.0
    test = corrected_t(np.subtract(other, best), ratio_of(splits), margin, repeats=repeats, least=least)
    estimate = Estimate(test.mean, test.low, test.high)
    return estimate, test.p, (test.worse, test.equal, test.better), "corrected resampled t-test"


def _least(events: Sequence[npt.NDArray[np.bool_]], repeats: int) -> float:
    """Return the standard error that the rows alone leave to the share of an event, by Laplace's rule of succession."""
    rows = sum(len(each) for each in events) / repeats
    share = (sum(int(each.sum()) for each in events) / repeats + 1) / (rows + 2)
    return float(np.sqrt(share * (1 - share) / rows))


def _on_one_test_set(metric: str, margin: float, splits: Splits, best: Answers, other: Answers) -> Found:
    if metric == "accuracy" and not _grouped(splits):
        first, second = best.right, other.right
        low, high = paired_interval(
            int((first & second).sum()),
            int((first & ~second).sum()),
            int((~first & second).sum()),
            int((~first & ~second).sum()),
        )
        estimate = Estimate(float(second.mean() - first.mean()), low, high)
        p, test = mcnemar(first, second), "McNemar's exact test"
    else:
        drawn = _drawn(splits)
        difference = float(other.figure(metric)[0] - best.figure(metric)[0])
        paired = from_draws(difference, other.figure(metric, drawn) - best.figure(metric, drawn))
        estimate = Estimate(paired.difference, paired.low, paired.high)
        p, test = paired.p, "paired bootstrap"
    spread = (estimate.high - estimate.low) / (2 * 1.96)
    if spread:
        middle = (estimate.high + estimate.low) / 2
        below, above = float(ndtr((-margin - middle) / spread)), float(ndtr((middle - margin) / spread))
    else:
        below, above = float(estimate.value < -margin), float(estimate.value > margin)
    return estimate, p, (below, max(1 - below - above, 0.0), above), test


def _difference(
    estimate: Estimate, test: str, p: float, adjusted: float, posterior: tuple[float, float, float], higher: bool
) -> Difference:
    below, equal, above = posterior
    worse, better = (below, above) if higher else (above, below)
    if equal >= LEVEL:
        verdict = "equivalent"
    elif adjusted < 1 - LEVEL:
        verdict = "worse" if (estimate.value < 0) == higher else "better"
    else:
        verdict = "undecided"
    return Difference(estimate, test, p, adjusted, worse, equal, better, verdict)
