"""How fast are the kNN heads compared with scikit-learn's KNeighborsClassifier, and do the predictions agree?

    python benchmarks/knn_speed.py [--rows 100000] [--dim 512] [--queries 5000] [--rounds 3] [--json FILE]

In one process, one after the other in each round: scikit-learn (brute force, which it chooses itself for so many
columns), `FaissKNNClassifier`, and the same with recall_target=0.97, as in head ``knn-approx``; 20 neighbours,
uniform votes, all threads; by cosine, as in head ``knn``, and by Euclidean distance. Ratios are of the medians of
predicting all queries. "build" is the time of `fit`, relative to scikit-learn's time for the queries. Agreement is the
share of queries with the same prediction as scikit-learn's.

The data resemble embeddings: 100 classes of 20 clusters each, of unequal sizes (Dirichlet), with normal noise; the
variance of columns falls as 1 / rank before a random rotation; then rectified, as pooled features are positive and
sparse. A twelfth of the labels are wrong, so that votes are close.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from common import make_parser, write_json
from sklearn.neighbors import KNeighborsClassifier

from embedpipe import FaissKNNClassifier
from embedpipe.neighbours.exact import METRICS

CLASSES, CLUSTERS, WRONG_LABELS = 100, 20, 1 / 12
NEIGHBORS, RECALL = 20, 0.97
#: Lower limits of the ratios and of the agreement.
MIN_RATIO = {"exact": 2.0, "approximate": 5.0}
MIN_AGREEMENT = {"exact": 1.0, "approximate": 0.99}


def make_data(rows: int, dim: int, seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return vectors and labels. Clusters and rotation do not depend on the seed."""
    shared, rng = np.random.default_rng(0), np.random.default_rng(seed)
    centres = np.repeat(shared.standard_normal((CLASSES, dim), np.float32), CLUSTERS, axis=0)
    centres += 0.8 * shared.standard_normal((CLASSES * CLUSTERS, dim), np.float32)
    spectrum = (np.arange(1, dim + 1) ** -0.5).astype(np.float32)
    rotation = np.linalg.qr(shared.standard_normal((dim, dim)))[0].astype(np.float32)
    cluster = rng.choice(len(centres), rows, p=shared.dirichlet(np.ones(len(centres))))
    X = (centres[cluster] + 1.2 * rng.standard_normal((rows, dim), np.float32)) * spectrum
    X = np.maximum(X @ rotation, 0)
    y = cluster // CLUSTERS
    return X, np.where(rng.random(rows) < WRONG_LABELS, rng.integers(0, CLASSES, rows), y)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of a call, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def compare(metric: Any, rows: int, dim: int, queries: int, rounds: int) -> dict[str, Any]:
    """Measure one metric: seconds of each head in each round, time to build, and agreement of the predictions."""
    X, y = make_data(rows, dim, 1)
    X_test, _ = make_data(queries, dim, 2)
    reference = KNeighborsClassifier(NEIGHBORS, metric=metric).fit(X, y)
    heads = {"exact": FaissKNNClassifier(NEIGHBORS, metric=metric)}
    heads["approximate"] = FaissKNNClassifier(NEIGHBORS, metric=metric, recall_target=RECALL)
    build = {name: timed(partial(head.fit, X, y))[0] for name, head in heads.items()}
    times: dict[str, list[float]] = {"scikit-learn": [], "exact": [], "approximate": []}
    predicted: dict[str, Any] = {}
    for _ in range(rounds):
        for name, head in {"scikit-learn": reference, **heads}.items():
            seconds, predicted[name] = timed(partial(head.predict, X_test))
            times[name].append(seconds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "metric": metric,
        "seconds": times,
        "build seconds": build,
        "ratio": {name: medians["scikit-learn"] / medians[name] for name in heads},
        "build": {name: build[name] / medians["scikit-learn"] for name in heads},
        "agreement": {name: float((predicted[name] == predicted["scikit-learn"]).mean()) for name in heads},
        "cells": f"{heads['approximate'].probes_} of {len(heads['approximate'].centroids_)}",
    }


def main() -> int:
    """Measure and print; return 1 if a limit is missed."""
    parser = make_parser(__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="training rows (default: 100,000)")
    parser.add_argument("--dim", type=int, default=512, help="number of features (default: 512)")
    parser.add_argument("--queries", type=int, default=5000, help="rows that are predicted (default: 5,000)")
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds (default: 3)")
    options = parser.parse_args()
    sizes = (options.rows, options.dim, options.queries, options.rounds)
    print(f"{options.rows:,} x {options.dim} float32, {options.queries:,} queries, {NEIGHBORS} neighbours")
    print(f"{'metric':<11}{'head':<13}{'x scikit-learn':>15}{'limit':>10}{'agreement':>11}{'build':>8}")
    results, missed = [], 0
    for metric in METRICS:
        result = compare(metric, *sizes)
        results.append(result)
        for name, limit in MIN_RATIO.items():
            ratio, agreement = result["ratio"][name], result["agreement"][name]
            met = ratio >= limit and agreement >= MIN_AGREEMENT[name]
            missed += not met
            print(
                f"{metric:<11}{name:<13}{ratio:>15.1f}{limit:>10g}{agreement:>11.4f}{result['build'][name]:>8.2f}"
                f"  {'yes' if met else 'NO'}{'' if name == 'exact' else '  searches ' + result['cells'] + ' cells'}"
            )
    write_json(options, {"sizes": sizes, "results": results})
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
