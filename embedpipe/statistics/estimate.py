"""A number with its confidence interval, and how two candidates differ."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A figure with the ends of its 95 % confidence interval, all in the figure's own unit."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """How a candidate differs from the best on the same rows.

    Attributes
    ----------
    estimate : Estimate
        Candidate less best, in the unit of the metric: negative is worse (for an error such as MAE, positive is).
    test : str
        The test that gave ``p``, in words.
    p, adjusted : float
        The p-value of no difference, and the same by Holm's correction for all pairs of candidates: the best was not
        known before.
    worse, equal, better : float
        Posterior probability that the candidate is worse by more than the region of practical equivalence, within
        it, and better by more; they sum to 1.
    verdict : str
        ``equivalent`` (``equal`` is 95 % at least); else ``worse`` or ``better`` (``adjusted`` below 5 %), or
        ``undecided``.
    """

    estimate: Estimate
    test: str
    p: float
    adjusted: float
    worse: float
    equal: float
    better: float
    verdict: str
