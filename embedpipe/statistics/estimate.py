"""`Estimate`: a value with its confidence interval. `Difference`: how a candidate differs from the best one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """The value of a metric with the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return ``0.9100 (0.8900 to 0.9300)``."""
        return f"{self.value:.4f} ({self.low:.4f} to {self.high:.4f})"


@dataclass(frozen=True)
class Difference:
    """How a candidate differs from the best candidate on the same rows.

    Attributes
    ----------
    estimate : Estimate
        Candidate minus best. Negative is worse; for an error such as MAE, positive is worse.
    test : str
        Name of the test that gave ``p``.
    p, adjusted : float
        The p-value of no difference, and the same with Holm's correction for all pairs of candidates, because the best
        one was not known before.
    worse, equal, better : float
        Posterior probabilities that the candidate is worse by more than the region of practical equivalence, within
        it, and better by more. They sum to 1.
    verdict : str
        ``equivalent`` if ``equal`` >= 95 % and the interval lies within the region of practical equivalence; else
        ``worse`` or ``better`` if ``adjusted`` < 5 %; else ``undecided``.
    """

    estimate: Estimate
    test: str
    p: float
    adjusted: float
    worse: float
    equal: float
    better: float
    verdict: str
