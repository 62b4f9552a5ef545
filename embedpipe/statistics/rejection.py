"""The risk-coverage curve: the error rate if only the most confident rows are answered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RejectionCurve:
    """Risk as a function of coverage.

    Attributes
    ----------
    coverage : float64 array (m,)
        Share of rows answered at each distinct confidence, ascending to 1.
    risk : float64 array (m,)
        Error rate of the answered rows; the last one is that of all rows.
    area : float
        Area under the curve (AURC): the mean risk of answering 1, 2, ..., n rows. Lower is better; for an uninformative
        confidence it is the error rate.
    """

    coverage: Floats
    risk: Floats
    area: float


def risk_coverage(confidence: npt.ArrayLike, right: npt.ArrayLike) -> RejectionCurve:
    """Return the error rate of the most confident rows, for every share of them.

    Parameters
    ----------
    confidence : float array (n,)
        Rows with a higher confidence are answered first; infinite values are allowed. Negate distances.
    right : bool array (n,)
        Whether the answer is right.

    Raises
    ------
    ValueError
        If there are no rows, the lengths differ, or a confidence is NaN.

    Notes
    -----
    Geifman and El-Yaniv, Selective classification for deep neural networks, NeurIPS 2017; the area as in Geifman,
    Uziel and El-Yaniv, Bias-reduced uncertainty estimation for deep neural classifiers, ICLR 2019. Rows with
    the same confidence count as answered in random order: the area is its expectation and does not depend on the order
    of rows.

    Examples
    --------
    >>> from embedpipe.statistics import risk_coverage
    >>> curve = risk_coverage([0.9, 0.8, 0.6, 0.5], [True, True, True, False])
    >>> curve.coverage, curve.risk, curve.area
    (array([0.25, 0.5 , 0.75, 1.  ]), array([0.  , 0.  , 0.  , 0.25]), 0.0625)
    """
    scores, correct = np.asarray(confidence, np.float64), np.asarray(right, bool)
    if scores.shape != correct.shape or scores.ndim != 1 or not len(scores):
        raise ValueError(
            f"confidence and right must be 1-D, of the same length >= 1, got shapes {scores.shape} and {correct.shape}"
        )
    if np.isnan(scores).any():
        raise ValueError(f"confidence must not be NaN, got NaN in row {int(np.flatnonzero(np.isnan(scores))[0])}")
    _, level, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    wrong = np.bincount(level, ~correct)
    answered, missed = np.cumsum(sizes), np.cumsum(wrong)
    rows = np.arange(1, len(scores) + 1)
    # Within a tie, errors accumulate at the error rate of the tie.
    expected = np.interp(rows, np.r_[0, answered], np.r_[0, missed])
    return RejectionCurve(answered / len(scores), missed / answered, float(np.mean(expected / rows)))
