"""Statistics of paired runs: gain of fine-tuning over the linear probe, its trend with more labels, intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite, log2

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from embedpipe.errors import UsageError
from embedpipe.statistics import Estimate, paired_interval, share_interval, unseen_share
from embedpipe.statistics.shares import LEVEL

Floats = npt.NDArray[np.float64]
#: Half the width of a 95 % interval, in standard errors.
Z95 = 1.959963984540054


@dataclass(frozen=True)
class PilotRun:
    """Two learners fitted on the same training rows with the same seed, measured on the same held-out rows.

    Attributes
    ----------
    labels : int
        Number of training rows.
    seed : int
        Seed of the draw of training rows.
    probe, finetuned : float
        Accuracy on the held-out rows of the linear probe and of the fine-tuned network, in [0, 1].
    seconds : float
        Time of the fine-tuning.
    shifted_probe, shifted_finetuned : float or None
        The same accuracies on shifted data.
    paired_counts : tuple of 4 int, optional
        Number of held-out rows that both classify correctly, only the probe, only the fine-tuned network, neither.
        Without these counts the errors of the two are taken as independent, which widens the intervals.
    shifted_error : float, optional
        Standard error of ``shifted_finetuned - shifted_probe`` from the choice of the shifted rows: the standard
        deviation of the differences by row over the root of the number of rows, corruptions of one row averaged first.
        Without it, errors are taken as independent.
    """

    labels: int
    seed: int
    probe: float
    finetuned: float
    seconds: float
    shifted_probe: float | None = None
    shifted_finetuned: float | None = None
    paired_counts: tuple[int, int, int, int] | None = None
    shifted_error: float | None = None


@dataclass(frozen=True)
class SeedMean:
    """Mean over the seeds of one label count, with the two sources of its uncertainty.

    Attributes
    ----------
    value : float
    seeds : int
        Number of runs in the mean.
    variance : float
        Variance of one run between seeds.
    freedom : int
        Degrees of freedom of ``variance``.
    below, above : float
        Half-widths of the interval from the choice of the held-out rows, which all seeds share.
    """

    value: float
    seeds: int
    variance: float
    freedom: int
    below: float
    above: float

    def interval(self) -> Estimate:
        """Return the mean with its interval."""
        if not self.freedom or self.seeds < 2:
            return Estimate(self.value, -1.0, 1.0)
        seed_part = _quantile(self.freedom) ** 2 * self.variance / self.seeds
        low, high = self.value - np.sqrt(seed_part + self.below**2), self.value + np.sqrt(seed_part + self.above**2)
        return Estimate(self.value, max(float(low), -1.0), min(float(high), 1.0))


@dataclass(frozen=True)
class PilotSummary:
    """Gain and change on shifted data at the pilot's largest label count, and the trend of the gain.

    Attributes
    ----------
    labels : int
        The largest label count of the pilot.
    gain : SeedMean
        Accuracy of the fine-tuned network minus that of the probe.
    shift : SeedMean or None
        The same on shifted data; None if none were measured.
    trend : Estimate or None
        Change of the gain with each doubling of the labels; None for one label count.
    minutes : float
        Time of one run on all labels.
    decline : float or None
        Loss of gain up to all labels if a negative trend continues, at least 0; None if the trend is unknown.
    """

    labels: int
    gain: SeedMean
    shift: SeedMean | None
    trend: Estimate | None
    minutes: float
    decline: float | None

    def exceeds(self, min_gain: float) -> bool:
        """Return whether the lower bound of the gain exceeds ``min_gain``, before and after the decline."""
        if self.decline is None or self.decline > min_gain:
            return False
        return self.gain.interval().low - self.decline > min_gain

    def is_robust(self, margin: float) -> bool:
        """Return whether accuracy on shifted data falls by at most ``margin``; True if none were measured."""
        return self.shift is None or self.shift.interval().low >= -margin


def summarise_runs(runs: Sequence[PilotRun], total_labels: int, test_rows: int, shifted_rows: int) -> PilotSummary:
    """Summarise one or more runs; see `embedpipe.finetuning.advice.verdict.judge` for the statistics."""
    by_count = {count: [run for run in runs if run.labels == count] for count in sorted({run.labels for run in runs})}
    largest = max(by_count)
    gains = {count: np.array([run.finetuned - run.probe for run in group]) for count, group in by_count.items()}
    half_widths = {count: _row_half_widths(group, test_rows) for count, group in by_count.items()}
    shift = None
    if runs[0].shifted_probe is not None:
        changes = {
            count: np.array([(run.shifted_finetuned or 0.0) - (run.shifted_probe or 0.0) for run in group])
            for count, group in by_count.items()
        }
        shift = _seed_mean(changes, _shifted_half_widths(by_count[largest], shifted_rows))
    trend = _trend(gains, {count: max(both) for count, both in half_widths.items()})
    doublings = log2(total_labels / largest)
    decline = max(-trend.value, 0.0) * doublings if trend else None if doublings else 0.0
    seconds = float(np.mean([run.seconds for run in by_count[largest]])) * total_labels / largest
    return PilotSummary(largest, _seed_mean(gains, half_widths[largest]), shift, trend, seconds / 60, decline)


def _seed_mean(values: dict[int, Floats], half_widths: tuple[float, float]) -> SeedMean:
    """Return the mean at the largest label count, from the values of each count by seed and the rows' half-widths."""
    at_largest = values[max(values)]
    pooled, freedom = _pooled_variance(values)
    variance = max(pooled, float(at_largest.var(ddof=1)) if len(at_largest) > 1 else 0.0)
    return SeedMean(float(at_largest.mean()), len(at_largest), variance, freedom, *half_widths)


def _pooled_variance(values: dict[int, Floats]) -> tuple[float, int]:
    """Return the variance within label counts and its degrees of freedom."""
    freedom = sum(len(group) - 1 for group in values.values())
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in values.values())
    return squares / freedom if freedom else 0.0, freedom


def _trend(gains: dict[int, Floats], half_widths: dict[int, float]) -> Estimate | None:
    """Return the least-squares slope of the gain over doublings of the labels.

    The rows' half-widths of different label counts are combined as if the rows were different.
    """
    if len(gains) < 2:
        return None
    counts = np.array([len(group) for group in gains.values()])
    means = np.array([group.mean() for group in gains.values()])
    doublings = np.log2(np.array(list(gains), np.float64))
    centred = doublings - np.average(doublings, weights=counts)
    squares = float((counts * centred**2).sum())
    weights = counts * centred / squares
    slope = float(weights @ means)
    pooled, freedom = _pooled_variance(gains)
    if not freedom:
        return Estimate(slope, -1.0, 1.0)
    row_part = float(((weights * list(half_widths.values())) ** 2).sum())
    half = np.sqrt(_quantile(freedom) ** 2 * pooled / squares + row_part)
    return Estimate(slope, slope - float(half), slope + float(half))


def _row_half_widths(group: Sequence[PilotRun], rows: int) -> tuple[float, float]:
    """Return the half-widths, below and above the gain, from the choice of held-out rows, for one label count."""
    probe = float(np.mean([run.probe for run in group]))
    finetuned = float(np.mean([run.finetuned for run in group]))
    paired = [run.paired_counts for run in group if run.paired_counts is not None]
    if len(paired) < len(group):
        return _independent_half_widths(probe, finetuned, rows)
    both, first, second = (_nearest_int(float(np.mean(each))) for each in list(zip(*paired, strict=True))[:3])
    low, high = paired_interval(both, first, second, max(rows - both - first - second, 0))
    difference = (second - first) / max(rows, both + first + second)
    return difference - low, high - difference


def _shifted_half_widths(group: Sequence[PilotRun], rows: int) -> tuple[float, float]:
    errors = [run.shifted_error for run in group if run.shifted_error is not None]
    if len(errors) == len(group):
        # Rows that are all alike have no spread, and say only what so many rows may leave unseen.
        half = max(Z95 * float(np.sqrt(np.mean(np.square(errors)))), unseen_share(rows))
        return half, half
    probe = float(np.mean([run.shifted_probe for run in group if run.shifted_probe is not None]))
    finetuned = float(np.mean([run.shifted_finetuned for run in group if run.shifted_finetuned is not None]))
    return _independent_half_widths(probe, finetuned, rows)


def _independent_half_widths(probe: float, finetuned: float, rows: int) -> tuple[float, float]:
    """Return half-widths of Newcombe's interval (method 10) with no correlation between the learners' errors."""
    first, first_low, first_high = share_interval(_nearest_int(probe * rows), rows)
    second, second_low, second_high = share_interval(_nearest_int(finetuned * rows), rows)
    below = np.hypot(second - second_low, first_high - first)
    return float(below), float(np.hypot(second_high - second, first - first_low))


def _nearest_int(number: float) -> int:
    """Round to the nearest integer, halves up."""
    return int(np.floor(number + 0.5 + 1e-9))


@lru_cache
def _quantile(freedom: int) -> float:
    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def check_runs(runs: Sequence[PilotRun], total_labels: int, test_rows: int) -> None:
    """Raise a `UsageError` that names the first run with impossible values."""
    if len({run.shifted_probe is None for run in runs} | {run.shifted_finetuned is None for run in runs}) > 1:
        raise UsageError("shifted accuracies must be given for both learners of all runs, or for none")
    earlier = set()
    for run in runs:
        name = f"the run on {run.labels} labels with seed {run.seed}"
        if (run.labels, run.seed) in earlier:
            raise UsageError(f"{name} is given twice: give each seed of a label count once")
        earlier.add((run.labels, run.seed))
        if not 1 <= run.labels <= total_labels:
            raise UsageError(f"{name} must have 1 to total_labels={total_labels} labels")
        for accuracy in (run.probe, run.finetuned, run.shifted_probe, run.shifted_finetuned):
            if accuracy is not None and not 0 <= accuracy <= 1:
                raise UsageError(f"accuracies must be in [0, 1], got {accuracy} for {name}")
        if not all(isfinite(amount) and amount >= 0 for amount in (run.seconds, run.shifted_error or 0.0)):
            raise UsageError(
                f"seconds and shifted_error must be finite and >= 0, got {run.seconds} and {run.shifted_error} for "
                f"{name}"
            )
        if run.paired_counts is not None and (min(run.paired_counts) < 0 or sum(run.paired_counts) != test_rows):
            raise UsageError(
                f"paired_counts must be >= 0 and sum to test_rows={test_rows}, got {run.paired_counts} for {name}"
            )
