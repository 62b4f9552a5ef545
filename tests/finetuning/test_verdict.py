"""Every branch of the verdict's rule, what it must never do, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from embedpipe.errors import UsageError
from embedpipe.finetuning.advice.verdict import DecidingRun, Verdict, judge, rough_duration
from embedpipe.finetuning.benchmark.paired_runs import PilotRun
from embedpipe.statistics import Estimate, paired_interval

QUICK = settings(max_examples=150, deadline=None)
ROWS, LABELS = 2000, 1600
PROBE = Estimate(0.85, 0.83, 0.87)


def pilot(
    gains: dict[int, Sequence[float]], shifts: Sequence[float] | None = None, probe: float = 0.8, **fields: Any
) -> list[PilotRun]:
    runs = []
    for labels, each in gains.items():
        for seed, gain in enumerate(each):
            shifted = {} if shifts is None else {"shifted_probe": 0.6, "shifted_tuned": 0.6 + shifts[seed]}
            runs.append(PilotRun(labels, seed, probe, probe + gain, 0.6 * labels, **shifted, **fields))
    return runs


def ask(runs: list[PilotRun], **how: Any) -> Verdict:
    return judge(runs, **{"probe_at_full": PROBE, "labels_at_full": LABELS, "test_rows": ROWS, **how})


def test_worth_it() -> None:
    said = ask(pilot({200: [0.05, 0.054], 400: [0.06, 0.064]}))
    assert said.decision == "worth it"
    assert said.gain is not None
    assert said.gain.value == pytest.approx(0.062)
    assert said.gain.low > 0.01
    assert said.trend is not None
    assert said.trend.value == pytest.approx(0.01)
    assert said.minutes == pytest.approx(0.6 * LABELS / 60)
    assert said.gain_per_minute == pytest.approx(0.062 / 16)
    assert said.deciding_run is None
    assert any("No shifted data were measured" in line for line in said.evidence)
    assert any("Shifted data" in line for line in said.would_change)
    assert any("+6.2 points" in line for line in said.evidence)


def test_ceiling_decides_without_a_pilot_and_against_one() -> None:
    near = Estimate(0.994, 0.991, 0.996)
    said = ask([], probe_at_full=near)
    assert said.decision == "not worth it"
    assert said.ceiling == Estimate(pytest.approx(0.006), pytest.approx(0.004), pytest.approx(0.009))
    assert said.gain is said.trend is said.shift is said.minutes is said.deciding_run is None
    assert "at most the 1.0 point asked for" in said.evidence[0]
    assert ask(pilot({200: [0.05] * 2, 400: [0.06] * 2}), probe_at_full=near).decision == "not worth it"
    assert ask([], probe_at_full=replace(near, low=0.98)).decision == "can't tell yet"


def test_without_a_pilot_it_asks_for_one() -> None:
    said = ask([], seconds_at_full=960)
    assert said.decision == "can't tell yet"
    assert said.deciding_run == DecidingRun(400, 2, 8.0)
    assert said.minutes == 16
    assert any("pilot" in line for line in said.would_change)
    unknown = ask([])
    assert unknown.deciding_run == DecidingRun(400, 2, None)
    assert unknown.minutes is None


def test_pilot_that_reached_all_labels() -> None:
    none = ask(pilot({800: [0.0, 0.001, 0.0], LABELS: [-0.03, -0.029, -0.03]}))
    assert none.decision == "not worth it"
    assert none.gain is not None
    assert none.gain.high <= 0.01
    # One size is enough there, as nothing is carried further.
    assert ask(pilot({LABELS: [0.06, 0.06, 0.061]})).decision == "worth it"
    open_yet = ask(pilot({LABELS: [0.01, 0.014, 0.02]}))
    assert open_yet.decision == "can't tell yet"
    assert any("More held-out rows" in line for line in open_yet.would_change)


def test_small_gain_before_all_labels_is_no_proof_that_there_is_none() -> None:
    said = ask(pilot({200: [-0.05, -0.051, -0.05], 400: [-0.05, -0.051, -0.05]}))
    assert said.gain is not None
    assert said.gain.high < 0
    assert said.decision == "can't tell yet"
    assert said.deciding_run == DecidingRun(LABELS, 2, pytest.approx(32.0))


def test_falling_trend_is_not_worth_it_yet() -> None:
    falling = {200: [0.2, 0.2], 400: [0.15, 0.15]}
    said = ask(pilot(falling))
    assert said.decision == "can't tell yet"
    assert any("takes off 10.0 points" in line for line in said.evidence)
    # A decline of less than the gain asked for is paid for.
    assert ask(pilot({200: [0.1, 0.1], 400: [0.097, 0.097]})).decision == "worth it"
    assert ask(pilot({200: [0.1, 0.1], 400: [0.094, 0.094]})).decision == "can't tell yet"


def test_one_size_shows_no_trend() -> None:
    said = ask(pilot({400: [0.1, 0.1]}))
    assert said.decision == "can't tell yet"
    assert said.trend is None
    assert any("One size only" in line for line in said.evidence)
    assert said.deciding_run == DecidingRun(LABELS, 2, pytest.approx(32.0))


def test_one_seed_says_nothing_of_seeds() -> None:
    said = ask(pilot({200: [0.1], 400: [0.1]}))
    assert said.decision == "can't tell yet"
    assert said.gain == Estimate(pytest.approx(0.1), -1.0, 1.0)
    assert said.trend == Estimate(pytest.approx(0.0, abs=1e-12), -1.0, 1.0)
    assert any("One seed says nothing" in line for line in said.evidence)
    whole = ask(pilot({LABELS: [0.1]}))
    assert whole.deciding_run == DecidingRun(LABELS, 1, pytest.approx(16.0))
    # A spread known from the smaller size is not enough: the largest needs seeds of its own.
    borrowed = ask(pilot({200: [0.1, 0.1, 0.1], 400: [0.1]}))
    assert borrowed.decision == "can't tell yet"
    assert borrowed.deciding_run == DecidingRun(400, 1, pytest.approx(4.0))


def test_shifted_accuracy_must_hold() -> None:
    gains = {200: [0.06, 0.061], 400: [0.06, 0.061]}
    kept = ask(pilot(gains, [0.004, 0.005], shifted_error=0.002))
    assert kept.decision == "worth it"
    assert kept.shift is not None
    assert kept.shift.low > -0.01
    assert len(kept.would_change) == 1
    lost = ask(pilot(gains, [-0.03, -0.03], shifted_error=0.002))
    assert lost.decision == "can't tell yet"
    assert any("LP-FT" in line for line in lost.would_change)
    assert lost.deciding_run == DecidingRun(LABELS, 2, pytest.approx(32.0))
    # Without their pairing, few shifted rows leave the change open.
    assert ask(pilot(gains, [0.004, 0.005]), shifted_rows=300).decision == "can't tell yet"
    assert ask(pilot(gains, [0.004, 0.005]), shifted_rows=100_000).decision == "worth it"


def test_more_seeds_are_asked_for_where_they_are_cheaper() -> None:
    said = ask(pilot({200: [0.045, 0.075], 400: [0.045, 0.075]}), test_rows=20_000)
    assert said.decision == "can't tell yet"
    assert said.deciding_run is not None
    assert said.deciding_run.labels == 400
    assert said.deciding_run.minutes == pytest.approx(4.0 * said.deciding_run.seeds)
    assert any("one run on all labels takes about 16 minutes" in line.lower() for line in said.evidence)
    further = pilot({200: [0.045, 0.075], 400: [0.045, 0.075, *[0.06] * said.deciding_run.seeds]})
    assert ask(further, test_rows=20_000).decision == "worth it"


def test_intervals_are_those_described() -> None:
    paired = (1500, 60, 160, 280)
    runs = [
        PilotRun(labels, seed, 0.78, 0.83 + moved, 60, paired=paired)
        for labels in (200, 400)
        for seed, moved in enumerate((-0.003, 0.003))
    ]
    said = ask(runs)
    assert said.gain is not None
    assert said.trend is not None
    variance = 2 * 0.003**2
    low, high = paired_interval(*paired)
    drawn = stats.t.ppf(0.975, 2) ** 2 * variance / 2
    assert said.gain.low == pytest.approx(0.05 - np.sqrt(drawn + (0.05 - low) ** 2))
    assert said.gain.high == pytest.approx(0.05 + np.sqrt(drawn + (high - 0.05) ** 2))
    # Two sizes a doubling apart: the slope is the difference of two means.
    rows = max(0.05 - low, high - 0.05)
    assert said.trend.high == pytest.approx(np.sqrt(2 * drawn + 2 * rows**2))
    # Without pairing, errors are taken as independent, and the interval is wider.
    alone = ask([replace(run, paired=None) for run in runs]).gain
    assert alone is not None
    assert alone.low < said.gain.low


def test_spread_of_the_largest_size_counts_where_it_is_greater() -> None:
    calm = ask(pilot({200: [0.05, 0.05], 400: [0.04, 0.06]}), test_rows=10**6).gain
    even = ask(pilot({200: [0.04, 0.06], 400: [0.04, 0.06]}), test_rows=10**6).gain
    wild = ask(pilot({200: [0.0, 0.1], 400: [0.04, 0.06]}), test_rows=10**6).gain
    assert calm is not None
    assert even is not None
    assert wild is not None
    assert calm.low == pytest.approx(even.low)
    assert wild.low < even.low


shares = st.integers(-100, 300).map(lambda wins: wins / ROWS)
sizes = st.sampled_from([(200, 400), (100, 200, 400), (400,), (800, LABELS), (LABELS,)])
pilots = sizes.flatmap(
    lambda labels: st.fixed_dictionaries({one: st.lists(shares, min_size=1, max_size=4) for one in labels})
)


@QUICK
@given(pilots, st.integers(1, 100), st.booleans())
def test_larger_gain_keeps_it_worth_it(gains: dict[int, list[float]], wins: int, everywhere: bool) -> None:
    largest = max(gains)
    more = {
        size: [gain + wins / ROWS * (everywhere or size == largest) for gain in each] for size, each in gains.items()
    }
    if ask(pilot(gains)).decision == "worth it":
        assert ask(pilot(more)).decision == "worth it"


@QUICK
@given(pilots, st.lists(shares, min_size=4, max_size=4), st.floats(1, 20), st.floats(0, 0.1))
def test_wider_spread_never_decides(
    gains: dict[int, list[float]], shifts: list[float], factor: float, margin: float
) -> None:
    def widened(each: Sequence[float]) -> list[float]:
        middle = float(np.mean(each))
        return [middle + (one - middle) * factor for one in each]

    def keeps(runs: list[PilotRun]) -> bool:
        return all(0 <= run.tuned <= 1 for run in runs)

    runs, wide = (
        pilot(found, shifts, probe=0.5) for found in (gains, {size: widened(each) for size, each in gains.items()})
    )
    if keeps(wide) and ask(runs, shift_margin=margin).decision == "can't tell yet":
        assert ask(wide, shift_margin=margin).decision == "can't tell yet"


@QUICK
@given(pilots, st.floats(0, 0.2), st.integers(50, 10_000))
def test_what_is_said_agrees_with_itself(gains: dict[int, list[float]], min_gain: float, rows: int) -> None:
    said = ask(pilot(gains), min_gain=min_gain, test_rows=rows)
    assert said.gain is not None
    assert -1 <= said.gain.low <= said.gain.value <= said.gain.high <= 1
    assert (said.decision == "can't tell yet") or said.deciding_run is None
    assert said.evidence
    assert said.would_change
    if said.decision == "worth it":
        assert said.gain.low > min_gain
    if said.decision == "not worth it":
        assert min(said.ceiling.high, said.gain.high) <= min_gain
    if said.deciding_run:
        assert said.deciding_run.seeds > 0
        assert said.deciding_run.minutes is not None
        assert said.deciding_run.minutes > 0


RUN = PilotRun(400, 0, 0.8, 0.82, 60.0)


@pytest.mark.parametrize(
    ("runs", "how", "message"),
    [
        ([RUN, RUN], {}, "the run on 400 labels with seed 0 is there twice"),
        ([replace(RUN, labels=1601)], {}, "1601 labels with seed 0 must have 1 to labels_at_full=1600 labels"),
        ([replace(RUN, tuned=82.0)], {}, "has accuracy 82.0: it must be a share"),
        ([replace(RUN, probe=float("nan"))], {}, "has accuracy nan"),
        ([replace(RUN, seconds=-1.0)], {}, "seconds=-1.0, shifted_error=None: they must be finite, 0 or more"),
        ([replace(RUN, paired=(1, 2, 3, 4))], {}, r"\(1, 2, 3, 4\), which do not add up to test_rows=2000"),
        ([replace(RUN, shifted_probe=0.5)], {}, "for both learners of all runs, or for none"),
        ([replace(RUN, shifted_probe=0.5, shifted_tuned=0.5), replace(RUN, seed=1)], {}, "of all runs, or for none"),
        ([], {"labels_at_full": 0}, "labels_at_full must be 1 at least, not 0"),
        ([], {"test_rows": 0}, "test_rows must be 1 at least, not 0"),
        ([], {"shifted_rows": 0}, "shifted_rows must be 1 at least, not 0"),
        ([], {"min_gain": 1.0}, "min_gain is a share of the rows"),
        ([], {"shift_margin": -0.1}, "shift_margin is a share of the rows"),
        ([], {"probe_at_full": Estimate(0.9, 0.95, 0.99)}, "probe_at_full must be a share within its interval"),
    ],
)
def test_bad_input_is_named(runs: list[PilotRun], how: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ask(runs, **how)


def test_no_torch_is_loaded() -> None:
    code = "import sys, embedpipe.finetuning.advice.verdict; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_times_are_told_as_roughly_as_they_are_known() -> None:
    assert [rough_duration(minutes) for minutes in (0.003, 0.6, 1.2, 8.4, 89, 90, 600)] == [
        "less than a minute", "less than a minute", "about 1 minute", "about 8 minutes", "about 89 minutes",
        "about 1.5 hours", "about 10.0 hours",
    ]  # fmt: skip
