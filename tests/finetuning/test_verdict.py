"""Every branch of the decision rule, its invariants, and the arguments that it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from embedpipe.errors import UsageError
from embedpipe.finetuning.advice.verdict import Verdict, judge
from embedpipe.finetuning.benchmark.paired_runs import PilotRun
from embedpipe.statistics import Estimate, paired_interval

QUICK = settings(max_examples=60, deadline=None)
ROWS, LABELS = 2000, 1600
PROBE = Estimate(0.85, 0.83, 0.87)


def pilot(
    gains: dict[int, Sequence[float]], shifts: Sequence[float] | None = None, probe: float = 0.8, **fields: Any
) -> list[PilotRun]:
    runs = []
    for labels, each in gains.items():
        for seed, gain in enumerate(each):
            shifted = {} if shifts is None else {"shifted_probe": 0.6, "shifted_finetuned": 0.6 + shifts[seed]}
            runs.append(PilotRun(labels, seed, probe, probe + gain, 0.6 * labels, **shifted, **fields))
    return runs


def ask(runs: list[PilotRun], **options: Any) -> Verdict:
    return judge(runs, **{"probe_accuracy": PROBE, "total_labels": LABELS, "test_rows": ROWS, **options})


def says(sentences: list[str], words: str) -> bool:
    return any(words in sentence for sentence in sentences)


def test_clear_gain_is_worth_it() -> None:
    verdict = ask(pilot({200: [0.05, 0.054], 400: [0.06, 0.064]}))
    assert verdict.decision == "worth it"
    assert verdict.gain is not None
    assert verdict.gain.value == pytest.approx(0.062)
    assert verdict.gain.low > 0.01
    assert verdict.trend is not None
    assert verdict.trend.value == pytest.approx(0.01)


def test_clear_gain_has_time_and_sentences() -> None:
    verdict = ask(pilot({200: [0.05, 0.054], 400: [0.06, 0.064]}))
    assert verdict.minutes == pytest.approx(0.6 * LABELS / 60)
    assert verdict.gain_per_minute == pytest.approx(0.062 / 16)
    assert says(verdict.evidence, "No shifted data were measured")
    assert says(verdict.evidence, "+6.2 points")
    assert says(verdict.would_change, "Shifted data")


def test_low_ceiling_is_not_worth_it_with_and_without_pilot() -> None:
    near = Estimate(0.994, 0.991, 0.996)
    verdict = ask([], probe_accuracy=near)
    assert verdict.decision == "not worth it"
    assert verdict.ceiling == Estimate(pytest.approx(0.006), pytest.approx(0.004), pytest.approx(0.009))
    assert verdict.gain is verdict.trend is verdict.shift is verdict.minutes is None
    assert "at most the minimum gain of 1 point." in verdict.evidence[1]
    assert ask(pilot({200: [0.05] * 2, 400: [0.06] * 2}), probe_accuracy=near).decision == "not worth it"
    assert ask([], probe_accuracy=replace(near, low=0.98)).decision == "can't tell yet"


def test_without_pilot_a_pilot_is_asked_for() -> None:
    verdict = ask([], full_run_seconds=960)
    assert verdict.decision == "can't tell yet"
    assert verdict.minutes == 16
    assert verdict.would_change[0].startswith("A pilot")
    assert ask([]).minutes is None


def test_pilot_on_all_labels_decides_both_ways() -> None:
    loss = ask(pilot({800: [0.0, 0.001, 0.0], LABELS: [-0.03, -0.029, -0.03]}))
    assert loss.decision == "not worth it"
    assert loss.gain is not None
    assert loss.gain.high <= 0.01
    # One label count is enough, as nothing is extrapolated.
    assert ask(pilot({LABELS: [0.06, 0.06, 0.061]})).decision == "worth it"
    undecided = ask(pilot({LABELS: [0.01, 0.014, 0.02]}))
    assert undecided.decision == "can't tell yet"
    assert says(undecided.would_change, "More held-out rows")


def test_small_gain_before_all_labels_does_not_decide() -> None:
    verdict = ask(pilot({200: [-0.05, -0.051, -0.05], 400: [-0.05, -0.051, -0.05]}))
    assert verdict.gain is not None
    assert verdict.gain.high < 0
    assert verdict.decision == "can't tell yet"


def test_falling_trend_does_not_decide() -> None:
    verdict = ask(pilot({200: [0.2, 0.2], 400: [0.15, 0.15]}))
    assert verdict.decision == "can't tell yet"
    assert says(verdict.evidence, "reduces the gain by 10.0 points")
    # A decline smaller than the minimum gain is subtracted from the gain.
    assert ask(pilot({200: [0.1, 0.1], 400: [0.097, 0.097]})).decision == "worth it"
    assert ask(pilot({200: [0.1, 0.1], 400: [0.094, 0.094]})).decision == "can't tell yet"


def test_one_label_count_has_no_trend() -> None:
    verdict = ask(pilot({400: [0.1, 0.1]}))
    assert verdict.decision == "can't tell yet"
    assert verdict.trend is None
    assert says(verdict.evidence, "Only one label count")


def test_one_seed_has_no_interval() -> None:
    verdict = ask(pilot({200: [0.1], 400: [0.1]}))
    assert verdict.decision == "can't tell yet"
    assert verdict.gain == Estimate(pytest.approx(0.1), -1.0, 1.0)
    assert verdict.trend == Estimate(pytest.approx(0.0, abs=1e-12), -1.0, 1.0)
    assert says(verdict.evidence, "One seed does not show")


def test_largest_label_count_needs_two_seeds() -> None:
    verdict = ask(pilot({200: [0.1, 0.1, 0.1], 400: [0.1]}))
    assert verdict.decision == "can't tell yet"


def test_shifted_accuracy_must_hold() -> None:
    gains = {200: [0.06, 0.061], 400: [0.06, 0.061]}
    robust = ask(pilot(gains, [0.004, 0.005], shifted_error=0.002))
    assert robust.decision == "worth it"
    assert robust.shift is not None
    assert robust.shift.low > -0.01
    assert len(robust.would_change) == 1
    worse = ask(pilot(gains, [-0.03, -0.03], shifted_error=0.002))
    assert worse.decision == "can't tell yet"
    assert says(worse.would_change, "LP-FT")


def test_unpaired_shifted_rows_widen_the_interval() -> None:
    runs = pilot({200: [0.06, 0.061], 400: [0.06, 0.061]}, [0.004, 0.005])
    assert ask(runs, shifted_rows=300).decision == "can't tell yet"
    assert ask(runs, shifted_rows=100_000).decision == "worth it"


def test_more_seeds_decide_a_gain_that_spreads() -> None:
    open_yet = ask(pilot({200: [0.045, 0.075], 400: [0.045, 0.075]}), test_rows=20_000)
    assert open_yet.decision == "can't tell yet"
    assert says(open_yet.evidence, "One run on all labels takes about 16 minutes")
    assert ask(pilot({200: [0.045, 0.075], 400: [0.045, 0.075, *[0.06] * 6]}), test_rows=20_000).decision == "worth it"


def test_intervals_are_those_documented() -> None:
    paired = (1500, 60, 160, 280)
    runs = [
        PilotRun(labels, seed, 0.78, 0.83 + moved, 60, paired_counts=paired)
        for labels in (200, 400)
        for seed, moved in enumerate((-0.003, 0.003))
    ]
    verdict = ask(runs)
    assert verdict.gain is not None
    assert verdict.trend is not None
    variance = 2 * 0.003**2
    low, high = paired_interval(*paired)
    seed_part = stats.t.ppf(0.975, 2) ** 2 * variance / 2
    assert verdict.gain.low == pytest.approx(0.05 - np.sqrt(seed_part + (0.05 - low) ** 2))
    assert verdict.gain.high == pytest.approx(0.05 + np.sqrt(seed_part + (high - 0.05) ** 2))
    # Two label counts a doubling apart: the slope is the difference of two means.
    rows = max(0.05 - low, high - 0.05)
    assert verdict.trend.high == pytest.approx(np.sqrt(2 * seed_part + 2 * rows**2))
    # Without pairing, errors are taken as independent, and the interval is wider.
    unpaired = ask([replace(run, paired_counts=None) for run in runs]).gain
    assert unpaired is not None
    assert unpaired.low < verdict.gain.low


def test_larger_variance_of_the_largest_label_count_is_used() -> None:
    calm = ask(pilot({200: [0.05, 0.05], 400: [0.04, 0.06]}), test_rows=10**6).gain
    even = ask(pilot({200: [0.04, 0.06], 400: [0.04, 0.06]}), test_rows=10**6).gain
    wild = ask(pilot({200: [0.0, 0.1], 400: [0.04, 0.06]}), test_rows=10**6).gain
    assert calm is not None
    assert even is not None
    assert wild is not None
    assert calm.low == pytest.approx(even.low)
    assert wild.low < even.low


fractions = st.integers(-100, 300).map(lambda wins: wins / ROWS)
label_counts = st.sampled_from([(200, 400), (100, 200, 400), (400,), (800, LABELS), (LABELS,)])
pilots = label_counts.flatmap(
    lambda counts: st.fixed_dictionaries({count: st.lists(fractions, min_size=1, max_size=4) for count in counts})
)


@QUICK
@given(pilots, st.integers(1, 100), st.booleans())
def test_larger_gain_stays_worth_it(gains: dict[int, list[float]], wins: int, everywhere: bool) -> None:
    largest = max(gains)
    larger = {
        count: [gain + wins / ROWS * (everywhere or count == largest) for gain in each] for count, each in gains.items()
    }
    if ask(pilot(gains)).decision == "worth it":
        assert ask(pilot(larger)).decision == "worth it"


@QUICK
@given(pilots, st.lists(fractions, min_size=4, max_size=4), st.floats(1, 20), st.floats(0, 0.1))
def test_wider_spread_never_decides(
    gains: dict[int, list[float]], shifts: list[float], factor: float, margin: float
) -> None:
    def widened(each: Sequence[float]) -> list[float]:
        middle = float(np.mean(each))
        return [middle + (value - middle) * factor for value in each]

    runs = pilot(gains, shifts, probe=0.5)
    wide = pilot({count: widened(each) for count, each in gains.items()}, shifts, probe=0.5)
    possible = all(0 <= run.finetuned <= 1 for run in wide)
    if possible and ask(runs, shift_margin=margin).decision == "can't tell yet":
        assert ask(wide, shift_margin=margin).decision == "can't tell yet"


@QUICK
@given(pilots, st.floats(0, 0.2), st.integers(50, 10_000))
def test_verdict_is_consistent(gains: dict[int, list[float]], min_gain: float, rows: int) -> None:
    verdict = ask(pilot(gains), min_gain=min_gain, test_rows=rows)
    assert verdict.gain is not None
    assert -1 <= verdict.gain.low <= verdict.gain.value <= verdict.gain.high <= 1
    assert verdict.evidence
    assert verdict.would_change
    if verdict.decision == "worth it":
        assert verdict.gain.low > min_gain
    if verdict.decision == "not worth it":
        assert min(verdict.ceiling.high, verdict.gain.high) <= min_gain


RUN = PilotRun(400, 0, 0.8, 0.82, 60.0)


@pytest.mark.parametrize(
    ("runs", "options", "message"),
    [
        ([RUN, RUN], {}, "the run on 400 labels with seed 0 is given twice"),
        ([replace(RUN, labels=1601)], {}, "1601 labels with seed 0 must have 1 to total_labels=1600 labels"),
        ([replace(RUN, finetuned=82.0)], {}, r"accuracies must be in \[0, 1\], got 82.0 for the run on 400 labels"),
        ([replace(RUN, probe=float("nan"))], {}, "got nan for"),
        ([replace(RUN, seconds=-1.0)], {}, "must be finite and >= 0, got -1.0 and None for"),
        ([replace(RUN, paired_counts=(1, 2, 3, 4))], {}, r"sum to test_rows=2000, got \(1, 2, 3, 4\)"),
        ([replace(RUN, shifted_probe=0.5)], {}, "for both learners of all runs, or for none"),
        (
            [replace(RUN, shifted_probe=0.5, shifted_finetuned=0.5), replace(RUN, seed=1)],
            {},
            "of all runs, or for none",
        ),
        ([], {"total_labels": 0}, "total_labels must be >= 1, got 0"),
        ([], {"test_rows": 0}, "test_rows must be >= 1, got 0"),
        ([], {"shifted_rows": 0}, "shifted_rows must be >= 1, got 0"),
        ([], {"min_gain": 1.0}, r"min_gain must be in \[0, 1\), got 1.0"),
        ([], {"shift_margin": -0.1}, r"shift_margin must be in \[0, 1\), got -0.1"),
        ([], {"probe_accuracy": Estimate(0.9, 0.95, 0.99)}, "probe_accuracy must be in .* within its interval"),
    ],
)
def test_bad_arguments_are_refused(runs: list[PilotRun], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ask(runs, **options)
