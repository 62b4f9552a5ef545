"""How fast are the kNN heads against scikit-learn's KNeighborsClassifier, and are the predictions the same?

    python benchmarks/knn_speed.py [--rows 100000] [--dim 512] [--queries 5000] [--rounds 3] [--json FILE]

In one process, one after the other in each round: scikit-learn (brute force, which it takes by itself for so many
columns), `FaissKNNClassifier`, and the same with recall_target=0.97, as head ``knn-approx`` has it; 20 neighbours,
uniform votes, all threads; by cosine, as head ``knn`` has it, and by euclidean distance. Ratios are of the medians of
predicting all queries; "build" is what `fit` takes, over scikit-learn's time for the queries. Agreement is the share of
queries with the same prediction as scikit-learn's.

The data are made to look like embeddings: 100 classes of 20 clusters each, of unequal sizes (Dirichlet), with normal
noise, columns whose variance falls as 1 / rank before a random rotation, then rectified, as pooled features are
positive and sparse. A twelfth of the labels is wrong, so that votes are close.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from common import make_parser, write_json
from sklearn.neighbors import KNeighborsClassifier

from embedpipe import FaissKNNClassifier
from embedpipe.neighbours.exact import METRICS

CLASSES, CLUSTERS, WRONG = 100, 20, 1 / 12
NEIGHBORS, RECALL = 20, 0.97
#: The least that the ratios should be.
LIMITS = {"exact": 2.0, "approximate": 5.0}
AGREEMENT = {"exact": 1.0, "approximate": 0.99}


def make_data(rows: int, dim: int, seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return vectors and labels; clusters and rotation are the same for every seed."""
    world, rng = np.random.default_rng(0), np.random.default_rng(seed)
    centres = np.repeat(world.standard_normal((CLASSES, dim), np.float32), CLUSTERS, axis=0)
    centres += 0.8 * world.standard_normal((CLASSES * CLUSTERS, dim), np.float32)
    spectrum = (np.arange(1, dim + 1) ** -0.5).astype(np.float32)
    rotation = np.linalg.qr(world.standard_normal((dim, dim)))[0].astype(np.float32)
    cluster = rng.choice(len(centres), rows, p=world.dirichlet(np.ones(len(centres))))
    X = (centres[cluster] + 1.2 * rng.standard_normal((rows, dim), np.float32)) * spectrum
    X = np.maximum(X @ rotation, 0)
    y = cluster // CLUSTERS
    return X, np.where(rng.random(rows) < WRONG, rng.integers(0, CLASSES, rows), y)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long it takes in seconds, and what it gives."""
    start = time.perf_counter()
    given = work()
    return time.perf_counter() - start, given


def compare(metric: Any, rows: int, dim: int, queries: int, rounds: int) -> dict[str, Any]:
    """Measure one metric; seconds a round of each, predictions, and what building took."""
    X, y = make_data(rows, dim, 1)
    asked, _ = make_data(queries, dim, 2)
    theirs = KNeighborsClassifier(NEIGHBORS, metric=metric).fit(X, y)
    heads = {"exact": FaissKNNClassifier(NEIGHBORS, metric=metric)}
    heads["approximate"] = FaissKNNClassifier(NEIGHBORS, metric=metric, recall_target=RECALL)
    build = {name: timed(lambda head=head: head.fit(X, y))[0] for name, head in heads.items()}
    took: dict[str, list[float]] = {"scikit-learn": [], "exact": [], "approximate": []}
    said: dict[str, Any] = {}
    for _ in range(rounds):
        for name, head in {"scikit-learn": theirs, **heads}.items():
            seconds, said[name] = timed(lambda head=head: head.predict(asked))
            took[name].append(seconds)
    middle = {name: statistics.median(values) for name, values in took.items()}
    return {
        "metric": metric,
        "seconds": took,
        "build seconds": build,
        "ratio": {name: middle["scikit-learn"] / middle[name] for name in heads},
        "build": {name: build[name] / middle["scikit-learn"] for name in heads},
        "agreement": {name: float((said[name] == said["scikit-learn"]).mean()) for name in heads},
        "cells": f"{heads['approximate'].probes_} of {len(heads['approximate'].centroids_)}",
    }


def main() -> int:
    """Measure, print, and exit with 1 if a limit is missed."""
    parser = make_parser(__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sizes = (options.rows, options.dim, options.queries, options.rounds)
    print(f"{options.rows:,} x {options.dim} float32, {options.queries:,} queries, {NEIGHBORS} neighbours")
    print(f"{'metric':<11}{'head':<13}{'x scikit-learn':>15}{'at least':>10}{'agreement':>11}{'build':>8}")
    found, missed = [], 0
    for metric in METRICS:
        one = compare(metric, *sizes)
        found.append(one)
        for name, limit in LIMITS.items():
            ratio, agreement = one["ratio"][name], one["agreement"][name]
            met = ratio >= limit and agreement >= AGREEMENT[name]
            missed += not met
            print(
                f"{metric:<11}{name:<13}{ratio:>15.1f}{limit:>10g}{agreement:>11.4f}{one['build'][name]:>8.2f}"
                f"  {'yes' if met else 'NO'}{'' if name == 'exact' else '  looks into ' + one['cells'] + ' cells'}"
            )
    write_json(options, {"sizes": sizes, "found": found})
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
