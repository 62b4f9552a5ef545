"""Paired tests and intervals: two classifiers or regressors compared on the same rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

from embedpipe.statistics.shares import LEVEL, unseen_share, wilson

Floats = npt.NDArray[np.float64]
Metric = Callable[[npt.NDArray[Any], npt.NDArray[Any]], float]

#: Default number of draws of the bootstrap.
DRAWS = 2000


@dataclass(frozen=True)
class PairedTest:
    """The difference of a metric between two models on the same rows.

    Attributes
    ----------
    difference, low, high : float
        Second minus first, and the ends of the 95 % interval.
    p : float
        Two-sided p-value of no difference.
    """

    difference: float
    low: float
    high: float
    p: float


def mcnemar(first_right: npt.ArrayLike, second_right: npt.ArrayLike) -> float:
    """Return the two-sided p-value of equal accuracies, by the exact McNemar test.

    Parameters
    ----------
    first_right, second_right : bool array (n,)
        Whether each model is right. Each row occurs once: repeats of a row are no further evidence.

    Raises
    ------
    ValueError
        If there are no rows, or the lengths differ.

    Notes
    -----
    McNemar, Psychometrika 12 (1947) 153-157, with the binomial distribution of the rows on which one model is right; 1
    if there are none. It compares these two fitted models, and does not include the variance due to the training rows.
    The test is conservative: its false positives never exceed its level. The mid-p variant (Fagerland, Lydersen and
    Laake, BMC Medical Research Methodology 13:91, 2013) is closer to the level, without that guarantee.

    Examples
    --------
    >>> from embedpipe.statistics import mcnemar
    >>> mcnemar([True] * 10 + [False] * 8, [True] * 10 + [True] * 8)
    0.0078125
    """
    first, second = np.asarray(first_right, bool), np.asarray(second_right, bool)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(
            "first_right and second_right must be 1-D, of the same length >= 1, got shapes "
            f"{first.shape} and {second.shape}"
        )
    fewer, more = sorted((int((first & ~second).sum()), int((second & ~first).sum())))
    return min(2 * float(bdtr(fewer, fewer + more, 0.5)), 1.0)


def paired_interval(both: int, first: int, second: int, neither: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the confidence interval of the difference of two accuracies (second minus first) on the same rows.

    Parameters
    ----------
    both, first, second, neither : int
        Number of rows on which both, only the first, only the second, or neither are right.
    level : float
        Confidence level.

    Raises
    ------
    ValueError
        If there are no rows.

    Notes
    -----
    Newcombe, Statistics in Medicine 17 (1998) 2635-2650, method 10. It is nearly 0 wide if both models are right on the
    same rows, so it is widened to what n rows may leave unseen (`unseen_share`): that one model only is right.

    Examples
    --------
    >>> from embedpipe.statistics import paired_interval
    >>> low, high = paired_interval(both=80, first=2, second=12, neither=6)
    >>> round(low, 3), round(high, 3)
    (0.026, 0.18)
    """
    a, b, c, d = both, second, first, neither
    n = a + b + c + d
    (p1, l1, u1), (p2, l2, u2) = wilson(a + b, n, level), wilson(a + c, n, level)
    marginals = float((a + b) * (c + d)) * float((a + c) * (b + d))
    product = float(a * d - b * c)
    if product > 0:
        product = max(product - n / 2, 0.0)
    phi = product / np.sqrt(marginals) if marginals else 0.0
    below = (p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2
    above = (u1 - p1) ** 2 - 2 * phi * (u1 - p1) * (p2 - l2) + (p2 - l2) ** 2
    low, high = _unseen_difference(p1 - p2, n, level=level)
    return min(low, float(p1 - p2 - np.sqrt(max(below, 0)))), max(high, float(p1 - p2 + np.sqrt(max(above, 0))))


def _unseen_difference(difference: float, n: int, largest: float = 1.0, level: float = LEVEL) -> tuple[float, float]:
    """Return a difference as it is if the share of rows that n may leave unseen have the largest possible one."""
    unseen = unseen_share(n, level)
    return difference * (1 - unseen) - unseen * largest, difference * (1 - unseen) + unseen * largest


def paired_bootstrap(
    metric: Metric,
    y: npt.ArrayLike,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    largest: float = 1.0,
    draws: int = DRAWS,
    seed: int = 0,
) -> PairedTest:
    """Compare any metric of two models on the same rows by a bootstrap.

    Parameters
    ----------
    metric : callable
        ``metric(y, predicted)`` -> float, or NaN if a draw leaves it undefined; such draws are left out.
    y : array (n, ...)
        True values.
    first, second : array (n, ...)
        Predictions or probabilities of the two models.
    groups : array (n,), optional
        Groups of rows that are drawn together, such as near-duplicates, or the predictions of a row in several repeats
        of a cross-validation. With fewer than about 20 groups, intervals are too narrow.
    largest : float
        The largest difference that rows can have: 1 for a share. It matters if rows are too few or too alike.
    draws, seed : int
        Number of draws, and the seed of the random numbers.

    Raises
    ------
    ValueError
        If there are no rows, the lengths differ, there is one group, or the metric is undefined in all draws.

    Notes
    -----
    Percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13); p is the smallest
    level whose interval excludes 0, with one added to each count (Davison and Hinkley, Bootstrap Methods and their
    Application, 1997, section 4.2), so that it is never 0. It is at least that of n equal signs, 2^(1 - n), for n
    groups (the sign test). Rows that are all alike have draws without a spread, so the interval is widened to what n
    groups may leave unseen (`unseen_share`), with ``largest`` as their difference. The predictions are taken as given:
    the variance due to training rows and folds is not included.

    Examples
    --------
    >>> from embedpipe.statistics import paired_bootstrap
    >>> def accuracy(y, predicted):
    ...     return float((y == predicted).mean())
    >>> y, first, second = [0, 1] * 20, [0, 0] * 20, [0, 1] * 18 + [0, 0] * 2
    >>> round(paired_bootstrap(accuracy, y, first, second).difference, 2)
    0.45
    """
    truth, predicted_1, predicted_2 = np.asarray(y), np.asarray(first), np.asarray(second)
    labels = np.arange(len(truth)) if groups is None else np.asarray(groups)
    if not len(truth) or len({len(each) for each in (truth, predicted_1, predicted_2, labels)}) > 1:
        lengths = [len(each) for each in (truth, predicted_1, predicted_2, labels)]
        raise ValueError(f"y, first, second and groups must have the same length >= 1, got {lengths}")
    _, number, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if groups is not None and len(sizes) < 2:
        raise ValueError("groups must have two distinct values or more, got one")
    order = np.argsort(number, kind="stable")
    starts = np.cumsum(sizes) - sizes
    rng = np.random.default_rng(seed)
    differences = np.empty(draws)
    for draw in range(draws):
        drawn = rng.integers(len(sizes), size=len(sizes))
        counts = sizes[drawn]
        rows = order[np.arange(counts.sum()) + np.repeat(starts[drawn] - (np.cumsum(counts) - counts), counts)]
        differences[draw] = metric(truth[rows], predicted_2[rows]) - metric(truth[rows], predicted_1[rows])
    difference = float(metric(truth, predicted_2) - metric(truth, predicted_1))
    return from_draws(
        difference, differences, units=len(sizes), within=_unseen_difference(difference, len(sizes), largest)
    )


def from_draws(difference: float, drawn: npt.ArrayLike, *, units: int, within: tuple[float, float]) -> PairedTest:
    """Return interval and p-value of a difference from its bootstrap draws.

    Parameters
    ----------
    difference : float
        The difference on the rows themselves.
    drawn : float array (draws,)
        The difference on each draw; NaN if undefined.
    units : int
        Number of rows, or of groups of rows, that were drawn from.
    within : tuple of 2 floats
        What the interval contains at least: draws from rows that are all alike have no spread.

    Raises
    ------
    ValueError
        If the difference is undefined in all draws.
    """
    differences = np.asarray(drawn, np.float64)
    differences = differences[np.isfinite(differences)]
    if not len(differences):
        raise ValueError("the metric is undefined in all draws")
    low, high = np.quantile(differences, ((1 - LEVEL) / 2, (1 + LEVEL) / 2)).tolist()
    beyond = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    p = max(min(2 * (beyond + 1) / (len(differences) + 1), 1.0), smallest_p(units))
    return PairedTest(difference, min(low, within[0]), max(high, within[1]), p)


def smallest_p(units: int) -> float:
    """Return the p-value of the sign test if all of so many independent rows have the same sign."""
    return float(2.0 ** (1 - units))


def draw_counts(
    rows: int, draws: int, *, groups: npt.ArrayLike | None = None, seed: int | np.random.Generator = 0
) -> Floats:
    """Return how often each row occurs in each draw of a bootstrap, float64 (draws, rows).

    Parameters
    ----------
    groups : array (rows,), optional
        Groups of rows that are drawn together.
    seed : int or Generator
        A generator goes on where its last call ended.

    Examples
    --------
    >>> from embedpipe.statistics import draw_counts
    >>> draw_counts(4, 2).sum(axis=1)
    array([4., 4.])
    """
    numbers = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    units = rows if numbers is None else int(numbers.max()) + 1
    counts = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), draws)
    return np.asarray(counts if numbers is None else counts[:, numbers], np.float64)
