"""Is full fine-tuning worth it over the best head on frozen features? The rule that decides from a pilot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from embedpipe.errors import UsageError
from embedpipe.finetuning.benchmark.paired_runs import Pilot, PilotRun, check_runs, read_pilot
from embedpipe.statistics import Estimate

Decision = Literal["worth it", "not worth it", "can't tell yet"]
#: What would change a verdict where none was run.
A_PILOT = "A pilot: the gain on two sizes of a part of the labels, and its trend."
#: Runs of one size that the rule may ask for.
MOST_SEEDS = 10


@dataclass(frozen=True)
class DecidingRun:
    """Fine-tuning runs that would settle it: on so many labels, with so many more seeds, in so many minutes in all."""

    labels: int
    seeds: int
    minutes: float | None


@dataclass(frozen=True)
class Verdict:
    """What the rule says; accuracies and their differences are shares, intervals 95 %.

    Attributes
    ----------
    decision : str
        ``worth it``, ``not worth it`` or ``can't tell yet``.
    gain : Estimate or None
        Fine-tuned less probe at the pilot's largest size; None without a pilot.
    trend : Estimate or None
        Change of the gain with each doubling of the labels; None where the pilot has one size only.
    shift : Estimate or None
        Fine-tuned less probe on shifted data at the largest size; None where none were measured.
    ceiling : Estimate
        What the probe gets wrong at full size: no gain can be above it.
    minutes, gain_per_minute : float or None
        One fine-tuning run on all labels, and the gain (a share) for each of its minutes.
    evidence, would_change : list of str
        Why, and what else than ``deciding_run`` would change it, in plain sentences.
    deciding_run : DecidingRun or None
        What would settle it most likely; None where it is decided, or no run would decide it.
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
    deciding_run: DecidingRun | None


def judge(
    runs: Sequence[PilotRun],
    *,
    probe_at_full: Estimate,
    labels_at_full: int,
    test_rows: int,
    min_gain: float = 0.01,
    shift_margin: float = 0.01,
    shifted_rows: int | None = None,
    seconds_at_full: float | None = None,
) -> Verdict:
    """Decide whether full fine-tuning is worth it, or say that it cannot be told yet and what would tell.

    Parameters
    ----------
    runs : sequence of PilotRun
        Sizes and seeds of the pilot; may be empty.
    probe_at_full : Estimate
        Accuracy of the head on frozen features with all labels, with its 95 % interval, as `evaluate` gives it.
    labels_at_full, test_rows : int
        Training rows there are, and held-out rows of the pilot.
    min_gain, shift_margin : float
        The gain that is asked for, and the fall on shifted data that is borne, as shares.
    shifted_rows : int, optional
        Different rows of the shifted data: corruptions of one row count once. As many as ``test_rows`` if not given.
    seconds_at_full : float, optional
        One fine-tuning run on all labels; taken from the pilot where there is one.

    Raises
    ------
    UsageError
        If an accuracy is no share, a run has more labels than there are, counts do not add up to ``test_rows``, a size
        has a seed twice, or shifted accuracies are there for some runs only.

    Notes
    -----
    *Not worth it* only where that takes no extrapolation: the upper bound of the probe's error with all labels is at
    most ``min_gain``; or the pilot reached all labels, and the upper bound of its gain is.

    *Worth it* only if all of these hold at the largest size, of 2 seeds at least. The lower bound of the gain is above
    ``min_gain``. The gain does not shrink: the estimated trend, carried to all labels where it is negative, takes off
    ``min_gain`` at most, and the lower bound less that is still above ``min_gain``; a rising trend earns nothing. This
    asks more than that a decline be no proven one: two seeds prove next to none, and noise is paid for as if it were
    decline. The lower bound of the change on shifted data is ``-shift_margin`` or above; where none were measured,
    that is said.

    All else cannot be told yet. A wider spread of seeds never turns that into a decision.

    Two things leave a gain open. Seeds: their variance within sizes is pooled over sizes, and is the largest size's own
    where that is greater. Held-out rows, which all seeds share: Newcombe's interval, as wide as for one run.
    Half-widths of either, the seeds' with Student's quantile of the pooled degrees of freedom, add in squares. Banerjee
    (Sankhya 22, 1960, 357-358) shows for normal errors that coverage is then at least what it claims, which Welch's
    degrees of freedom do not give where 2 of them have to do. What it rests on is that seeds do not spread much more at
    the largest size than at smaller ones. `benchmarks/verdict_rule.py` measures all of this.
    """
    for name, count in (("labels_at_full", labels_at_full), ("test_rows", test_rows), ("shifted_rows", shifted_rows)):
        if count is not None and count < 1:
            raise UsageError(f"{name} must be 1 at least, not {count}")
    for name, share in (("min_gain", min_gain), ("shift_margin", shift_margin)):
        if not 0 <= share < 1:
            raise UsageError(f"{name} is a share of the rows, 0 or more and below 1 (0.01 is a point), not {share}")
    if not 0 <= probe_at_full.low <= probe_at_full.value <= probe_at_full.high <= 1:
        raise UsageError(f"probe_at_full must be a share within its interval, not {probe_at_full}")
    check_runs(runs, labels_at_full, test_rows)
    ceiling = Estimate(1 - probe_at_full.value, 1 - probe_at_full.high, 1 - probe_at_full.low)
    pilot = read_pilot(runs, labels_at_full, test_rows, shifted_rows or test_rows) if runs else None
    minutes = pilot.minutes if pilot else None if seconds_at_full is None else seconds_at_full / 60
    gain = pilot.gain.interval() if pilot else None
    shift = pilot.shift.interval() if pilot and pilot.shift else None
    decision: Decision = "can't tell yet"
    if ceiling.high <= min_gain or (pilot and gain and pilot.labels == labels_at_full and gain.high <= min_gain):
        decision = "not worth it"
    elif pilot and pilot.pays(min_gain) and pilot.keeps(shift_margin):
        decision = "worth it"
    settling = (
        _cheapest_deciding_run(pilot, labels_at_full, minutes, min_gain, shift_margin)
        if decision == "can't tell yet"
        else None
    )
    return Verdict(
        decision=decision,
        gain=gain,
        trend=pilot.trend if pilot else None,
        shift=shift,
        ceiling=ceiling,
        minutes=minutes,
        gain_per_minute=gain.value / minutes if gain and minutes else None,
        evidence=_evidence(pilot, ceiling, labels_at_full, minutes, min_gain, shift_margin),
        would_change=_would_change(decision, pilot, min_gain, shift_margin),
        deciding_run=settling,
    )


def _cheapest_deciding_run(
    pilot: Pilot | None, labels_at_full: int, minutes: float | None, min_gain: float, shift_margin: float
) -> DecidingRun | None:
    """Return the cheapest run that can be expected to decide."""
    if pilot is None:
        quarter = max(labels_at_full // 4, 1)
        return DecidingRun(quarter, 2, None if minutes is None else 2 * minutes * quarter / labels_at_full)
    cost = pilot.minutes * pilot.labels / labels_at_full
    whole = pilot.labels == labels_at_full
    full = None if whole else DecidingRun(labels_at_full, 2, 2 * pilot.minutes)
    for more in range(1, MOST_SEEDS + 1 - pilot.gain.seeds):
        sure = pilot.pays(min_gain, more) and pilot.keeps(shift_margin, more)
        unknown = not pilot.gain.freedom and whole  # a first repeat shows the spread
        if unknown or sure or (whole and pilot.gain.interval(more).high <= min_gain):
            again = DecidingRun(pilot.labels, more, more * cost)
            return again if full is None or more * cost < 2 * pilot.minutes else full
    return full


def _evidence(
    pilot: Pilot | None,
    ceiling: Estimate,
    labels_at_full: int,
    minutes: float | None,
    min_gain: float,
    shift_margin: float,
) -> list[str]:
    said = [
        f"With all {labels_at_full:,} labels a head on frozen features gets {_percent(ceiling)} wrong, chosen and "
        "measured on different rows: no gain can be above that."
        + (f" That is at most the {_points(min_gain)} asked for." if ceiling.high <= min_gain else "")
    ]
    if pilot is None:
        return [*said, "No pilot was run, so nothing is known of the gain itself."]
    gain = pilot.gain.interval()
    said.append(
        f"On {pilot.labels:,} labels and {_seeds(pilot.gain.seeds)}, fine-tuning changes accuracy by {_span(gain)}; "
        f"more than {_points(min_gain)} is asked for."
    )
    if pilot.gain.seeds < 2:
        said.append("One seed says nothing of how much seeds differ, so the gain is open.")
    if pilot.trend:
        said.append(f"Each doubling of the labels changes the gain by {_span(pilot.trend)}.")
    if pilot.decline is None:
        said.append("One size only was measured, so it is open whether the gain lasts with more labels.")
    elif pilot.decline >= 0.0005:  # what shows
        said.append(
            f"Carried to all labels, the falling trend takes off {_points(pilot.decline)}: the lower bound left is "
            f"{_points(gain.low - pilot.decline)}."
        )
    if pilot.shift is None:
        said.append("No shifted data were measured: what fine-tuning costs in robustness is not known.")
    else:
        said.append(
            f"On shifted data it changes accuracy by {_span(pilot.shift.interval())}; "
            f"a fall of {_points(shift_margin)} would be borne."
        )
    return said if minutes is None else [*said, f"One run on all labels takes {rough_duration(minutes)}."]


def _would_change(decision: Decision, pilot: Pilot | None, min_gain: float, shift_margin: float) -> list[str]:
    if decision == "not worth it":
        return [
            f"A gain smaller than {_points(min_gain)} being enough.",
            "Other data: more varied, harder or shifted rows, on which the probe gets more wrong.",
        ]
    if decision == "worth it":
        assert pilot is not None
        said = [
            "A better probe: another backbone, other layers, or several joined, closes the gap without fine-tuning."
        ]
        return said if pilot.shift else [*said, "Shifted data on which the fine-tuned network falls behind."]
    if pilot is None:
        return [A_PILOT]
    said, gain = [], pilot.gain
    if gain.value - gain.below <= min_gain < gain.value + gain.above:
        said.append("More held-out rows: so few leave the gain open, however many seeds are run.")
    if not pilot.keeps(shift_margin):
        said.append("A network that keeps its accuracy on shifted data: LP-FT, or its first layers frozen.")
    return [*said, "Another backbone: a better probe leaves less to gain."]


def _percent(share: Estimate) -> str:
    return f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})"


def _points(share: float) -> str:
    return f"{100 * share:.1f} point{'s' * (round(100 * share, 1) != 1)}"


def _span(change: Estimate) -> str:
    return f"{100 * change.value:+.1f} points ({100 * change.low:+.1f} to {100 * change.high:+.1f})"


def _seeds(number: int) -> str:
    return f"{number} seed{'s' if number > 1 else ''}"


def rough_duration(minutes: float) -> str:
    """Return minutes in words, as roughly as they are known."""
    if minutes < 1:
        return "less than a minute"
    if minutes < 90:
        return f"about {minutes:.0f} minute{'s' * (round(minutes) != 1)}"
    return f"about {minutes / 60:.1f} hours"
