"""How often is the verdict on fine-tuning wrong, what does it see, and what does it say of others' published results?

    python benchmarks/verdict_rule.py [--simulations 10000] [--json FILE]

1. Pilots of two sizes, a quarter of the labels the larger, whose true gain is exactly the one asked for, 1 point, at
both: each *worth it* is a false one. Held-out rows are drawn for each pilot and shared by its sizes and seeds; each run
then moves by a normal amount of the given standard deviation ("spread"; "t3" has heavy tails, "grows" is three times as
wide at the larger size, "shrinks" at the smaller). "interval" is how often the gain's lower bound alone is above the
true gain: 2.5 % if the interval is right. "alone" is a spread that only the larger size has, which breaks
what pooling rests on: it is shown, and not held to the limit. "full" is a pilot that reached all labels: *not worth it*
is then false too, as a gain is only just out of reach. "ceiling" has no pilot and a probe that gets 1.01 % wrong.

2. The share of *worth it* where fine-tuning gains 2, 3 and 5 points, at both sizes.

3. `data/probe_and_finetuned.csv`: accuracies that others published of linear probes and fine-tuned networks at 1, 10
and 100 % of the labels (the column ``labels``). The rule sees 1 and 10 %, and the probe at 100 %. Its verdict is right
if fine-tuning then gains more than 1 point at 100 % and it said *worth it*, or does not and it said *not worth it*.
Where seeds' own gains are published (``gains``) they are taken; else two seeds are made up whose standard deviation is
the one in the first column. Where held-out rows are not published, 1,000 are assumed.
"""

from __future__ import annotations

import csv
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import make_parser, write_json

from embedpipe.finetuning.advice.verdict import Verdict, judge
from embedpipe.finetuning.benchmark.paired_runs import PilotRun
from embedpipe.statistics import Estimate, wilson

MIN_GAIN = 0.01
PUBLISHED = Path(__file__).parent / "data" / "probe_and_finetuned.csv"
UNKNOWN_ROWS = 1000
#: Share of false verdicts that no setting may exceed.
LIMIT = 0.05
#: How wide the spread is at either size.
SCALES = {"grows": np.array([1 / 3, 1]), "shrinks": np.array([3, 1]), "alone": np.array([0, 1])}
GAINS = (0.02, 0.03, 0.05)


@dataclass(frozen=True)
class Setting:
    """Seeds a size, held-out rows, standard deviation of a run, its kind, the probe's accuracy, rows one has wrong."""

    seeds: int = 2
    rows: int = 1000
    spread: float = 0.01
    kind: str = "normal"
    probe: float = 0.85
    apart: float = 0.10
    full: bool = False


SETTINGS = (
    Setting(spread=0.0025),
    Setting(spread=0.005),
    Setting(),
    Setting(spread=0.02),
    Setting(seeds=3),
    Setting(seeds=5),
    Setting(rows=200),
    Setting(rows=10_000),
    Setting(rows=10_000, spread=0.0025),
    Setting(probe=0.96, apart=0.03, spread=0.003),
    Setting(rows=10_000, kind="t3"),
    Setting(rows=10_000, kind="grows"),
    Setting(rows=10_000, kind="grows", seeds=3),
    Setting(rows=10_000, kind="shrinks"),
    Setting(rows=10_000, kind="alone"),
    Setting(rows=1_000_000, kind="alone"),
    Setting(rows=1_000_000, kind="alone", seeds=3),
    Setting(rows=10_000, full=True),
    Setting(rows=10_000, kind="grows", full=True),
)
POWER = (
    Setting(rows=1000, spread=0.0025),
    Setting(rows=1000, spread=0.005),
    Setting(rows=1000, spread=0.005, seeds=3),
    Setting(rows=3000, spread=0.005, seeds=3),
    Setting(rows=3000, spread=0.01, seeds=3),
    Setting(rows=3000, spread=0.01, seeds=5),
    Setting(rows=10_000, spread=0.005, seeds=5),
)


def pilots(setting: Setting, gain: float, simulations: int, rng: np.random.Generator) -> Iterator[list[PilotRun]]:
    """Yield pilots of 2 sizes; 16 labels are all there are, as only the ratio of sizes matters."""
    sizes = (8, 16) if setting.full else (2, 4)
    only_probe, only_tuned = (setting.apart - gain) / 2, (setting.apart + gain) / 2
    both = setting.probe - only_probe
    cells = rng.multinomial(setting.rows, (both, only_probe, only_tuned, 1 - both - setting.apart), simulations)
    shape = (simulations, 2, setting.seeds)
    moves = rng.standard_t(3, shape) / np.sqrt(3) if setting.kind == "t3" else rng.standard_normal(shape)
    scale = SCALES.get(setting.kind, np.ones(2))
    moved = np.rint(moves * setting.spread * scale[:, None] * setting.rows).astype(int)
    # Rows that the tuned network wins come from those that neither had right, rows that it loses from its own.
    won = np.minimum(np.maximum(moved, 0), cells[:, 3, None, None])
    lost = np.maximum(-moved, 0)
    own = np.minimum(lost, cells[:, 2, None, None])
    a, b, c = cells[:, 0, None, None] - (lost - own), cells[:, 1, None, None] + (lost - own), cells[:, 2, None, None]
    counts = np.stack([a, b, c + won - own, cells[:, 3, None, None] - won + own], axis=-1).tolist()
    for each in counts:
        yield [
            PilotRun(
                size,
                seed,
                (paired[0] + paired[1]) / setting.rows,
                (paired[0] + paired[2]) / setting.rows,
                60.0,
                paired_counts=tuple(paired),
            )
            for size, seeds in zip(sizes, each, strict=True)
            for seed, paired in enumerate(seeds)
        ]


def simulate(setting: Setting, gain: float, simulations: int, seed: int) -> dict[str, Any]:
    """Return how often each decision is made, and how often the interval of the gain is above or below it."""
    decisions: Counter[str] = Counter()
    above = below = 0
    for runs in pilots(setting, gain, simulations, np.random.default_rng(seed)):
        verdict = judge(
            runs,
            probe_accuracy=Estimate(setting.probe, setting.probe - 0.02, setting.probe + 0.02),
            total_labels=16,
            test_rows=setting.rows,
            min_gain=MIN_GAIN,
        )
        decisions[verdict.decision] += 1
        assert verdict.gain is not None
        above += verdict.gain.low > gain
        below += verdict.gain.high < gain
    shares = {name: wilson(decisions[name], simulations) for name in ("worth it", "not worth it", "can't tell yet")}
    return {**shares, "interval above": above / simulations, "interval below": below / simulations}


def false_ceiling(simulations: int, seed: int) -> float:
    """Return how often the probe's upper bound calls a gain impossible that is only just possible."""
    false = 0
    for rows in (1000, 10_000):
        wrong = np.random.default_rng(seed).binomial(rows, MIN_GAIN + 0.0001, simulations)
        share = 0
        for count, times in zip(*np.unique(wrong, return_counts=True), strict=True):
            probe = Estimate(*wilson(rows - int(count), rows))
            decision = judge([], probe_accuracy=probe, total_labels=16, test_rows=rows, min_gain=MIN_GAIN).decision
            share += int(times) * (decision == "not worth it")
        false = max(false, share)
    return false / simulations


def published() -> list[list[dict[str, str]]]:
    """Return the rows of the table, those of one backbone on one data set together."""
    cells: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    with PUBLISHED.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            cells.setdefault((row["source"], row["dataset"], row["backbone"]), []).append(row)
    return list(cells.values())


def published_runs(row: dict[str, str], spread: float) -> list[PilotRun]:
    """Return the runs of one size: those published, or two whose gains have the given standard deviation."""
    probe = float(row["probe"]) / 100
    gain = float(row["tuned"]) / 100 - probe
    aside = spread / np.sqrt(2)
    gains = [float(one) / 100 for one in row["gains"].split()] or [gain - aside, gain + aside]
    return [
        PilotRun(int(row["labels"]), seed, probe, min(max(probe + one, 0.0), 1.0), 60.0)
        for seed, one in enumerate(gains)
    ]


def say(cell: list[dict[str, str]], spread: float) -> tuple[Verdict, float]:
    """Return the verdict on a cell from its smaller sizes, and the gain at the largest."""
    *pilot, full = sorted(cell, key=lambda row: int(row["labels"]))
    rows = int(full["test_rows"] or UNKNOWN_ROWS)
    verdict = judge(
        [run for row in pilot for run in published_runs(row, spread)],
        probe_accuracy=Estimate(*wilson(round(float(full["probe"]) / 100 * rows), rows)),
        total_labels=int(full["labels"]),
        test_rows=rows,
        min_gain=MIN_GAIN,
    )
    return verdict, round(float(full["tuned"]) - float(full["probe"]), 6) / 100


def count(cells: list[list[dict[str, str]]], spread: float) -> dict[str, int]:
    """Return how many verdicts are right, wrong, and abstentions where fine-tuning paid and where it did not."""
    counts = dict.fromkeys(
        (
            "worth it, right",
            "worth it, wrong",
            "not worth it, right",
            "not worth it, wrong",
            "abstained, paid",
            "abstained, did not pay",
        ),
        0,
    )
    for cell in cells:
        verdict, realised = say(cell, spread)
        pays = realised > MIN_GAIN
        if verdict.decision == "can't tell yet":
            counts["abstained, paid" if pays else "abstained, did not pay"] += 1
        else:
            right = (verdict.decision == "worth it") == pays
            counts[f"{verdict.decision}, {'right' if right else 'wrong'}"] += 1
    return counts


def shown(share: tuple[float, float, float]) -> str:
    """Return a share with its interval, in percent."""
    return f"{100 * share[0]:.2f} ({100 * share[1]:.2f}-{100 * share[2]:.2f})"


def named(setting: Setting) -> str:
    """Return what is drawn, in short."""
    name = f"{setting.seeds} seeds, {setting.rows:,} rows, spread {100 * setting.spread:g}"
    name += "" if setting.kind == "normal" else f" {setting.kind}"
    return name + (f", probe {setting.probe:g}" if setting.probe != 0.85 else "") + (", full" if setting.full else "")


def main() -> int:
    """Measure, print, and exit with 1 if a limit is missed."""
    parser = make_parser(__doc__)
    parser.add_argument("--simulations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.perf_counter()
    results: list[dict[str, Any]] = []
    print(f"false verdicts at a gain of exactly {100 * MIN_GAIN:g} point, in percent of {options.simulations:,} pilots")
    print(f"{'':<46}{'worth it':<20}{'not worth it':<20}interval above, below the gain")
    worst = 0.0
    for setting in SETTINGS:
        measured = simulate(setting, MIN_GAIN, options.simulations, options.seed)
        if setting.kind != "alone":
            worst = max(worst, measured["worth it"][0], measured["not worth it"][0])
        results.append({"question": "false", "gain": MIN_GAIN, **asdict(setting), **measured})
        sides = f"{100 * measured['interval above']:.2f}, {100 * measured['interval below']:.2f}"
        print(
            f"{named(setting):<46}{shown(measured['worth it']):<20}{shown(measured['not worth it']):<20}{sides}",
            flush=True,
        )
    ceiling = false_ceiling(options.simulations, options.seed)
    worst = max(worst, ceiling)
    print(f"{'ceiling':<66}{100 * ceiling:.2f}")
    simulations = max(options.simulations // 5, 1)
    print(f"\n*worth it*, in percent of {simulations:,} pilots, at a gain of")
    print(f"{'':<46}" + "".join(f"{f'{100 * gain:g} points':<12}" for gain in GAINS))
    for setting in POWER:
        shares = [simulate(setting, gain, simulations, options.seed + 1)["worth it"] for gain in GAINS]
        results += [
            {"question": "power", "gain": gain, **asdict(setting), "worth it": share}
            for gain, share in zip(GAINS, shares, strict=True)
        ]
        print(f"{named(setting):<46}" + "".join(f"{100 * share[0]:<12.1f}" for share in shares), flush=True)
    cells = published()
    pays = sum(say(cell, 0.01)[1] > MIN_GAIN for cell in cells)
    print(f"\npublished: {len(cells)} pairs of data set and backbone; fine-tuning gains over 1 point on {pays} of them")
    for spread in (0.0025, 0.005, 0.01, 0.02):
        found_here = count(cells, spread)
        results.append({"question": "published", "spread": spread, **found_here})
        print(f"spread {100 * spread:g}: " + "; ".join(f"{name} {number}" for name, number in found_here.items()))
    for cell in cells:
        verdict, realised = say(cell, 0.01)
        assert verdict.gain is not None
        assert verdict.trend is not None
        row = cell[0]
        print(
            f"  {row['dataset']:<12}{row['backbone'][:52]:<54}{100 * verdict.gain.value:>+7.1f} at 10 %, "
            f"{100 * realised:>+6.1f} at 100 %: {verdict.decision}"
        )
    print(f"{'most false verdicts':<46}{100 * worst:.2f}, at most {100 * LIMIT:g}: {'yes' if worst <= LIMIT else 'NO'}")
    print(f"{time.perf_counter() - start:.0f} s")
    about = {"simulations": options.simulations, "min_gain": MIN_GAIN, "false ceiling": ceiling, "results": results}
    write_json(options, about)
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
