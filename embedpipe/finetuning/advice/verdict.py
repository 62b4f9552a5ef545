"""The decision rule of `advise`: is fine-tuning worth it over the best head on frozen features?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError
from embedpipe.finetuning.benchmark.paired_runs import PilotRun, PilotSummary, check_runs, summarise_runs
from embedpipe.report.drawing.wording import counted, margin, rough_duration
from embedpipe.statistics import Estimate
from embedpipe.statistics.percentages import percent

Decision = Literal["worth it", "not worth it", "can't tell yet"]


@dataclass(frozen=True)
class Verdict:
    """The verdict on fine-tuning. Accuracies and their differences are fractions, intervals are 95 %.

    Attributes
    ----------
    decision : str
        ``worth it``, ``not worth it`` or ``can't tell yet``.
    gain : Estimate or None
        Accuracy of the fine-tuned network minus that of the linear probe, at the pilot's largest label count; None
        without a pilot.
    trend : Estimate or None
        Change of the gain with each doubling of the labels; None if the pilot has one label count.
    shift : Estimate or None
        The gain on shifted data at the largest label count; None if none were measured.
    ceiling : Estimate
        Error of the best head on frozen features with all labels: no gain can exceed it.
    minutes, gain_per_minute : float or None
        Time of one fine-tuning run on all labels, and the gain for each of its minutes.
    evidence, would_change : list of str
        The reasons, and what would change the verdict, as sentences.
    """

    decision: Decision
    gain: Estimate | None
    trend: Estimate | None
    shift: Estimate | None
    ceiling: Estimate
    minutes: float | None
    gain_per_minute: float | None
    evidence: list[str]
    would_change: list[str]


def judge(
    runs: Sequence[PilotRun],
    *,
    probe_accuracy: Estimate,
    total_labels: int,
    test_rows: int,
    min_gain: float = 0.01,
    shift_margin: float = 0.01,
    shifted_rows: int | None = None,
    full_run_seconds: float | None = None,
) -> Verdict:
    """Decide whether fine-tuning is worth it, or report that the evidence does not decide and what would.

    Parameters
    ----------
    runs : sequence of PilotRun
        Label counts and seeds of the pilot; may be empty.
    probe_accuracy : Estimate
        Accuracy of the head on frozen features with all labels, with its 95 % interval, as `evaluate` gives it.
    total_labels, test_rows : int
        Number of labels available for training, and of held-out rows of the pilot.
    min_gain, shift_margin : float
        The gain that is asked for, and the fall on shifted data that is accepted, as fractions.
    shifted_rows : int, optional
        Different rows of the shifted data: corruptions of one row count once. By default ``test_rows``.
    full_run_seconds : float, optional
        Time of one fine-tuning run on all labels; taken from the pilot if there is one.

    Raises
    ------
    UsageError
        If an accuracy is outside [0, 1], a run has more than ``total_labels`` labels, counts do not sum to
        ``test_rows``, a label count has a seed twice, or shifted accuracies are given for some runs only.

    Notes
    -----
    *Not worth it* only if no extrapolation is needed: the upper bound of the probe's error with all labels is at most
    ``min_gain``; or the pilot reached all labels, and the upper bound of its gain is at most ``min_gain``.

    *Worth it* only if all of these hold at the largest label count, with at least 2 seeds:

    - The lower bound of the gain is above ``min_gain``.
    - The gain does not shrink: the estimated trend, if negative, is extrapolated to all labels. This decline is at most
      ``min_gain``, and the lower bound of the gain minus the decline is still above ``min_gain``. A rising trend adds
      nothing. This is stricter than a test for a decline: two seeds hardly ever make a decline significant, and noise
      is charged as if it were decline.
    - The lower bound of the change on shifted data is at least ``-shift_margin``. If no shifted data were measured, the
      evidence says so.

    Otherwise the verdict is *can't tell yet*. A larger spread of the seeds never turns that into a decision.

    The interval of a gain has two sources. Seeds: their variance within label counts is pooled over label counts, and
    replaced by the variance at the largest one if that is greater. Held-out rows, which all seeds share: Newcombe's
    interval, as wide as for one run. The half-widths of the two, the seeds' with Student's quantile at the pooled
    degrees of freedom, add in squares. Banerjee (Sankhya 22, 1960, 357-358) shows for normal errors that the coverage
    is then at least nominal, which Welch's degrees of freedom do not give when there are only 2. The rule assumes that
    the spread of the seeds is not much larger at the largest label count than at smaller ones.
    `benchmarks/verdict_rule.py` measures all of this.

    Examples
    --------
    >>> from embedpipe.finetuning.benchmark.paired_runs import PilotRun
    >>> from embedpipe.statistics import Estimate
    >>> gains = {200: (0.050, 0.054), 400: (0.060, 0.064)}
    >>> runs = [PilotRun(n, seed, 0.8, 0.8 + gain, 60) for n in gains for seed, gain in enumerate(gains[n])]
    >>> verdict = judge(runs, probe_accuracy=Estimate(0.85, 0.83, 0.87), total_labels=1600, test_rows=2000)
    >>> verdict.decision, round(verdict.gain.value, 3)
    ('worth it', 0.062)
    """
    for name, count in (("total_labels", total_labels), ("test_rows", test_rows), ("shifted_rows", shifted_rows)):
        if count is not None and count < 1:
            raise UsageError(f"{name} must be >= 1, got {count}")
    for name, fraction in (("min_gain", min_gain), ("shift_margin", shift_margin)):
        if not 0 <= fraction < 1:
            raise UsageError(f"{option(name)} must be in [0, 1), got {fraction}: 0.01 is one percentage point")
    if not 0 <= probe_accuracy.low <= probe_accuracy.value <= probe_accuracy.high <= 1:
        raise UsageError(f"probe_accuracy must be in [0, 1] and within its interval, got {probe_accuracy}")
    check_runs(runs, total_labels, test_rows)
    ceiling = Estimate(1 - probe_accuracy.value, 1 - probe_accuracy.high, 1 - probe_accuracy.low)
    pilot = summarise_runs(runs, total_labels, test_rows, shifted_rows or test_rows) if runs else None
    minutes = pilot.minutes if pilot else None if full_run_seconds is None else full_run_seconds / 60
    gain = pilot.gain.interval() if pilot else None
    decision: Decision = "can't tell yet"
    if ceiling.high <= min_gain or (pilot and gain and pilot.labels == total_labels and gain.high <= min_gain):
        decision = "not worth it"
    elif pilot and pilot.exceeds(min_gain) and pilot.is_robust(shift_margin):
        decision = "worth it"
    return Verdict(
        decision=decision,
        gain=gain,
        trend=pilot.trend if pilot else None,
        shift=pilot.shift.interval() if pilot and pilot.shift else None,
        ceiling=ceiling,
        minutes=minutes,
        gain_per_minute=gain.value / minutes if gain and minutes else None,
        evidence=_evidence(pilot, ceiling, total_labels, minutes, min_gain, shift_margin),
        would_change=_would_change(decision, pilot, min_gain, shift_margin),
    )


def _evidence(
    pilot: PilotSummary | None,
    ceiling: Estimate,
    total_labels: int,
    minutes: float | None,
    min_gain: float,
    shift_margin: float,
) -> list[str]:
    sentences = [
        f"With all labels the best head on frozen features has an error of {_percent(ceiling)} on "
        "rows that had no part in choosing it: no gain can exceed it. The table of heads shows the best a little "
        "better, as its own rows chose it."
    ]
    if ceiling.high <= min_gain:
        sentences.append(f"The error is at most the minimum gain of {margin(min_gain, 'accuracy')}.")
    if pilot is None:
        return [*sentences, "No pilot was run, so the gain is unknown."]
    gain = pilot.gain.interval()
    sentences.append(
        f"On {pilot.labels:,} labels and {counted(pilot.gain.seeds, 'seed')}, fine-tuning changes accuracy by "
        f"{_span(gain)}; the minimum gain is {margin(min_gain, 'accuracy')}."
    )
    if pilot.gain.seeds < 2:
        sentences.append("One seed does not show how much seeds differ, so the gain has no interval.")
    if pilot.trend:
        sentences.append(f"Each doubling of the labels changes the gain by {_span(pilot.trend)}.")
    if pilot.decline is None:
        sentences.append("Only one label count was measured, so the gain with more labels is unknown.")
    elif pilot.decline >= 0.0005:  # less would be shown as 0.0
        sentences.append(
            f"Extrapolated to all labels, the falling trend reduces the gain by {_points(pilot.decline)}, to a lower "
            f"bound of {_points(gain.low - pilot.decline)}."
        )
    if pilot.shift is None:
        sentences.append("No shifted data were measured, so the effect of fine-tuning on robustness is unknown.")
    else:
        sentences.append(
            f"On shifted data fine-tuning changes accuracy by {_span(pilot.shift.interval())}; "
            f"a fall of {_points(shift_margin)} is accepted."
        )
    return sentences if minutes is None else [*sentences, f"One run on all labels takes {rough_duration(minutes)}."]


def _would_change(decision: Decision, pilot: PilotSummary | None, min_gain: float, shift_margin: float) -> list[str]:
    if decision == "not worth it":
        return [
            f"A minimum gain below {margin(min_gain, 'accuracy')}.",
            "Other data: more varied, harder or shifted rows, on which the linear probe makes more errors.",
        ]
    if decision == "worth it":
        assert pilot is not None
        sentences = ["A better linear probe, by another backbone, other layers or joined layers, that closes the gap."]
        return sentences if pilot.shift else [*sentences, "Shifted data on which the fine-tuned network is worse."]
    if pilot is None:
        return ["A pilot: the gain at two smaller label counts, and its trend."]
    sentences, gain = [], pilot.gain
    if gain.value - gain.below <= min_gain < gain.value + gain.above:
        sentences.append("More held-out rows: with so few, no number of seeds decides.")
    if not pilot.is_robust(shift_margin):
        sentences.append(
            "A network that keeps its accuracy on shifted data: by LP-FT, or with its first layers frozen."
        )
    return [*sentences, "Another backbone: a better linear probe leaves less to gain."]


def _percent(fraction: Estimate) -> str:
    return f"{percent(fraction.value)} ({percent(fraction.low)} to {percent(fraction.high)})"


def _points(fraction: float) -> str:
    return f"{100 * fraction:.1f} point{'s' * (round(100 * fraction, 1) != 1)}"


def _span(change: Estimate) -> str:
    return f"{100 * change.value:+z.1f} points ({100 * change.low:+z.1f} to {100 * change.high:+z.1f})"
