"""What do copies do to an estimate of accuracy, and does keeping near-duplicates together undo it? Prints a table.

A tenth of the rows get a near-copy under a new id: their vectors with noise, or, with ``--copies``, what the backbone
made of real copies: a store of the same ids whose photographs were compressed anew, made smaller, mirrored...
Accuracy is then estimated on four divisions: the data as they are, by stratified folds and by `make_splits` with the
vectors; and the data with copies, by the same two. Everything random (rows, noise, folds) is drawn anew in each
repeat; intervals (95 %) are over repeats, and so for these data. A store's own split is not used.

    python benchmarks/leakage.py [STORE] [--label LABEL] [--layer LAYER] [--copies STORE] [--share 0.1]
        [--noise 0.25] [--threshold 0.95] [--repeats 10] [--heads logreg knn1 knn5] [--json FILE]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from common import make_parser, write_json
from heads import elpv
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from embedpipe import FeatureStore
from embedpipe.neighbours import nearest_rows
from embedpipe.neighbours.duplicates import near_duplicate_groups
from embedpipe.neighbours.near import NEAR_DUPLICATE_COSINE
from embedpipe.splits.make import make_splits

Floats = npt.NDArray[np.float32]

HEADS: dict[str, Callable[[], Any]] = {
    "logreg": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    "knn1": lambda: KNeighborsClassifier(1, metric="cosine"),
    "knn5": lambda: KNeighborsClassifier(5, metric="cosine"),
}
CLEAN, CLEAN_GROUPED, NAIVE, GROUPED = DIVISIONS = (
    "as they are, stratified folds",
    "as they are, near-duplicates together",
    "with copies, stratified folds",
    "with copies, near-duplicates together",
)


def labelled(store: FeatureStore, label: str, layer: str | None) -> tuple[list[str], Floats, npt.NDArray[Any]]:
    """Return ids, vectors and labels of the rows that have one."""
    table = store.to_arrow(["id", label]).filter(pc.is_valid(pc.field(label)))
    ids = table["id"].to_pylist()
    return ids, store.take(ids, layer=layer), np.array(table[label].to_pylist())


def with_noise(X: Floats, rows: npt.NDArray[np.int64], noise: float, rng: np.random.Generator) -> Floats:
    """Return vectors moved in a random direction, by ``noise`` times the way to the nearest other row."""
    way, found = nearest_rows(X[rows], X, 2, "euclidean")
    way = np.where(found[:, 0] == rows, way[:, 1], way[:, 0])
    steps = rng.standard_normal((len(rows), X.shape[1]))
    steps *= noise * way[:, None] / np.linalg.norm(steps, axis=1, keepdims=True)
    return (X[rows] + steps).astype(np.float32)


def cosines(X: Floats, rows: npt.NDArray[np.int64], copies: Floats) -> npt.NDArray[np.float64]:
    """Return the centred cosines of rows and their copies."""
    a, b = X[rows] - X.mean(axis=0), copies - X.mean(axis=0)
    return np.asarray((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1), np.float64)


def accuracies(heads: list[str], X: Floats, y: npt.NDArray[Any], seed: int, **options: Any) -> dict[str, float]:
    """Return the accuracy of each head over one repeat of five folds, all rows pooled."""
    splits = make_splits([str(row) for row in range(len(y))], y, task="classification", repeats=1, seed=seed, **options)
    right: dict[str, list[npt.NDArray[np.bool_]]] = {head: [] for head in heads}
    for one in splits.resamples:
        for head in heads:
            predicted = HEADS[head]().fit(X[one.train], y[one.train]).predict(X[one.test])
            right[head].append(predicted == y[one.test])
    return {head: float(np.concatenate(each).mean()) for head, each in right.items()}


def repeats(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the accuracy of each head on each division, and how near and how often found the copies were."""
    ids, X, y = labelled(FeatureStore(options.store), options.label, options.layer)
    place = {id: row for row, id in enumerate(ids)}
    real: dict[int, Floats] = {}
    if options.copies:
        store = FeatureStore(options.copies)
        there = [id for id in store.ids() if id in place]
        real = {place[id]: vector for id, vector in zip(there, store.take(there, layer=options.layer), strict=True)}
    count = round(options.share * len(y))
    if real and len(real) < count:
        raise SystemExit(f"{options.copies} has copies of {len(real)} rows, fewer than {count}: lower --share")
    for seed in range(options.repeats):
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.choice(sorted(real) or len(y), count, replace=False))
        copies = np.stack([real[row] for row in rows]) if real else with_noise(X, rows, options.noise, rng)
        more, labels = np.concatenate([X, copies]), np.concatenate([y, y[rows]])
        groups = near_duplicate_groups(more, options.threshold)
        together = {"threshold": options.threshold}
        yield {
            CLEAN: accuracies(options.heads, X, y, 100 + seed),
            CLEAN_GROUPED: accuracies(options.heads, X, y, 200 + seed, vectors=X, **together),
            NAIVE: accuracies(options.heads, more, labels, 300 + seed),
            GROUPED: accuracies(options.heads, more, labels, 400 + seed, vectors=more, **together),
            "cosine": float(np.median(cosines(X, rows, copies))),
            "found": float(np.mean(groups[rows] == groups[len(y) :])),
            "largest": int(np.bincount(groups).max()),
        }
        print(f"  repeat {seed + 1} of {options.repeats}", file=sys.stderr, flush=True)


def interval(values: npt.NDArray[np.float64]) -> str:
    """Write a mean in percent with the half of its 95 % interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else np.nan
    return f"{100 * values.mean():+.2f} ± {100 * half:.2f}"


def main() -> None:
    """Print a Markdown table."""
    parser = make_parser(__doc__)
    parser.add_argument("store", type=Path, nargs="?", help="the solar cells where none is given")
    parser.add_argument("--label", default="label")
    parser.add_argument("--layer")
    parser.add_argument("--copies", type=Path, help="a store of the same ids, embedded from real copies")
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--noise", type=float, default=0.25, help="relative to the nearest other row's distance")
    parser.add_argument("--threshold", type=float, default=NEAR_DUPLICATE_COSINE)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=[*HEADS])
    options = parser.parse_args()
    options.store = options.store or Path(elpv().path)
    found = list(repeats(options))
    what = options.copies.name if options.copies else f"noise of {options.noise:g} of the way to the nearest row"
    print(
        f"{options.store.name}, {options.share:.0%} copied ({what}; median centred cosine "
        f"{np.median([one['cosine'] for one in found]):.4f}), threshold {options.threshold:g}: "
        f"{np.mean([one['found'] for one in found]):.1%} of the copies are with their originals, "
        f"the largest group has {max(one['largest'] for one in found)} rows; {options.repeats} repeats"
    )
    print(f"\n| head | accuracy {CLEAN}, % | " + " | ".join(f"{name}: points more" for name in DIVISIONS[1:]) + " |")
    print("| --- |" + " ---: |" * len(DIVISIONS))
    for head in options.heads:
        clean, *others = (np.array([one[name][head] for one in found]) for name in DIVISIONS)
        print(f"| {head} | {100 * clean.mean():.2f} | " + " | ".join(interval(each - clean) for each in others) + " |")
    write_json(options, found)


if __name__ == "__main__":
    main()
