"""What a pilot of fine-tuning says: the gain over the probe, how it goes with more labels, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite, log2

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from embedpipe.errors import UsageError
from embedpipe.statistics import Estimate
from embedpipe.statistics.paired import LEVEL, paired_interval, wilson

Floats = npt.NDArray[np.float64]
#: Standard errors that half a 95 % interval is wide.
WIDE = 1.959963984540054


@dataclass(frozen=True)
class PilotRun:
    """Two learners fitted on the same training rows with the same seed, measured on the same held-out rows.

    Attributes
    ----------
    labels, seed : int
        Training rows, and what drew them.
    probe, tuned : float
        Accuracy of the head on frozen features and of the fine-tuned network, shares of the held-out rows.
    seconds : float
        What fine-tuning took.
    shifted_probe, shifted_tuned : float or None
        The same on shifted data.
    paired : tuple of 4 int, optional
        Held-out rows that both have right, only the probe, only the tuned network, neither. Without them the errors of
        the two are taken as independent, which makes intervals wider.
    shifted_error : float, optional
        Standard error that the choice of shifted rows leaves in ``shifted_tuned - shifted_probe``: the standard
        deviation of the rows' own differences over the root of their number, corruptions of a row averaged first.
        Without it, errors are taken as independent.
    """

    labels: int
    seed: int
    probe: float
    tuned: float
    seconds: float
    shifted_probe: float | None = None
    shifted_tuned: float | None = None
    paired: tuple[int, int, int, int] | None = None
    shifted_error: float | None = None


@dataclass(frozen=True)
class SeedMean:
    """A mean over runs: the variance of one run, its degrees of freedom, and how far held-out rows leave it open."""

    value: float
    seeds: int
    variance: float
    freedom: int
    below: float
    above: float

    def interval(self, more: int = 0) -> Estimate:
        """Return it with its interval, as it would be with so many more seeds of the same spread."""
        if not self.freedom or self.seeds + more < 2:
            return Estimate(self.value, -1.0, 1.0)
        drawn = _quantile(self.freedom + more) ** 2 * self.variance / (self.seeds + more)
        low, high = self.value - np.sqrt(drawn + self.below**2), self.value + np.sqrt(drawn + self.above**2)
        return Estimate(self.value, max(float(low), -1.0), min(float(high), 1.0))


@dataclass(frozen=True)
class Pilot:
    """What a pilot says: the gain and the shifted change at its largest size, and how the gain goes with size."""

    labels: int
    gain: SeedMean
    shift: SeedMean | None
    trend: Estimate | None
    minutes: float  # of one run on all labels
    decline: float | None  # that the trend, carried to all labels, would take off the gain

    def pays(self, min_gain: float, more: int = 0) -> bool:
        """Return whether the gain is above what is asked, at this size and after the decline."""
        if self.decline is None or self.decline > min_gain:
            return False
        return self.gain.interval(more).low - self.decline > min_gain

    def keeps(self, margin: float, more: int = 0) -> bool:
        """Return whether shifted accuracy does not fall by more than the margin, as far as was measured."""
        return self.shift is None or self.shift.interval(more).low >= -margin


def read_pilot(runs: Sequence[PilotRun], labels_at_full: int, test_rows: int, shifted_rows: int) -> Pilot:
    """Return what the runs say; there is one at least."""
    sizes = {size: [run for run in runs if run.labels == size] for size in sorted({run.labels for run in runs})}
    largest = max(sizes)
    gains = {size: np.array([run.tuned - run.probe for run in group]) for size, group in sizes.items()}
    rows = {size: _open_by_rows(group, test_rows) for size, group in sizes.items()}
    shift = None
    if runs[0].shifted_probe is not None:
        changes = {
            size: np.array([(run.shifted_tuned or 0.0) - (run.shifted_probe or 0.0) for run in group])
            for size, group in sizes.items()
        }
        shift = _measure(changes, _open_by_shifted_rows(sizes[largest], shifted_rows))
    trend = _trend(gains, {size: max(both) for size, both in rows.items()})
    doublings = log2(labels_at_full / largest)
    decline = max(-trend.value, 0.0) * doublings if trend else None if doublings else 0.0
    seconds = float(np.mean([run.seconds for run in sizes[largest]])) * labels_at_full / largest
    return Pilot(largest, _measure(gains, rows[largest]), shift, trend, seconds / 60, decline)


def _measure(values: dict[int, Floats], rows: tuple[float, float]) -> SeedMean:
    """Return the mean at the largest size, from each size's values by seed and the half-widths that rows give."""
    own = values[max(values)]
    pooled, freedom = _pooled(values)
    variance = max(pooled, float(own.var(ddof=1)) if len(own) > 1 else 0.0)
    return SeedMean(float(own.mean()), len(own), variance, freedom, *rows)


def _pooled(values: dict[int, Floats]) -> tuple[float, int]:
    """Return the variance within sizes and its degrees of freedom."""
    freedom = sum(len(each) - 1 for each in values.values())
    squares = sum(float(((each - each.mean()) ** 2).sum()) for each in values.values())
    return squares / freedom if freedom else 0.0, freedom


def _trend(gains: dict[int, Floats], rows: dict[int, float]) -> Estimate | None:
    """Return the least-squares slope of the gain over doublings; rows of different sizes are taken as different."""
    if len(gains) < 2:
        return None
    counts = np.array([len(each) for each in gains.values()])
    means = np.array([each.mean() for each in gains.values()])
    doublings = np.log2(np.array(list(gains), np.float64))
    away = doublings - np.average(doublings, weights=counts)
    squares = float((counts * away**2).sum())
    weights = counts * away / squares
    slope = float(weights @ means)
    pooled, freedom = _pooled(gains)
    if not freedom:
        return Estimate(slope, -1.0, 1.0)
    half = np.sqrt(_quantile(freedom) ** 2 * pooled / squares + float(((weights * list(rows.values())) ** 2).sum()))
    return Estimate(slope, slope - float(half), slope + float(half))


def _open_by_rows(group: Sequence[PilotRun], rows: int) -> tuple[float, float]:
    """Return how far the choice of held-out rows leaves the gain open below and above, for runs of one size."""
    probe, tuned = (float(np.mean([getattr(run, name) for run in group])) for name in ("probe", "tuned"))
    paired = [run.paired for run in group if run.paired is not None]
    if len(paired) < len(group):
        return _independent(probe, tuned, rows)
    both, first, second = (_whole(float(np.mean(each))) for each in list(zip(*paired, strict=True))[:3])
    low, high = paired_interval(both, first, second, max(rows - both - first - second, 0))
    difference = (second - first) / max(rows, both + first + second)
    return difference - low, high - difference


def _open_by_shifted_rows(group: Sequence[PilotRun], rows: int) -> tuple[float, float]:
    errors = [run.shifted_error for run in group if run.shifted_error is not None]
    if len(errors) == len(group):
        half = WIDE * float(np.sqrt(np.mean(np.square(errors))))
        return half, half
    probe, tuned = (float(np.mean([getattr(run, f"shifted_{name}") for run in group])) for name in ("probe", "tuned"))
    return _independent(probe, tuned, rows)


def _independent(probe: float, tuned: float, rows: int) -> tuple[float, float]:
    """Return half-widths of Newcombe's interval (method 10) with no correlation between the learners' errors."""
    first, first_low, first_high = wilson(_whole(probe * rows), rows)
    second, second_low, second_high = wilson(_whole(tuned * rows), rows)
    below = np.hypot(second - second_low, first_high - first)
    return float(below), float(np.hypot(second_high - second, first - first_low))


def _whole(number: float) -> int:
    return int(np.floor(number + 0.5 + 1e-9))


@lru_cache
def _quantile(freedom: int) -> float:
    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def check_runs(runs: Sequence[PilotRun], labels_at_full: int, test_rows: int) -> None:
    """Raise a `UsageError` that names the run if what it says cannot be."""
    if len({run.shifted_probe is None for run in runs} | {run.shifted_tuned is None for run in runs}) > 1:
        raise UsageError("shifted accuracies must be there for both learners of all runs, or for none")
    seen = set()
    for run in runs:
        name = f"the run on {run.labels} labels with seed {run.seed}"
        if (run.labels, run.seed) in seen:
            raise UsageError(f"{name} is there twice: give each seed of a size once")
        seen.add((run.labels, run.seed))
        if not 1 <= run.labels <= labels_at_full:
            raise UsageError(f"{name} must have 1 to labels_at_full={labels_at_full} labels")
        for share in (run.probe, run.tuned, run.shifted_probe, run.shifted_tuned):
            if share is not None and not 0 <= share <= 1:
                raise UsageError(f"{name} has accuracy {share}: it must be a share, 0 to 1")
        if not all(isfinite(amount) and amount >= 0 for amount in (run.seconds, run.shifted_error or 0.0)):
            raise UsageError(
                f"{name} has seconds={run.seconds}, shifted_error={run.shifted_error}: they must be finite, 0 or more"
            )
        if run.paired is not None and (min(run.paired) < 0 or sum(run.paired) != test_rows):
            raise UsageError(f"{name} has paired counts {run.paired}, which do not add up to test_rows={test_rows}")
