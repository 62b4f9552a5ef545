"""How much memory does fitting take, as a multiple of the matrix? Linux only.

    python benchmarks/fit_memory.py [--rows 100000] [--only logreg] [--json FILE]

Each case runs in a process of its own, warmed up on a few rows. For an estimator: the matrix, plus the peak of
resident memory during `.fit` minus what was resident just before, divided by the matrix. For `embedpipe.fit` from a
store of that many rows, with splits (80 % train, 10 % validation, 10 % test) and without (5 folds): the peak minus what
was resident before, divided by the matrix. Rows are float32 x 1,280, of ten overlapping classes. scikit-learn's own
estimators get a fifth of the rows; liblinear, which is slow, stops after 50 iterations, which does not change the
memory. The exit code is 1 if a limit is exceeded.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from common import make_parser, process_memory, run_self, synthetic_store, write_json, write_vectors
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import embedpipe
from embedpipe import estimators

DIM, CLASSES, WARM_UP, BLOCK = 1280, 10, 500, 5000
#: Upper limit, for at least this many rows: with few rows the temporary blocks are a larger part.
LIMIT, LIMIT_ROWS = 3.0, 100_000


@dataclass(frozen=True)
class Case:
    """An estimator, whether the limit holds for it, its share of the rows, and the name of its head."""

    make: Callable[[], Any]
    limited: bool = False
    share: float = 1.0
    task: Literal["classification", "regression"] = "classification"
    head: str | None = None


_KNN: dict[str, Any] = {"n_neighbors": 20, "weights": "softmax", "metric": "cosine"}
CASES = {
    "logreg": Case(estimators.TunedLogisticRegression, True, head="logreg"),
    "ridge": Case(estimators.TunedRidgeClassifier, True, head="ridge"),
    "centroid": Case(estimators.CentroidClassifier, True, head="centroid"),
    "knn": Case(lambda: estimators.FaissKNNClassifier(**_KNN), True, head="knn"),
    "ridge, regression": Case(estimators.TunedRidge, True, task="regression", head="ridge"),
    "knn, regression": Case(lambda: estimators.FaissKNNRegressor(**_KNN), True, task="regression", head="knn"),
    "lda": Case(estimators.ShrunkenLDA),
    "scikit-learn RidgeClassifierCV": Case(RidgeClassifierCV, share=0.2),
    "scikit-learn LinearSVC": Case(lambda: LinearSVC(max_iter=50), share=0.2),
    "scikit-learn LinearDiscriminantAnalysis (svd)": Case(LinearDiscriminantAnalysis, share=0.2),
    "scikit-learn StandardScaler + LogisticRegression": Case(
        lambda: make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)), share=0.2
    ),
}


def blocks(rows: int) -> Iterator[tuple[slice, npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
    """Yield blocks of rows that resemble a network's features: not negative, correlated, with overlapping classes."""
    rng = np.random.default_rng(0)
    means = 0.1 * rng.standard_normal((CLASSES, DIM), dtype=np.float32)
    directions = 0.05 * rng.standard_normal((64, DIM), dtype=np.float32)
    for start in range(0, rows, BLOCK):
        part = slice(start, min(start + BLOCK, rows))
        y = rng.integers(0, CLASSES, part.stop - start)
        X = rng.standard_normal((len(y), 64), dtype=np.float32) @ directions
        X += means[y]
        X += rng.standard_normal(X.shape, dtype=np.float32)
        yield part, np.maximum(X, 0, out=X), y


def matrix(rows: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return all blocks in one array, without a second copy of it."""
    X, y = np.empty((rows, DIM), np.float32), np.empty(rows, np.int64)
    for part, features, labels in blocks(rows):
        X[part], y[part] = features, labels
    return X, y


def write_store(path: Path, rows: int, split: bool) -> embedpipe.FeatureStore:
    """Write the rows into a store, with label, value and, if ``split`` is set, split."""
    store = synthetic_store(path, DIM)
    split_names = ("test", "validation", *["train"] * 8)
    for part, X, y in blocks(rows):
        numbers = range(part.start, part.stop)
        columns: dict[str, Any] = {"label": [f"class {label}" for label in y], "value": y.astype(np.float64)}
        if split:
            columns["split"] = [split_names[row % 10] for row in numbers]
        write_vectors(store, [f"{row:08d}" for row in numbers], X, columns)
    return store


def peak_of(work: Callable[[], Any]) -> int:
    """Return by how many bytes resident memory rises at most during a call."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = process_memory("VmRSS")
    work()
    return process_memory("VmHWM") - before


def run_case(name: str, rows: int, store: Path | None) -> dict[str, Any]:
    """Measure one case in this process, after a fit of a few rows, which loads modules and thread buffers."""
    case = CASES[name]
    warnings.simplefilter("ignore", ConvergenceWarning)
    X, y = matrix(WARM_UP if store else rows)
    case.make().fit(X[:WARM_UP], y[:WARM_UP])
    size = 4 * rows * DIM
    if store:
        label = "value" if case.task == "regression" else "label"
        with tempfile.TemporaryDirectory() as folder:
            few = write_store(Path(folder) / "few.features", WARM_UP, split=True)
            embedpipe.fit(few, case.head, label=label, task=case.task)
        start = time.perf_counter()
        peak = peak_of(lambda: embedpipe.fit(store, case.head, label=label, task=case.task))
    else:
        start = time.perf_counter()
        peak = size + peak_of(lambda: case.make().fit(X, y))
    return {"ratio": peak / size, "seconds": time.perf_counter() - start}


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    case: str
    call: str
    rows: int
    ratio: float
    seconds: float
    ok: bool


def measure(name: str, rows: int, store: Path | None) -> Result:
    """Measure a case in a process of its own, and print its line."""
    case = CASES[name]
    rows = rows if store else round(rows * case.share)
    arguments = ["--case", name, "--rows", rows, *(["--store", store] if store else [])]
    measured = run_self(__file__, *arguments)
    limited = case.limited and rows >= LIMIT_ROWS
    ok = not limited or measured["ratio"] < LIMIT
    result = Result(name, f"fit, {store.stem}" if store else "estimator.fit", rows, **measured, ok=ok)
    verdict = "" if not limited else f"  below {LIMIT:g}: {'yes' if ok else 'NO'}"
    print(f"{name:<50}{result.call:<15}{rows:>8}{result.ratio:>7.2f}x{result.seconds:>7.0f} s{verdict}", flush=True)
    return result


def main() -> int:
    """Measure all cases."""
    parser = make_parser(__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the matrix (default: 100,000)")
    parser.add_argument(
        "--only", choices=CASES, action="append", metavar="CASE", help="measure only this case; may be repeated"
    )
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(run_case(options.case, options.rows, options.store)))
        return 0
    if not Path("/proc/self/clear_refs").exists():
        print("left out: needs /proc, which only Linux has")
        return 0
    names = options.only or list(CASES)
    results = [measure(name, options.rows, None) for name in names]
    if stored := [name for name in names if CASES[name].head]:
        with tempfile.TemporaryDirectory() as folder:
            for protocol in ("split", "folds"):
                store = Path(folder) / f"{protocol}.features"
                write_store(store, options.rows, split=protocol == "split")
                results += [measure(name, options.rows, store) for name in stored]
    write_json(options, [asdict(result) for result in results])
    return 0 if all(result.ok for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
