"""Correction of p-values for several tests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def holm(p: npt.ArrayLike, tests: int | None = None) -> npt.NDArray[np.float64]:
    """Return p-values with Holm's correction for multiple tests, in the given order.

    Parameters
    ----------
    p : float array (m,)
        In [0, 1].
    tests : int, optional
        Number of tests of which these are the smallest p-values; None: m. If the best of several candidates was found
        on the same data, all pairs could have been tested, and those with the best one have the smallest p-values.

    Returns
    -------
    float64 array (m,)
        The probability of any false rejection at a level is at most that level, whatever the dependence of the tests.

    Raises
    ------
    ValueError
        If a p-value is not in [0, 1], or there are fewer tests than p-values.

    Notes
    -----
    Holm, Scandinavian Journal of Statistics 6 (1979) 65-70: the smallest p-value is multiplied by the number of tests,
    the next one by that number minus 1, and so on; the order of the p-values is kept.

    Examples
    --------
    >>> from embedpipe.statistics import holm
    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    values = np.asarray(p, np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"p must be a 1-D array of values in [0, 1], got {values}")
    order = np.argsort(values, kind="stable")
    count = len(values) if tests is None else tests
    if count < len(values):
        raise ValueError(f"tests must be >= the number of p-values, got {count} tests for {len(values)} p-values")
    stepped = np.maximum.accumulate(values[order] * (count - np.arange(len(values))))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted
