"""Intervals of shares, and what so many rows can leave unseen."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaincinv, ndtri

#: Confidence level of intervals.
LEVEL = 0.95
#: Up to so many rows, fewer counts have a limit of Poisson's distribution (Brown, Cai and DasGupta, 2001).
FEW_ROWS = 50


def wilson(right: int, n: int, level: float = LEVEL) -> tuple[float, float, float]:
    """Return the share ``right / n`` and the ends of its score interval.

    Raises
    ------
    ValueError
        If n is 0, or ``right`` is not in [0, n].

    Notes
    -----
    Wilson, Journal of the American Statistical Association 22 (1927) 209-212. Near 0 and 1 its coverage falls to 83 %
    for few rows; `share_interval` repairs that.

    Examples
    --------
    >>> from embedpipe.statistics import wilson
    >>> [round(value, 3) for value in wilson(9, 10)]
    [0.9, 0.596, 0.982]
    """
    if not 0 <= right <= n or not n:
        raise ValueError(f"right must be in [0, n] and n >= 1, got right={right} and n={n}")
    z = float(ndtri((1 + level) / 2))
    p = right / n
    middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)
    return p, float(min(max(low, 0.0), p)), float(max(min(high, 1.0), p))


def share_interval(right: int, n: int, level: float = LEVEL) -> tuple[float, float, float]:
    """Return the share ``right / n`` and the ends of its interval, which has a width for 0 and for n as well.

    Raises
    ------
    ValueError
        As `wilson`.

    Notes
    -----
    The modified Wilson interval of Brown, Cai and DasGupta (Statistical Science 16, 2001, 101-133, section 4.1.1): with
    1 to 3 right or wrong, the limit on that side is that of Poisson's distribution. With none, it is the exact one of
    Clopper and Pearson (Biometrika 26, 1934, 404-413) where that is wider, which Brown, Cai and DasGupta use in their
    modified Jeffreys interval. `benchmarks/interval_coverage.py` measures the coverage.

    Examples
    --------
    >>> from embedpipe.statistics import share_interval
    >>> [round(value, 3) for value in share_interval(30, 30)]
    [1.0, 0.884, 1.0]
    """
    share, low, high = wilson(right, n, level)
    return share, min(low, _lower_limit(right, n, level)), max(high, 1 - _lower_limit(n - right, n, level))


def _lower_limit(count: int, n: int, level: float) -> float:
    """Return the lower limit of a share that all, or only a few, of n rows have; 1 for other counts."""
    if count == n:
        return 1 - unseen_share(n, level)
    few = 2 if n <= FEW_ROWS else 3
    return float(gammaincinv(count, 1 - level)) / n if 1 <= count <= few else 1.0


def unseen_share(n: int, level: float = LEVEL) -> float:
    """Return the largest share that an event can have if none of n independent rows shows it.

    Parameters
    ----------
    n : int
        Number of rows, or of groups of rows that are not independent.
    level : float
        Confidence level of the two-sided interval of which this is an end.

    Raises
    ------
    ValueError
        If n is not positive.

    Notes
    -----
    The exact limit of Clopper and Pearson (Biometrika 26, 1934, 404-413), about 3.7 / n: the two-sided form of the
    "rule of three" (Hanley and Lippman-Hand, JAMA 249, 1983, 1743-1745). Rows that are all alike, such as 30 right
    answers, have no spread to make an interval of; this is what they leave open.

    Examples
    --------
    >>> from embedpipe.statistics import unseen_share
    >>> round(unseen_share(30), 3)
    0.116
    """
    if n < 1:
        raise ValueError(f"n must be >= 1, got {n}")
    return float(1 - ((1 - level) / 2) ** (1 / n))
