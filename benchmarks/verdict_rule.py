"""How often is the verdict on fine-tuning wrong, what does it detect, and does it agree with published results?

    python benchmarks/verdict_rule.py [--simulations 10000] [--seed 0] [--json FILE]

1. Pilots of two sizes, of which the larger has a quarter of the labels, and whose true gain is exactly the minimum
gain, 1 point, at both: each *worth it* is then false. Held-out rows are drawn for each pilot and shared by its sizes
and seeds; the accuracy of each run is then moved by a normal amount of the given standard deviation ("spread"; "t3" has
heavy tails, "grows" is three times as wide at the larger size, "shrinks" at the smaller). "interval" is how often the
gain's lower bound alone is above the true gain: 2.5 % if the interval is right. "alone" is a spread at the larger size
only, which breaks the assumption behind pooling: it is printed, but the limit does not apply. "full" is a pilot that
reached all labels: *not worth it* is then false too, as the minimum gain is still just possible. "ceiling" has no
pilot, and a probe with an error of 1.01 %.

2. The share of *worth it* where fine-tuning gains 2, 3 and 5 points, at both sizes.

3. `data/probe_and_finetuned.csv`: published accuracies of linear probes and fine-tuned networks at 1, 10 and 100 % of
the labels (the column ``labels``). The rule gets 1 and 10 %, and the probe at 100 %. Its verdict is right if
fine-tuning gains more than 1 point at 100 % and the verdict is *worth it*, or it does not and the verdict is *not worth
it*. Where the gains of the seeds are published (``gains``) they are used; otherwise two seeds are assumed whose
standard deviation is in the first column. Where the number of held-out rows is not published, 1,000 are assumed.

The exit code is 1 if a setting has more false verdicts than the limit.
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
#: Upper limit of the share of false verdicts in a setting.
LIMIT = 0.05
#: Factor of the spread at each of the two sizes.
SCALES = {"grows": np.array([1 / 3, 1]), "shrinks": np.array([3, 1]), "alone": np.array([0, 1])}
GAINS = (0.02, 0.03, 0.05)


@dataclass(frozen=True)
class Setting:
    """A simulated pilot.

    Seeds per size, held-out rows, standard deviation of a run and its kind, accuracy of the probe, share of the rows
    that only one of the two classifies correctly, and whether the pilot reached all labels.
    """

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
    """Yield pilots of two sizes. There are 16 labels in total, as only the ratio of the sizes matters."""
    sizes = (8, 16) if setting.full else (2, 4)
    only_probe, only_tuned = (setting.apart - gain) / 2, (setting.apart + gain) / 2
    both = setting.probe - only_probe
    cells = rng.multinomial(setting.rows, (both, only_probe, only_tuned, 1 - both - setting.apart), simulations)
    shape = (simulations, 2, setting.seeds)
    moves = rng.standard_t(3, shape) / np.sqrt(3) if setting.kind == "t3" else rng.standard_normal(shape)
    scale = SCALES.get(setting.kind, np.ones(2))
    moved = np.rint(moves * setting.spread * scale[:, None] * setting.rows).astype(int)
    # Rows that the network gains were wrong in both. Rows that it loses were right in it alone, then right in both.
    won = np.minimum(np.maximum(moved, 0), cells[:, 3, None, None])
    lost = np.maximum(-moved, 0)
    lost_alone = np.minimum(lost, cells[:, 2, None, None])
    a, b, c = (
        cells[:, 0, None, None] - (lost - lost_alone),
        cells[:, 1, None, None] + (lost - lost_alone),
        cells[:, 2, None, None],
    )
    counts = np.stack([a, b, c + won - lost_alone, cells[:, 3, None, None] - won + lost_alone], axis=-1).tolist()
    for pilot in counts:
        yield [
            PilotRun(
                size,
                seed,
                (paired[0] + paired[1]) / setting.rows,
                (paired[0] + paired[2]) / setting.rows,
                60.0,
                paired_counts=tuple(paired),
            )
            for size, seeds in zip(sizes, pilot, strict=True)
            for seed, paired in enumerate(seeds)
        ]


def simulate(setting: Setting, gain: float, simulations: int, seed: int) -> dict[str, Any]:
    """Return the share of each decision, and how often the interval of the gain is above or below the true gain."""
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
    """Return how often the ceiling gives *not worth it* though the minimum gain is just possible."""
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
    """Return the rows of the table, grouped by backbone and data set."""
    cells: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    with PUBLISHED.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            cells.setdefault((row["source"], row["dataset"], row["backbone"]), []).append(row)
    return list(cells.values())


def published_runs(row: dict[str, str], spread: float) -> list[PilotRun]:
    """Return the runs of one size: those published, or two whose gains have the given spread."""
    probe = float(row["probe"]) / 100
    gain = float(row["tuned"]) / 100 - probe
    deviation = spread / np.sqrt(2)
    gains = [float(value) / 100 for value in row["gains"].split()] or [gain - deviation, gain + deviation]
    return [
        PilotRun(int(row["labels"]), seed, probe, min(max(probe + value, 0.0), 1.0), 60.0)
        for seed, value in enumerate(gains)
    ]


def judge_cell(cell: list[dict[str, str]], spread: float) -> tuple[Verdict, float]:
    """Return the verdict on a cell from its smaller sizes, and the realised gain at the largest."""
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


def count_verdicts(cells: list[list[dict[str, str]]], spread: float) -> dict[str, int]:
    """Return the number of right, wrong and open verdicts, by whether fine-tuning paid."""
    decided = [f"{decision}, {word}" for decision in ("worth it", "not worth it") for word in ("right", "wrong")]
    counts = dict.fromkeys((*decided, "open, paid", "open, did not pay"), 0)
    for cell in cells:
        verdict, realised = judge_cell(cell, spread)
        pays = realised > MIN_GAIN
        if verdict.decision == "can't tell yet":
            counts["open, paid" if pays else "open, did not pay"] += 1
        else:
            right = (verdict.decision == "worth it") == pays
            counts[f"{verdict.decision}, {'right' if right else 'wrong'}"] += 1
    return counts


def in_percent(share: tuple[float, float, float]) -> str:
    """Return a share with its interval, in percent."""
    return f"{100 * share[0]:.2f} ({100 * share[1]:.2f}-{100 * share[2]:.2f})"


def name_of(setting: Setting) -> str:
    """Return a short name of a setting."""
    name = f"{setting.seeds} seeds, {setting.rows:,} rows, spread {100 * setting.spread:g}"
    name += "" if setting.kind == "normal" else f" {setting.kind}"
    return name + (f", probe {setting.probe:g}" if setting.probe != 0.85 else "") + (", full" if setting.full else "")


def main() -> int:
    """Measure and print; return 1 if the limit is missed."""
    parser = make_parser(__doc__)
    parser.add_argument("--simulations", type=int, default=10_000, help="pilots per setting (default: 10,000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything that is drawn (default: 0)")
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
        decisions = "".join(f"{in_percent(measured[name]):<20}" for name in ("worth it", "not worth it"))
        print(
            f"{name_of(setting):<46}{decisions}{sides}",
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
        print(f"{name_of(setting):<46}" + "".join(f"{100 * share[0]:<12.1f}" for share in shares), flush=True)
    cells = published()
    pays = sum(judge_cell(cell, 0.01)[1] > MIN_GAIN for cell in cells)
    print(f"\npublished: {len(cells)} pairs of data set and backbone; fine-tuning gains over 1 point on {pays} of them")
    for spread in (0.0025, 0.005, 0.01, 0.02):
        counts = count_verdicts(cells, spread)
        results.append({"question": "published", "spread": spread, **counts})
        print(f"spread {100 * spread:g}: " + "; ".join(f"{name} {number}" for name, number in counts.items()))
    for cell in cells:
        verdict, realised = judge_cell(cell, 0.01)
        assert verdict.gain is not None
        assert verdict.trend is not None
        row = cell[0]
        print(
            f"  {row['dataset']:<12}{row['backbone'][:52]:<54}{100 * verdict.gain.value:>+7.1f} at 10 %, "
            f"{100 * realised:>+6.1f} at 100 %: {verdict.decision}"
        )
    print(f"{'most false verdicts':<46}{100 * worst:.2f}, at most {100 * LIMIT:g}: {'yes' if worst <= LIMIT else 'NO'}")
    print(f"{time.perf_counter() - start:.0f} s")
    summary = {"simulations": options.simulations, "min_gain": MIN_GAIN, "false ceiling": ceiling, "results": results}
    write_json(options, summary)
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
