"""Do two samples of vectors come from the same distribution? A permutation test of the maximum mean discrepancy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
#: Rows from which the width of the kernel is taken.
WIDTH_ROWS = 500
#: Permutations that are multiplied at once.
BATCH = 64


def mmd_test(X: npt.NDArray[Any], Y: npt.NDArray[Any], permutations: int = 500, seed: int = 0) -> tuple[float, float]:
    """Return the squared maximum mean discrepancy of two samples, and the p-value of no difference.

    The kernel is a Gaussian whose width is the median distance (Gretton et al., JMLR 2012). The p-value is exact for
    exchangeable rows: the rank of the statistic among those of random relabellings (Phipson and Smyth, 2010), at least
    ``1 / (permutations + 1)``.

    Parameters
    ----------
    X : array (n, dim)
    Y : array (m, dim)
        Both with at least 2 rows. The kernel takes ``4 * (n + m)^2`` bytes.
    permutations : int
    seed : int

    Examples
    --------
    >>> import numpy as np
    >>> from embedpipe.statistics import mmd_test
    >>> X, Y = np.random.default_rng(1).standard_normal((2, 50, 3))
    >>> mmd_test(X, Y)[1] > 0.05, mmd_test(X, Y + 2)[1] < 0.01
    (True, True)
    """
    if min(len(X), len(Y)) < 2:
        raise ValueError(f"both samples must have at least 2 rows, got {len(X)} and {len(Y)}")
    rng = np.random.default_rng(seed)
    Z = np.concatenate([X, Y]).astype(np.float64)
    Z = (Z - Z.mean(axis=0)).astype(np.float32)  # squares of a mean far from 0 would lose the distances to rounding
    squares = (Z * Z).sum(axis=1)
    kernel = np.maximum(squares[:, None] + squares[None, :] - 2 * Z @ Z.T, 0)
    some = rng.permutation(len(Z))[:WIDTH_ROWS]
    width = float(np.median(kernel[np.ix_(some, some)][np.triu_indices(len(some), 1)])) or 1.0
    np.exp(kernel / -width, out=kernel)
    np.fill_diagonal(kernel, 0)  # the estimate is unbiased without the diagonal
    labels = np.arange(len(Z)) < len(X)
    observed = float(_statistics(kernel, labels[None, :])[0])
    as_large = 0
    for start in range(0, permutations, BATCH):
        drawn = np.array([rng.permutation(labels) for _ in range(min(BATCH, permutations - start))])
        as_large += int((_statistics(kernel, drawn) >= observed - 1e-12).sum())
    return observed, (as_large + 1) / (permutations + 1)


def _statistics(kernel: npt.NDArray[np.float32], first: npt.NDArray[np.bool_]) -> Floats:
    """Return the statistic of each relabelling; ``first`` (n_labellings, n_rows) has the rows of the first sample."""
    n = int(first[0].sum())
    m = first.shape[1] - n
    one = first.astype(np.float32)
    to_first = (one @ kernel).astype(np.float64)
    total = kernel.sum(axis=0, dtype=np.float64)
    within_first = (to_first * one).sum(axis=1)
    across = (to_first * (1 - one)).sum(axis=1)
    within_second = total.sum() - within_first - 2 * across
    result: Floats = within_first / (n * (n - 1)) + within_second / (m * (m - 1)) - 2 * across / (n * m)
    return result
