"""How much do copies inflate an estimate of accuracy, and does keeping near-duplicates together prevent it?

    python benchmarks/leakage.py [STORE] [--label LABEL] [--layer LAYER] [--copies STORE] [--share 0.1]
        [--noise 0.25] [--near-duplicates 0.95] [--repeats 10] [--heads logreg knn1 knn5] [--json FILE]

A tenth of the rows get a near-copy under a new id: their vectors with noise, or, with ``--copies``, the vectors of real
copies: a store of the same ids whose photographs were compressed again, made smaller, mirrored... Accuracy is then
estimated in four ways: without copies, by stratified folds and by `make_splits` with the vectors; and with copies, by
the same two. All that is random (rows, noise, folds) is drawn again in each repeat; intervals (95 %) are over repeats,
and so hold for these data. A split column of the store is ignored.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import elpv_store, labelled_rows, make_parser, markdown_table, write_json
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from embedpipe import FeatureStore
from embedpipe.neighbours import nearest_rows
from embedpipe.neighbours.duplicates import near_duplicate_groups
from embedpipe.neighbours.options import NEAR_DUPLICATE_COSINE
from embedpipe.splits import make_splits

Floats = npt.NDArray[np.float32]

HEADS: dict[str, Callable[[], Any]] = {
    "logreg": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    "knn1": lambda: KNeighborsClassifier(1, metric="cosine"),
    "knn5": lambda: KNeighborsClassifier(5, metric="cosine"),
}
CLEAN, CLEAN_GROUPED, NAIVE, GROUPED = ESTIMATES = (
    "without copies, stratified folds",
    "without copies, near-duplicates together",
    "with copies, stratified folds",
    "with copies, near-duplicates together",
)


def with_noise(X: Floats, rows: npt.NDArray[np.int64], noise: float, rng: np.random.Generator) -> Floats:
    """Return vectors moved in a random direction, by ``noise`` times the distance to the nearest other row."""
    distances, neighbours = nearest_rows(X[rows], X, 2, "euclidean")
    distances = np.where(neighbours[:, 0] == rows, distances[:, 1], distances[:, 0])
    steps = rng.standard_normal((len(rows), X.shape[1]))
    steps *= noise * distances[:, None] / np.linalg.norm(steps, axis=1, keepdims=True)
    return (X[rows] + steps).astype(np.float32)


def cosines(X: Floats, rows: npt.NDArray[np.int64], copies: Floats) -> npt.NDArray[np.float64]:
    """Return the centred cosines of rows and their copies."""
    a, b = X[rows] - X.mean(axis=0), copies - X.mean(axis=0)
    return np.asarray((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1), np.float64)


def accuracies(heads: list[str], X: Floats, y: npt.NDArray[Any], seed: int, **options: Any) -> dict[str, float]:
    """Return the accuracy of each head over one repeat of five folds, all rows pooled."""
    splits = make_splits([str(row) for row in range(len(y))], y, task="classification", repeats=1, seed=seed, **options)
    correct: dict[str, list[npt.NDArray[np.bool_]]] = {head: [] for head in heads}
    for resample in splits.resamples:
        for head in heads:
            predicted = HEADS[head]().fit(X[resample.train], y[resample.train]).predict(X[resample.test])
            correct[head].append(predicted == y[resample.test])
    return {head: float(np.concatenate(parts).mean()) for head, parts in correct.items()}


def repeats(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the accuracy of each head in each of the four ways, and how many copies are grouped with their original."""
    ids, X, y = labelled_rows(FeatureStore(options.store), options.label, options.layer)
    row_of = {id: row for row, id in enumerate(ids)}
    real: dict[int, Floats] = {}
    if options.copies:
        store = FeatureStore(options.copies)
        copied = [id for id in store.ids() if id in row_of]
        real = {row_of[id]: vector for id, vector in zip(copied, store.take(copied, layer=options.layer), strict=True)}
    count = round(options.share * len(y))
    if real and len(real) < count:
        raise SystemExit(f"{options.copies} must have {count} copies, got {len(real)}. Lower --share")
    for seed in range(options.repeats):
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.choice(sorted(real) or len(y), count, replace=False))
        copies = np.stack([real[row] for row in rows]) if real else with_noise(X, rows, options.noise, rng)
        X_more, y_more = np.concatenate([X, copies]), np.concatenate([y, y[rows]])
        groups = near_duplicate_groups(X_more, options.near_duplicates)
        together = {"near_duplicates": options.near_duplicates}
        yield {
            CLEAN: accuracies(options.heads, X, y, 100 + seed),
            CLEAN_GROUPED: accuracies(options.heads, X, y, 200 + seed, vectors=X, **together),
            NAIVE: accuracies(options.heads, X_more, y_more, 300 + seed),
            GROUPED: accuracies(options.heads, X_more, y_more, 400 + seed, vectors=X_more, **together),
            "cosine": float(np.median(cosines(X, rows, copies))),
            "grouped": float(np.mean(groups[rows] == groups[len(y) :])),
            "largest": int(np.bincount(groups).max()),
        }
        print(f"  repeat {seed + 1} of {options.repeats}", file=sys.stderr, flush=True)


def interval(values: npt.NDArray[np.float64]) -> str:
    """Return a mean in percentage points with half the width of its 95 % interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else np.nan
    return f"{100 * values.mean():+.2f} ± {100 * half:.2f}"


def main() -> None:
    """Measure, and print a Markdown table."""
    parser = make_parser(__doc__)
    parser.add_argument("store", type=Path, nargs="?", help="a store; default: elpv's solar cells")
    parser.add_argument("--label", default="label", help="column of the labels (default: label)")
    parser.add_argument("--layer", help="layer of the store; needed if it has several")
    parser.add_argument("--copies", type=Path, help="a store of the same ids, embedded from real copies")
    parser.add_argument("--share", type=float, default=0.1, help="share of the rows that are copied (0.1)")
    parser.add_argument(
        "--noise", type=float, default=0.25, help="noise, relative to the distance to the nearest other row (0.25)"
    )
    parser.add_argument(
        "--near-duplicates",
        type=float,
        default=NEAR_DUPLICATE_COSINE,
        metavar="COSINE",
        help="centred cosine from which rows are near-duplicates (default: %(default)s)",
    )
    parser.add_argument("--repeats", type=int, default=10, help="repeats, each with new copies and folds (10)")
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=[*HEADS], help="heads (default: all)")
    options = parser.parse_args()
    options.store = options.store or Path(elpv_store().path)
    results = list(repeats(options))
    source = options.copies.name if options.copies else f"noise {options.noise:g} of the distance to the nearest row"
    print(
        f"{options.store.name}, {options.share:.0%} copied ({source}; median centred cosine "
        f"{np.median([result['cosine'] for result in results]):.4f}), near-duplicates from "
        f"{options.near_duplicates:g}: {np.mean([result['grouped'] for result in results]):.1%} of the copies are in "
        f"the group of their original, the largest group has {max(result['largest'] for result in results)} rows; "
        f"{options.repeats} repeats\n"
    )
    rows = [["head", f"accuracy {CLEAN}, %", *(f"{name}: difference, points" for name in ESTIMATES[1:])]]
    for head in options.heads:
        clean, *others = (np.array([result[name][head] for result in results]) for name in ESTIMATES)
        rows.append([head, f"{100 * clean.mean():.2f}", *(interval(values - clean) for values in others)])
    print(markdown_table(rows))
    write_json(options, results)


if __name__ == "__main__":
    main()
