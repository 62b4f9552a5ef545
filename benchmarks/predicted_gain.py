"""Does a pilot foretell what fine-tuning gains with more labels? Predicted and realised gains, data set by data set.

    python benchmarks/predicted_gain.py STORE[:COLUMN]... --to FOLDER [--pilot 60 120] [--full 480] [--seeds 3]
                                        [--epochs 5] [--learning-rate 3e-4]

For each store of images: a pilot (lp-ft and linear-probe, at two label counts, every seed) and the verdict of
`judge` (finetuning/advice/verdict.py) from it alone, with the probe at ``--full`` labels as its ceiling; then
the same two learners at that size, which the verdict has not seen. Predicted: the pilot's gain at its largest size, and
that carried on by its trend. Realised: lp-ft minus linear-probe, mean over seeds with its 95 % interval. A verdict is
*right* where it says "worth it" and at least one point is gained, or "not worth it" and less is; *wrong* the other way
round; *open* where it cannot tell yet.

Everything is kept in FOLDER: a run that is stopped goes on.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
from common import make_parser, write_json

import embedpipe
from embedpipe.finetuning.advice.pilot import LEARNERS, pilot_runs
from embedpipe.finetuning.advice.verdict import judge
from embedpipe.finetuning.benchmark.paired_runs import PilotRun, summarise_runs
from embedpipe.statistics import Estimate
from embedpipe.statistics.paired import wilson

MIN_GAIN = 0.01


def run(store: str, label: str, folder: Path, options: argparse.Namespace) -> tuple[list[PilotRun], int]:
    """Return the pairs of lp-ft and linear-probe at all label counts, and the number of test rows."""
    weights: dict[str, Any] = {}
    spec = embedpipe.FeatureStore(store).spec
    if spec.provider == "checkpoint":
        weights["weights"] = str(options.weights)
    result = embedpipe.benchmark(
        store,
        to=folder,
        label=label,
        learners=LEARNERS,
        label_counts=(*options.pilot, options.full),
        seeds=options.seeds,
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        corruptions=("fog",),
        severities=(3,),
        progress=True,
        **weights,
    )
    return pilot_runs(result), result.test_rows


def main() -> None:
    """Run, and print a table."""
    parser = make_parser(__doc__)
    parser.add_argument("stores", nargs="+")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--pilot", type=int, nargs=2, default=[60, 120])
    parser.add_argument("--full", type=int, default=480)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--weights", type=Path, help="the file of stores that were embedded with a checkpoint")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in options.stores:
        store, _, label = name.partition(":")
        label = label or "label"
        runs, count = run(store, label, options.to / f"{Path(store).stem}-{label}", options)
        full = [run for run in runs if run.labels == options.full]
        pilot = [run for run in runs if run.labels != options.full]
        probe = float(np.mean([run.probe for run in full]))
        verdict = judge(
            pilot,
            probe_accuracy=Estimate(probe, *wilson(round(probe * count), count)[-2:]),
            total_labels=options.full,
            test_rows=count,
            min_gain=MIN_GAIN,
        )
        realised = summarise_runs(full, options.full, count, count).gain.interval()
        assert verdict.gain is not None
        trend = verdict.trend.value * math.log2(options.full / max(options.pilot)) if verdict.trend else 0.0
        worth = {"worth it": True, "not worth it": False}.get(verdict.decision)
        judged = "open" if worth is None else "right" if worth == (realised.value >= MIN_GAIN) else "wrong"
        gains = {
            "predicted": verdict.gain.value,
            "with its trend": verdict.gain.value + trend,
            "realised": realised.value,
        }
        rows.append({"data": Path(store).stem, "label": label, "verdict": verdict.decision, "judged": judged, **gains})
        if len(rows) == 1:
            print("| data, label | probe | predicted | with its trend | verdict | realised | |")
            print("| --- | ---: | ---: | ---: | --- | ---: | --- |")
        print(
            f"| {Path(store).stem}, {label} | {100 * probe:.1f} % | {points(verdict.gain)} | "
            f"{100 * (verdict.gain.value + trend):+.1f} | {verdict.decision} | {points(realised)} | {judged} |",
            flush=True,
        )
    print(
        "\n" + ", ".join(f"{sum(row['judged'] == word for row in rows)} {word}" for word in ("right", "wrong", "open"))
    )
    write_json(options, rows)


def points(difference: Estimate) -> str:
    """Write a difference with its interval, in percentage points."""
    return f"{100 * difference.value:+.1f} ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"


if __name__ == "__main__":
    main()
