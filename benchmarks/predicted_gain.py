"""Does a pilot predict what fine-tuning gains with more labels? Predicted and realised gains of each data set.

    python benchmarks/predicted_gain.py STORE[:COLUMN]... --to FOLDER [--pilot 60 120] [--full 480] [--seeds 3]
                                        [--epochs 5] [--learning-rate 3e-4] [--weights FILE] [--json FILE]

For each store of images: a pilot (lp-ft and linear-probe, at two label counts, every seed) and the verdict of `judge`
(finetuning/advice/verdict.py) from the pilot alone, with the probe at ``--full`` labels as its ceiling; then the same
two learners at that size, which the verdict does not know. Predicted: the pilot's gain at its largest size, and that
gain extrapolated by its trend. Realised: lp-ft minus linear-probe, the mean over seeds with its 95 % interval. A
verdict is *right* if it is "worth it" and at least one point is gained, or "not worth it" and less is gained; *wrong*
in the opposite cases; *open* if it is "can't tell yet".

All results are kept in FOLDER, and an interrupted run continues there.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
from common import make_parser, points, write_json

import embedpipe
from embedpipe.finetuning.advice.pilot import LEARNERS, pilot_runs
from embedpipe.finetuning.advice.verdict import judge
from embedpipe.finetuning.benchmark.paired_runs import PilotRun, summarise_runs
from embedpipe.statistics import Estimate, wilson

MIN_GAIN = 0.01
OUTCOMES = ("right", "wrong", "open")


def run_learners(
    store: embedpipe.FeatureStore, label: str, folder: Path, options: argparse.Namespace
) -> tuple[list[PilotRun], int]:
    """Return the paired runs of lp-ft and linear-probe at all label counts, and the number of test rows."""
    weights: dict[str, Any] = {}
    if store.spec.provider == "checkpoint":
        if options.weights is None:
            raise SystemExit(f"{store.path} was embedded with a checkpoint. Give its file with --weights")
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


def measure(path: str, label: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the verdict on the pilot of a store, the predicted gains, and the realised gain."""
    name = f"{Path(path).stem}-{label}"
    runs, test_rows = run_learners(embedpipe.FeatureStore(path), label, options.to / name, options)
    full = [run for run in runs if run.labels == options.full]
    pilot = [run for run in runs if run.labels != options.full]
    probe = float(np.mean([run.probe for run in full]))
    verdict = judge(
        pilot,
        probe_accuracy=Estimate(*wilson(round(probe * test_rows), test_rows)),
        total_labels=options.full,
        test_rows=test_rows,
        min_gain=MIN_GAIN,
    )
    realised = summarise_runs(full, options.full, test_rows, test_rows).gain.interval()
    assert verdict.gain is not None
    trend = verdict.trend.value * math.log2(options.full / max(options.pilot)) if verdict.trend else 0.0
    if verdict.decision == "can't tell yet":
        outcome = "open"
    else:
        outcome = "right" if (verdict.decision == "worth it") == (realised.value >= MIN_GAIN) else "wrong"
    return {
        "data": Path(path).stem,
        "label": label,
        "probe": probe,
        "verdict": verdict.decision,
        "outcome": outcome,
        "predicted": verdict.gain.value,
        "predicted interval": in_points(verdict.gain),
        "with its trend": verdict.gain.value + trend,
        "realised": realised.value,
        "realised interval": in_points(realised),
    }


def in_points(difference: Estimate) -> str:
    """Return a difference with its interval, in percentage points."""
    return points(difference.value, difference.low, difference.high)


def main() -> None:
    """Measure, and print a table."""
    parser = make_parser(__doc__)
    parser.add_argument("stores", nargs="+", metavar="STORE[:COLUMN]", help="stores, and their label columns (label)")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="folder of the results")
    parser.add_argument(
        "--pilot", type=int, nargs=2, default=[60, 120], help="the two label counts of the pilot (60 and 120)"
    )
    parser.add_argument("--full", type=int, default=480, help="labels of the realised gain (default: 480)")
    parser.add_argument("--seeds", type=int, default=3, help="draws of the labels (default: 3)")
    parser.add_argument("--epochs", type=int, default=5, help="epochs of each training (default: 5)")
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="peak learning rate (default: 3e-4)")
    parser.add_argument("--weights", type=Path, help="weights of stores that were embedded with a checkpoint")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in options.stores:
        path, _, label = name.partition(":")
        row = measure(path, label or "label", options)
        if not rows:
            print("| data, label | probe | predicted | with its trend | verdict | realised | outcome |")
            print("| --- | ---: | ---: | ---: | --- | ---: | --- |")
        rows.append(row)
        print(
            f"| {row['data']}, {row['label']} | {100 * row['probe']:.1f} % | {row['predicted interval']} | "
            f"{100 * row['with its trend']:+.1f} | {row['verdict']} | {row['realised interval']} | {row['outcome']} |",
            flush=True,
        )
    print("\n" + ", ".join(f"{sum(row['outcome'] == word for row in rows)} {word}" for word in OUTCOMES))
    write_json(options, rows)


if __name__ == "__main__":
    main()
