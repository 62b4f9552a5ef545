"""What does transfer give? Learning curves of four learners on real photos, small enough for a processor.

    python benchmarks/transfer.py --to FOLDER [--data clothing elpv] [--side 128] [--label-counts 100 400] [--seeds 5]
                                  [--epochs 5] [--learning-rate 3e-4]

EfficientNet-Lite0 at 128 pixels, on clothing (its own splits) and on elpv's solar cells (near-duplicates together): a
head on frozen features, the network that begins with it, one with a random head, and one with random weights, at each
number of labels, on the same draws and test rows, as they are and under three corruptions at severity 3 (last column:
lp-ft minus finetune there). Last, lp-ft minus finetune over all data sets and numbers of labels: the mean of the draws'
differences, with the interval of a t over the draws, each of them a mean over the cells.

Everything is kept in FOLDER: a run that is stopped goes on. The last line has all numbers as JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from common import CLOTHING, make_parser, write_json
from heads import elpv
from safetensors.torch import save_file
from scipy.stats import t

import embedpipe

LEARNERS = ("linear-probe", "lp-ft", "finetune", "scratch")
CORRUPTIONS = ("gaussian_noise", "defocus_blur", "fog")


def small_backbone(side: int, folder: Path) -> str:
    """Write the default network with another input size, and return its name."""
    path = folder / f"lite0-{side}.safetensors"
    if not path.exists():
        backbone = embedpipe.load_backbone()
        recipe = dataclasses.replace(backbone.spec.preprocessing, resize=(round(side * 256 / 224),), crop=(side, side))
        about = {
            "architecture": f"{backbone.spec.provider}/{backbone.spec.name}",
            "preprocessing": json.dumps(dataclasses.asdict(recipe)),
        }
        state = {name: tensor.contiguous() for name, tensor in backbone.network.module.state_dict().items()}
        save_file(state, path, metadata=about)
    return f"checkpoint/{path}"


def photos_of(name: str, options: argparse.Namespace) -> Any:
    """Return what is embedded: class folders, or the cells that experts were sure of."""
    if name == "clothing":
        return options.clothing
    table = elpv().to_arrow(["uri", "label"])
    return table.filter(table["label"].is_valid()).rename_columns(["path", "label"])


def measure(name: str, backbone: str, options: argparse.Namespace) -> embedpipe.Benchmark:
    """Run the grid of a data set."""
    store = embedpipe.embed(photos_of(name, options), options.to / f"{name}.features", backbone=backbone)
    return embedpipe.benchmark(
        store,
        to=options.to / name,
        weights=backbone.removeprefix("checkpoint/"),
        learners=LEARNERS,
        label_counts=tuple(options.label_counts),
        seeds=options.seeds,
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        corruptions=CORRUPTIONS,
        severities=(3,),
        progress=True,
    )


def points(difference: Any) -> str:
    """Write a difference with its interval, in percentage points."""
    return (
        ""
        if difference is None
        else f"{100 * difference.value:+.1f} ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"
    )


def main() -> None:
    """Run, and print tables."""
    parser = make_parser(__doc__)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--data", nargs="+", default=["clothing", "elpv"], choices=["clothing", "elpv"])
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--label-counts", type=int, nargs="+", default=[100, 400])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--clothing", type=Path, default=CLOTHING)
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    backbone = small_backbone(options.side, options.to)
    results = {}
    pooled: dict[str, list[Any]] = {"test rows": [], "corrupted": []}
    for name in options.data:
        result = measure(name, backbone, options)
        result.to_html(options.to / f"{name}.html")
        results[name] = result.to_dict()
        print(f"\n{name}: {result.test_rows:,} test rows, {options.seeds} draws, {result.seconds:,.0f} s\n")
        headings = [
            "labels",
            *(f"{learner}, %" for learner in LEARNERS),
            "lp-ft minus linear-probe",
            "minus finetune",
            "corrupted",
        ]
        print("| " + " | ".join(headings) + " |")
        print("| ---: |" + " ---: |" * (len(LEARNERS) + 3))
        for labels in result.label_counts:
            means = [
                f"{100 * mean(cell.accuracy for cell in result.cells_of(learner, labels)):.1f}" for learner in LEARNERS
            ]
            pairs = {(each.learner, each.reference): each for each in result.differences if each.labels == labels}
            probe, plain = pairs["lp-ft", "linear-probe"], pairs["lp-ft", "finetune"]
            row = [f"{labels:,}", *means, points(probe.accuracy), points(plain.accuracy), points(plain.shifted)]
            print("| " + " | ".join(row) + " |", flush=True)
            ours, theirs = result.cells_of("lp-ft", labels), result.cells_of("finetune", labels)
            pooled["test rows"].append([a.accuracy - b.accuracy for a, b in zip(ours, theirs, strict=True)])
            shifted = [[mean(mean(each) for each in one.shifted.values()) for one in side] for side in (ours, theirs)]
            pooled["corrupted"].append(np.subtract(*shifted).tolist())
    for where, differences in pooled.items():
        draws = np.mean(differences, axis=0)
        error = draws.std(ddof=1) / np.sqrt(len(draws))
        ends = draws.mean() + error * t.ppf([0.025, 0.975, 0.05], len(draws) - 1)
        low, high, least = 100 * ends
        print(f"\nlp-ft minus finetune, {where}, all together: {100 * draws.mean():+.2f} ({low:+.2f} to {high:+.2f})")
        print(f"one-sided 95 % bound: {least:+.2f}")
    write_json(options, results)


if __name__ == "__main__":
    main()
