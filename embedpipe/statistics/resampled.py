"""Tests and intervals of metrics on resamples that share rows: repeated cross-validation and random splits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from embedpipe.statistics.shares import LEVEL


@dataclass(frozen=True)
class ResampledTest:
    """The result of a test of paired differences over resamples.

    Attributes
    ----------
    mean, low, high : float
        Mean difference and the ends of its 95 % interval.
    p : float
        Two-sided p-value of no difference between the learning procedures.
    worse, equal, better : float
        Posterior probabilities that the difference is below -margin, within the margin, and above it. They sum to 1.
    """

    mean: float
    low: float
    high: float
    p: float
    worse: float
    equal: float
    better: float


def corrected_t(
    differences: npt.ArrayLike, ratio: float, margin: float = 0.0, *, repeats: int = 1, min_standard_error: float = 0.0
) -> ResampledTest:
    """Test paired differences over resamples with the corrected resampled t-test.

    Parameters
    ----------
    differences : float array (J,)
        A metric of the second model minus that of the first, for each of J >= 2 resamples. For a repeated
        cross-validation: the folds of the first repeat, then those of the second, and so on.
    ratio : float
        Number of test rows / number of training rows of a resample: 1 / (k - 1) for k folds.
    margin : float
        Half the width of the region of practical equivalence, in the unit of the differences.
    repeats : int
        How often all rows were divided into folds. With more than 1 the test is also valid for models that depend
        strongly on single rows; 1 is the published test.
    min_standard_error : float
        A lower bound of the standard error, such as the one due to few test rows: the values of a few folds may be
        equal by chance.

    Raises
    ------
    ValueError
        If there are fewer than 2 differences (for a single test set use `mcnemar` or `paired_bootstrap`), one is not
        finite, ``ratio`` is not positive, ``margin`` is negative, J is not a multiple of ``repeats``, or all
        differences are equal and ``min_standard_error`` is 0: then nothing says how uncertain they are.

    Notes
    -----
    Resamples share training rows, so their differences are correlated, and the plain t-test finds differences that do
    not exist. Nadeau and Bengio (Machine Learning 52, 2003, 239-281) replace 1/J by 1/J + ratio in the variance of the
    mean, with J - 1 degrees of freedom. Applied to J folds of a repeated cross-validation (Bouckaert and Frank, PAKDD
    2004, 3-12), this assumes that folds of different repeats are correlated no more than folds of one repeat. For
    unstable models such as 1-NN they are, because they hold the same rows. With ``repeats``, the published formula
    gives the variance of one cross-validation with k folds, s^2 (1/k + ratio). Averaging over repeats reduces it by
    (1 - 1/repeats) times the observed variance between repeats (law of total variance). The result is never below the
    published variance. `benchmarks/null_tests.py` measures both.

    Probabilities are those of the Bayesian correlated t-test (Benavoli, Corani, Demsar and Zaffalon, Journal of Machine
    Learning Research 18:77, 2017): the posterior is Student's t around the mean with that same variance.

    Examples
    --------
    >>> from embedpipe.statistics import corrected_t
    >>> test = corrected_t([0.02, 0.01, 0.03, 0.02, 0.04], ratio=1 / 4, margin=0.01)
    >>> round(test.mean, 3), round(test.p, 3), round(test.better, 2)
    (0.024, 0.035, 0.93)
    """
    if not margin >= 0:
        raise ValueError(f"margin must be >= 0, got {margin}")
    mean, scale, freedom = _spread(differences, ratio, repeats, min_standard_error)
    half = scale * float(stdtrit(freedom, (1 + LEVEL) / 2))
    p = min(2 * float(stdtr(freedom, -abs(mean) / scale)), 1.0)
    below = float(stdtr(freedom, (-margin - mean) / scale))
    above = float(stdtr(freedom, (mean - margin) / scale))
    return ResampledTest(mean, mean - half, mean + half, p, below, max(1 - below - above, 0.0), above)


def corrected_interval(
    values: npt.ArrayLike, ratio: float, *, repeats: int = 1, min_standard_error: float = 0.0
) -> tuple[float, float, float]:
    """Return the mean of a metric over resamples and the ends of its 95 % interval.

    Parameters
    ----------
    values : float array (J,)
        The metric on each of J >= 2 resamples.
    ratio : float
        See `corrected_t`.
    repeats : int
        See `corrected_t`.
    min_standard_error : float
        See `corrected_t`.

    Raises
    ------
    ValueError
        As `corrected_t`.

    Notes
    -----
    The variance is that of `corrected_t`. The interval is symmetric, so that an end may lie outside the range of the
    metric.

    Examples
    --------
    >>> from embedpipe.statistics import corrected_interval
    >>> [round(value, 3) for value in corrected_interval([0.91, 0.93, 0.9, 0.92, 0.94], ratio=1 / 4)]
    [0.92, 0.891, 0.949]
    """
    mean, scale, freedom = _spread(values, ratio, repeats, min_standard_error)
    half = scale * float(stdtrit(freedom, (1 + LEVEL) / 2))
    return mean, mean - half, mean + half


def _spread(values: npt.ArrayLike, ratio: float, repeats: int, min_standard_error: float) -> tuple[float, float, int]:
    """Return mean, its corrected standard error, and the degrees of freedom."""
    x = np.asarray(values, np.float64)
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(f"values must be a 1-D array of length >= 2, one per resample, got shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(
            f"values must be finite, got {x[~np.isfinite(x)][0]} for resample {int(np.flatnonzero(~np.isfinite(x))[0])}"
        )
    if not 0 < ratio < np.inf:
        raise ValueError(f"ratio (test rows / training rows) must be > 0 and finite, got {ratio}")
    if repeats < 1 or len(x) % repeats:
        raise ValueError(f"the number of resamples must be a multiple of repeats={repeats}, got {len(x)}")
    published = x.var(ddof=1) * (1 / len(x) + ratio)
    variance = published
    if repeats > 1:
        once = x.var(ddof=1) * (repeats / len(x) + ratio)
        between = x.reshape(repeats, -1).mean(axis=1).var(ddof=1)
        variance = max(once - (1 - 1 / repeats) * between, published)
    equal = (x == x[0]).all()
    scale = max(0.0 if equal else float(np.sqrt(variance)), min_standard_error)
    if not scale > 0:
        raise ValueError(
            f"values must differ or min_standard_error be > 0, got {x[0]} {len(x)} times: equal values do "
            "not show how much they vary"
        )
    return float(x[0] if equal else x.mean()), scale, len(x) - 1  # a mean of equal values would round
