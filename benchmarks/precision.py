"""What does a cheaper precision give, and what does it cost?

    python benchmarks/precision.py [BACKBONE] [--weights FILE] [--clothing FOLDER] [--photos N] [--json FILE]

Each precision runs on the engine that embedpipe chooses for it. Speed is that of the forward pass, relative to torch in
fp32 as PyTorch runs it by itself (eager, NCHW), in alternating rounds; torch on channels-last memory is shown beside.
Vectors are held against fp32's on all clothing photos and on the solar cells that the experts were sure of: cosine
distance, the share of the 10 nearest neighbours that stay, and the accuracy of logistic regression (C=0.01 on
standardised vectors, pooled out-of-fold predictions of 5 folds) with the 95 % interval of the paired difference.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib.resources
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
from common import CLOTHING, make_parser, write_json
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from embedpipe._utils.precision import Precision
from embedpipe.backbones import Backbone, BackboneOptions, load_with_options
from embedpipe.errors import BackboneError

Floats = npt.NDArray[np.float64]
Sample = tuple[list[Path], npt.NDArray[Any]]

#: So many photos that embedpipe looks for the best engine.
MANY = 1_000_000
CHUNK = 128
TIMED = 64
NEIGHBOURS = 10
EAGER, CHANNELS_LAST = "torch fp32, NCHW", "torch fp32, channels-last"


def clothing(folder: Path) -> Sample:
    """Return the photos of all splits and their classes."""
    paths = sorted(folder.glob("*/*/*.jpg"))
    return paths, np.array([path.parent.name for path in paths])


def solar_cells() -> Sample:
    """Return the cells that the experts were sure of, and whether they are defective."""
    data = Path(str(importlib.resources.files("elpv_dataset"))) / "data"
    rows = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    sure = [row for row in rows if float(row[1]) in (0.0, 1.0)]
    return [data / row[0] for row in sure], np.array([row[1] for row in sure])


def thinned(sample: Sample, count: int | None) -> Sample:
    """Return so many items, evenly spread."""
    paths, labels = sample
    rows = np.linspace(0, len(paths) - 1, min(count or len(paths), len(paths))).astype(int)
    return [paths[row] for row in rows], labels[rows]


def load_all(options: BackboneOptions) -> tuple[dict[str, Backbone], dict[str, str]]:
    """Return a backbone for each precision that is offered, and why the others are not."""
    loaded, refused = {}, {}
    for precision in get_args(Precision):
        one = load_with_options(dataclasses.replace(options, precision=precision), "cpu")
        try:
            loaded[precision] = one.ready().accelerated(MANY)
            print(f"{precision}: {loaded[precision].engine_name}, {loaded[precision].reason}", flush=True)
        except BackboneError as error:
            refused[precision] = str(error)
            print(f"{precision}: {error}", flush=True)
    return loaded, refused


def embed(backbones: dict[str, Backbone], paths: list[Path], pool: ThreadPoolExecutor) -> dict[str, Floats]:
    """Return each backbone's vectors; every photo is decoded once."""
    first = next(iter(backbones.values()))
    column = first.spec.layers[0].column
    parts: dict[str, list[Any]] = {name: [] for name in backbones}
    for start in range(0, len(paths), CHUNK):
        values = list(pool.map(lambda path: first.prepare(path.read_bytes()).value, paths[start : start + CHUNK]))
        for name, backbone in backbones.items():
            parts[name].append(backbone.forward(values)[column])
    return {name: np.concatenate(vectors).astype(np.float64) for name, vectors in parts.items()}


def right(vectors: Floats, labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return 1 for each item that a head which has not seen it gets right, else 0."""
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    head: Any = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    return np.asarray(cross_val_predict(head, vectors, labels, cv=folds) == labels, np.int64)


def nearest(vectors: Floats) -> npt.NDArray[np.int64]:
    """Return the rows of each item's nearest by cosine, without itself."""
    index: Any = NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute").fit(normalize(vectors))
    return np.asarray(index.kneighbors(return_distance=False))


def compare(vectors: dict[str, Floats], labels: npt.NDArray[Any]) -> dict[str, dict[str, float]]:
    """Hold each precision's vectors against fp32's."""
    exact = vectors["fp32"]
    exact_nearest, exact_right = nearest(exact), right(exact, labels)
    figures = {}
    for name, moved in vectors.items():
        distance = 1 - (normalize(exact) * normalize(moved)).sum(axis=1)
        kept = [len(np.intersect1d(*rows)) for rows in zip(exact_nearest, nearest(moved), strict=True)]
        is_right = right(moved, labels)
        difference = is_right - exact_right
        figures[name] = {
            "median": float(np.median(distance)),
            "largest": float(distance.max()),
            "kept": float(np.mean(kept)) / NEIGHBOURS,
            "accuracy": float(is_right.mean()),
            "difference": float(difference.mean()),
            "interval": float(1.96 * difference.std() / np.sqrt(len(difference))),
        }
    return figures


def speeds(backbones: dict[str, Backbone], values: list[Any], rounds: int) -> dict[str, float]:
    """Return how many times as fast as torch alone each runs, by the medians of alternating rounds."""
    plain = load_plain(backbones["fp32"])
    runs: dict[str, Callable[[], object]] = {
        EAGER: partial(plain.forward, values),
        CHANNELS_LAST: partial(dataclasses.replace(backbones["fp32"], engine=None).forward, values),
    }
    runs |= {name: partial(one.forward, values) for name, one in backbones.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for at in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if at:  # the first only warms up
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    return {name: medians[EAGER] / seconds for name, seconds in medians.items()}


def load_plain(backbone: Backbone) -> Backbone:
    """Return a backbone with its network in PyTorch's own memory layout, which embedpipe changes."""
    module = copy.deepcopy(backbone.network.module).to(memory_format=torch.contiguous_format)
    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d):
            part.register_forward_pre_hook(lambda _, inputs: tuple(one.contiguous() for one in inputs))
    network = dataclasses.replace(backbone.network, module=module)
    return dataclasses.replace(backbone, network=network, engine=None)


def markdown(speed: dict[str, float], names: dict[str, str], figures: dict[str, dict[str, dict[str, float]]]) -> str:
    """Lay out all figures as one table, a row a precision."""
    headings = ["precision", "engine", "speed"]
    for sample in figures:
        headings += [
            f"{sample}: cosine distance, median (largest)",
            "neighbours kept",
            "accuracy",
            "less fp32's, points",
        ]
    rows = [headings, ["---"] * 2 + ["---:"] * (len(headings) - 2)]
    for name, times in speed.items():
        row = [name, names.get(name, "torch"), f"{times:.1f}x"]
        for of in figures.values():
            one = of.get(name)
            row += [""] * 4 if one is None else [
                f"{one['median']:.1e} ({one['largest']:.1e})",
                f"{one['kept']:.2f}",
                f"{100 * one['accuracy']:.2f} %",
                f"{100 * one['difference']:+.2f} ± {100 * one['interval']:.2f}",
            ]  # fmt: skip
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    """Print a table, and write the figures as JSON."""
    parser = make_parser(__doc__)
    parser.add_argument("backbone", nargs="?", default="timm/tf_efficientnet_lite0")
    parser.add_argument("--weights", default="default", help="a file, or none for random ones")
    parser.add_argument("--clothing", type=Path, default=CLOTHING)
    parser.add_argument("--photos", type=int, help="of each sample; all if not given")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    samples = {"solar cells": thinned(solar_cells(), options.photos)}
    if options.clothing.is_dir():
        samples["clothing"] = thinned(clothing(options.clothing), options.photos)
    else:
        print(f"clothing is left out: no folder {options.clothing}")
    backbones, refused = load_all(BackboneOptions(backbone=options.backbone, weights=options.weights))
    with ThreadPoolExecutor() as pool:
        timed = [backbones["fp32"].prepare(path.read_bytes()).value for path in samples["solar cells"][0][:TIMED]]
        speed = speeds(backbones, timed, options.rounds)
        figures = {name: compare(embed(backbones, paths, pool), labels) for name, (paths, labels) in samples.items()}
    engines = {name: one.engine_name for name, one in backbones.items()}
    print(markdown(speed, engines, figures))
    results = {"backbone": options.backbone, "speed": speed, "engines": engines, "refused": refused, "samples": figures}
    write_json(options, results)


if __name__ == "__main__":
    main()
