"""How much faster is a lower precision, and how much accuracy does it cost?

    python benchmarks/precision.py [BACKBONE] [--weights FILE] [--clothing FOLDER] [--photos N] [--rounds 5]
        [--json FILE]

Each precision runs on the engine that embedpipe chooses for it. Speed is that of the forward pass, relative to torch in
fp32 as PyTorch runs it by default (eager, NCHW), in alternating rounds; torch in channels-last layout is shown too.
Vectors are compared with those in fp32 on all clothing photos and on the solar cells whose label is certain: cosine
distance, the share of the 10 nearest neighbours that stay the same, and the accuracy of logistic regression (C=0.01 on
standardised vectors, pooled out-of-fold predictions of 5 folds) with the 95 % interval of the paired difference.
"""

from __future__ import annotations

import copy
import dataclasses
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from common import CLOTHING, elpv_table, make_parser, markdown_table, write_json
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from embedpipe._utils.options import Precision
from embedpipe.backbones import Backbone, BackboneOptions, load_with_options
from embedpipe.errors import BackboneError

Floats = npt.NDArray[np.float64]
Sample = tuple[list[Path], npt.NDArray[Any]]

#: A number of photos for which embedpipe measures all engines.
MANY = 1_000_000
CHUNK = 128
TIMED = 64
NEIGHBOURS = 10
EAGER, CHANNELS_LAST = "torch fp32, NCHW", "torch fp32, channels-last"


def clothing(folder: Path) -> Sample:
    """Return the clothing photos of all splits and their classes."""
    paths = sorted(folder.glob("*/*/*.jpg"))
    return paths, np.array([path.parent.name for path in paths])


def solar_cells() -> Sample:
    """Return the cells whose label is certain, and their labels."""
    table = elpv_table()
    table = table.filter(table["label"].is_valid())
    return [Path(path) for path in table["path"].to_pylist()], np.array(table["label"].to_pylist())


def subsample(sample: Sample, count: int | None) -> Sample:
    """Return ``count`` items, evenly spread; all without a count."""
    paths, labels = sample
    rows = np.linspace(0, len(paths) - 1, min(count or len(paths), len(paths))).astype(int)
    return [paths[row] for row in rows], labels[rows]


def load_all(options: BackboneOptions) -> tuple[dict[str, Backbone], dict[str, str]]:
    """Return a backbone for each available precision, and the reason for each other one."""
    loaded, refused = {}, {}
    for precision in get_args(Precision):
        backbone = load_with_options(dataclasses.replace(options, precision=precision), "cpu")
        try:
            loaded[precision] = backbone.ready().accelerated(MANY)
            print(f"{precision}: {loaded[precision].engine_name}, {loaded[precision].engine_reason}", flush=True)
        except BackboneError as error:
            refused[precision] = str(error)
            print(f"{precision}: {error}", flush=True)
    return loaded, refused


def embed(backbones: dict[str, Backbone], paths: list[Path], pool: ThreadPoolExecutor) -> dict[str, Floats]:
    """Return the vectors of each backbone. Every photo is decoded once."""
    first = next(iter(backbones.values()))
    column = first.spec.layers[0].column
    parts: dict[str, list[Any]] = {name: [] for name in backbones}
    for start in range(0, len(paths), CHUNK):
        values = list(pool.map(lambda path: first.prepare(path.read_bytes()).value, paths[start : start + CHUNK]))
        for name, backbone in backbones.items():
            parts[name].append(backbone.forward(values)[column])
    return {name: np.concatenate(vectors).astype(np.float64) for name, vectors in parts.items()}


def correct(vectors: Floats, labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return 1 for each item that is classified correctly out of fold, otherwise 0."""
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    head: Any = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    return np.asarray(cross_val_predict(head, vectors, labels, cv=folds) == labels, np.int64)


def nearest(vectors: Floats) -> npt.NDArray[np.int64]:
    """Return the nearest neighbours of each item by cosine, without the item itself."""
    index: Any = NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute").fit(normalize(vectors))
    return np.asarray(index.kneighbors(return_distance=False))


def compare(vectors: dict[str, Floats], labels: npt.NDArray[Any]) -> dict[str, dict[str, float]]:
    """Compare the vectors of each precision with those in fp32."""
    exact = vectors["fp32"]
    exact_nearest, exact_correct = nearest(exact), correct(exact, labels)
    metrics = {}
    for name, other in vectors.items():
        distance = 1 - (normalize(exact) * normalize(other)).sum(axis=1)
        kept = [len(np.intersect1d(*rows)) for rows in zip(exact_nearest, nearest(other), strict=True)]
        other_correct = correct(other, labels)
        difference = other_correct - exact_correct
        metrics[name] = {
            "median": float(np.median(distance)),
            "largest": float(distance.max()),
            "kept": float(np.mean(kept)) / NEIGHBOURS,
            "accuracy": float(other_correct.mean()),
            "difference": float(difference.mean()),
            "interval": float(1.96 * difference.std() / np.sqrt(len(difference))),
        }
    return metrics


def speeds(backbones: dict[str, Backbone], values: list[Any], rounds: int) -> dict[str, float]:
    """Return the speed of each backbone relative to torch's default, from the medians of alternating rounds."""
    eager = to_contiguous(backbones["fp32"])
    runs: dict[str, Callable[[], object]] = {
        EAGER: partial(eager.forward, values),
        CHANNELS_LAST: partial(dataclasses.replace(backbones["fp32"], engine=None).forward, values),
    }
    runs |= {name: partial(backbone.forward, values) for name, backbone in backbones.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if number:  # round 0 warms up
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    return {name: medians[EAGER] / seconds for name, seconds in medians.items()}


def to_contiguous(backbone: Backbone) -> Backbone:
    """Return a backbone with its network in PyTorch's default memory layout, which embedpipe changes."""
    module = copy.deepcopy(backbone.network.module).to(memory_format=torch.contiguous_format)
    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_pre_hook(lambda _, inputs: tuple(tensor.contiguous() for tensor in inputs))
    network = dataclasses.replace(backbone.network, module=module)
    return dataclasses.replace(backbone, network=network, engine=None)


def markdown(speed: dict[str, float], names: dict[str, str], metrics: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return one Markdown table, with a row for each precision."""
    headings = ["precision", "engine", "speed"]
    for sample in metrics:
        headings += [
            f"{sample}: cosine distance, median (largest)",
            "neighbours kept",
            "accuracy",
            "minus fp32, points",
        ]
    rows = [headings]
    for name, times in speed.items():
        row = [name, names.get(name, "torch"), f"{times:.1f}x"]
        for sample_metrics in metrics.values():
            values = sample_metrics.get(name)
            row += [""] * 4 if values is None else [
                f"{values['median']:.1e} ({values['largest']:.1e})",
                f"{values['kept']:.2f}",
                f"{100 * values['accuracy']:.2f} %",
                f"{100 * values['difference']:+.2f} ± {100 * values['interval']:.2f}",
            ]  # fmt: skip
        rows.append(row)
    return markdown_table(rows, left=(0, 1))


def main() -> None:
    """Measure, and print a table."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "backbone", nargs="?", default="timm/tf_efficientnet_lite0", help="backbone (default: %(default)s)"
    )
    parser.add_argument("--weights", default="default", help="file of weights, or none for random ones")
    parser.add_argument(
        "--clothing", type=Path, default=CLOTHING, help="folder of clothing photos (default: %(default)s)"
    )
    parser.add_argument("--photos", type=int, help="photos of each data set (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (default: 5)")
    options = parser.parse_args()
    samples = {"solar cells": subsample(solar_cells(), options.photos)}
    if options.clothing.is_dir():
        samples["clothing"] = subsample(clothing(options.clothing), options.photos)
    else:
        print(f"clothing is left out: no folder {options.clothing}. Name one with --clothing")
    backbones, refused = load_all(BackboneOptions(backbone=options.backbone, weights=options.weights))
    with ThreadPoolExecutor() as pool:
        timed = [backbones["fp32"].prepare(path.read_bytes()).value for path in samples["solar cells"][0][:TIMED]]
        speed = speeds(backbones, timed, options.rounds)
        metrics = {name: compare(embed(backbones, paths, pool), labels) for name, (paths, labels) in samples.items()}
    engines = {name: backbone.engine_name for name, backbone in backbones.items()}
    print(markdown(speed, engines, metrics))
    results = {"backbone": options.backbone, "speed": speed, "engines": engines, "refused": refused, "samples": metrics}
    write_json(options, results)


if __name__ == "__main__":
    main()
