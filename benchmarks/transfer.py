"""What does fine-tuning give? Learning curves of four learners on real photos, small enough for a processor.

    python benchmarks/transfer.py --to FOLDER [--data clothing elpv] [--side 128] [--label-counts 100 400] [--seeds 5]
                                  [--epochs 5] [--learning-rate 3e-4] [--json FILE]

EfficientNet-Lite0 at 128 pixels, on clothing (its own splits) and on elpv's solar cells (near-duplicates together): a
linear probe on frozen features, LP-FT (the network starts from that probe), fine-tuning from a random head, and
training from scratch, at each number of labels, on the same draws and test rows. The test images are measured as they
are and under three corruptions at severity 3; the last column is lp-ft minus finetune on the corrupted images. At the
end, lp-ft minus finetune over all data sets and numbers of labels: the mean over the draws, with the interval of a t
over the draws; the value of a draw is its mean over the cells.

All results are kept in FOLDER, and an interrupted run continues there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from common import CLOTHING, elpv_table, make_parser, markdown_table, points, write_json
from safetensors.torch import save_file
from scipy.stats import t

import embedpipe
from embedpipe.decoding import Preprocessing
from embedpipe.finetuning.benchmark.benchmark_data import Learner, LearnerDifference
from embedpipe.statistics import Estimate

LEARNERS: tuple[Learner, ...] = ("linear-probe", "lp-ft", "finetune", "scratch")
CORRUPTIONS = ("gaussian_noise", "defocus_blur", "fog")


def small_backbone(side: int, folder: Path) -> str:
    """Write the default network with another input size, and return its name."""
    path = folder / f"lite0-{side}.safetensors"
    if not path.exists():
        backbone = embedpipe.load_backbone()
        recipe = backbone.spec.preprocessing
        assert isinstance(recipe, Preprocessing)
        recipe = dataclasses.replace(recipe, resize=(round(side * 256 / 224),), crop=(side, side))
        metadata = {
            "architecture": f"{backbone.spec.provider}/{backbone.spec.name}",
            "preprocessing": json.dumps(dataclasses.asdict(recipe)),
        }
        state = {name: tensor.contiguous() for name, tensor in backbone.network.module.state_dict().items()}
        save_file(state, path, metadata=metadata)
    return f"checkpoint/{path}"


def photos_of(name: str, options: argparse.Namespace) -> Any:
    """Return the source of a data set: class folders, or the cells whose label is certain."""
    if name == "clothing":
        return options.clothing
    table = elpv_table().select(["path", "label"])
    return table.filter(table["label"].is_valid())


def measure(name: str, backbone: str, options: argparse.Namespace) -> embedpipe.Benchmark:
    """Run the benchmark of a data set."""
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


def in_points(difference: Estimate | None) -> str:
    """Return a difference with its interval, in percentage points."""
    return "" if difference is None else points(difference.value, difference.low, difference.high)


def table_of(result: embedpipe.Benchmark) -> str:
    """Return the table of a data set, with a row for each number of labels."""
    rows = [["labels", *(f"{name}, %" for name in LEARNERS), "lp-ft minus linear-probe", "lp-ft minus finetune"]]
    rows[0].append("the same, corrupted")
    for labels in result.label_counts:
        accuracies = [mean(cell.accuracy for cell in result.cells_of(learner, labels)) for learner in LEARNERS]
        pairs: dict[tuple[str, str], LearnerDifference] = {
            (pair.learner, pair.reference): pair for pair in result.differences if pair.labels == labels
        }
        from_probe, from_finetune = pairs["lp-ft", "linear-probe"], pairs["lp-ft", "finetune"]
        differences = (from_probe.accuracy, from_finetune.accuracy, from_finetune.shifted_accuracy)
        rows.append([f"{labels:,}", *(f"{100 * value:.1f}" for value in accuracies), *map(in_points, differences)])
    return markdown_table(rows, left=())


def draw_differences(result: embedpipe.Benchmark, labels: int) -> dict[str, list[float]]:
    """Return lp-ft minus finetune of each draw, on the test images and on the corrupted ones."""
    pairs = list(zip(result.cells_of("lp-ft", labels), result.cells_of("finetune", labels), strict=True))
    clean = [a.accuracy - b.accuracy for a, b in pairs]
    shifted = [mean_shifted(a) - mean_shifted(b) for a, b in pairs]
    return {"test rows": clean, "corrupted": shifted}


def mean_shifted(cell: Any) -> float:
    """Return the mean accuracy of a cell over all corruptions and severities."""
    return float(mean(mean(severities) for severities in cell.shifted.values()))


def main() -> None:
    """Measure, and print the tables."""
    parser = make_parser(__doc__)
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="folder of the results")
    parser.add_argument(
        "--data",
        nargs="+",
        default=["clothing", "elpv"],
        choices=["clothing", "elpv"],
        help="data sets (default: both)",
    )
    parser.add_argument("--side", type=int, default=128, help="input size of the network in pixels (default: 128)")
    parser.add_argument(
        "--label-counts", type=int, nargs="+", default=[100, 400], help="numbers of training labels (100 and 400)"
    )
    parser.add_argument("--seeds", type=int, default=5, help="draws of the labels (default: 5)")
    parser.add_argument("--epochs", type=int, default=5, help="epochs of each training (default: 5)")
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="peak learning rate (default: 3e-4)")
    parser.add_argument(
        "--clothing", type=Path, default=CLOTHING, help="folder of clothing photos (default: %(default)s)"
    )
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    backbone = small_backbone(options.side, options.to)
    results = {}
    pooled: dict[str, list[list[float]]] = {"test rows": [], "corrupted": []}
    for name in options.data:
        result = measure(name, backbone, options)
        result.to_html(options.to / f"{name}.html")
        results[name] = result.to_dict()
        print(f"\n{name}: {result.test_rows:,} test rows, {options.seeds} draws, {result.seconds:,.0f} s\n")
        print(table_of(result), flush=True)
        for labels in result.label_counts:
            for rows, differences in draw_differences(result, labels).items():
                pooled[rows].append(differences)
    for rows, cells in pooled.items():
        draws = np.mean(cells, axis=0)
        error = draws.std(ddof=1) / np.sqrt(len(draws))
        low, high, bound = 100 * (draws.mean() + error * t.ppf([0.025, 0.975, 0.05], len(draws) - 1))
        print(f"\nlp-ft minus finetune, {rows}, all cells: {100 * draws.mean():+.2f} ({low:+.2f} to {high:+.2f})")
        print(f"one-sided 95 % bound: {bound:+.2f}")
    write_json(options, results)


if __name__ == "__main__":
    main()
