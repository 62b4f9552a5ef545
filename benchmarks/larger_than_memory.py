"""`fit`, `evaluate` and `search` within a limit of memory, beside the same in memory.

    python benchmarks/larger_than_memory.py --store STORE --rows 2000000 --memory 2GiB --only-limited --enforce

A store of made-up vectors is written, block by block, if there is none: clusters of correlated values that overlap, a
class and a number for each row, and 5 % validation and 5 % test rows. Every job runs in a process of its own with the
option ``memory`` and, unless ``--only-limited`` is given, every fit once more with all vectors in memory. The memory
map is made before (EMBEDPIPE_CACHE says where), and its time is printed.

Memory is the peak of what the process holds for itself (RssAnon and RssShmem of /proc/self/status, every 20 ms). Pages
of the map are not counted: the system takes them back when another program needs the memory. With ``--enforce``, the
process cannot map more writable memory of its own than the limit either (RLIMIT_DATA): one byte more is an error. That
counts pages which are never touched as well, so that Arrow is told not to make 1 GiB writable with its first array.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import (
    STORES,
    make_parser,
    markdown_table,
    process_memory,
    run_self,
    seconds,
    synthetic_store,
    write_json,
    write_vectors,
)

import embedpipe
from embedpipe._utils.machine.memory import parse_size

CLASSES = 10
#: Rows that are made up at a time, and those of a commit.
BLOCK = 20_000
SPLITS = np.array(["train"] * 18 + ["validation", "test"])
#: Arrow's allocator, mimalloc, makes its arenas writable as they fill up, and not before.
LAZY_ARENAS = {"MIMALLOC_ARENA_EAGER_COMMIT": "0"}
#: Number of queries of a batch, and of neighbours.
QUERIES, K = 100, 10
HEADS = {"ridge": "label", "ridge of numbers": "number", "lda": "label", "centroid": "label", "logreg": "label"}


def vectors(rows: int, dim: int) -> Iterator[tuple[slice, npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
    """Yield blocks of rows: clusters on a few correlated directions and noise, far from the origin, and the classes."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CLASSES, 64), dtype=np.float32)
    directions = rng.standard_normal((64, dim), dtype=np.float32) * np.geomspace(1, 0.1, 64, dtype=np.float32)[:, None]
    offset = 3 * rng.standard_normal(dim, dtype=np.float32)
    for start in range(0, rows, BLOCK):
        count = min(BLOCK, rows - start)
        y = rng.integers(0, CLASSES, count)
        X = (0.3 * centres[y] + rng.standard_normal((count, 64), dtype=np.float32)) @ directions
        X += offset + rng.standard_normal(X.shape, dtype=np.float32)
        yield slice(start, start + count), X, y


def make_store(path: Path, rows: int, dim: int) -> embedpipe.FeatureStore:
    """Return the store of so many rows; it is written if it is missing."""
    if embedpipe.FeatureStore.exists(path):
        store = embedpipe.FeatureStore(path)
        if (len(store), *store.layers.values()) != (rows, dim):
            raise SystemExit(f"{path} holds {len(store)} rows of {store.layers}: name another folder")
        return store
    store = synthetic_store(path, dim)
    weights = np.random.default_rng(1).standard_normal(dim) / dim**0.5
    for part, X, y in vectors(rows, dim):
        numbers = np.arange(part.start, part.stop)
        columns = {
            "label": [f"class {label}" for label in y],
            "number": X @ weights + np.random.default_rng(part.start).standard_normal(len(X)),
            "split": SPLITS[numbers % len(SPLITS)].tolist(),
        }
        write_vectors(store, [f"{row:09d}" for row in numbers], X, columns)
    return store.refresh()


class Peak:
    """Records the peak of the memory that this process holds for itself, in bytes."""

    def __init__(self) -> None:
        self.bytes, self._done = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.bytes = max(self.bytes, process_memory("RssAnon") + process_memory("RssShmem"))


def fit(store: Path, head: str, memory: str, to: Path) -> dict[str, Any]:
    """Fit a head, save its coefficients, and return what it chose and how good it is."""
    fitted = embedpipe.fit(store, head.split()[0], label=HEADS[head], memory=memory, progress=True)
    np.savez(to, coef=fitted.estimator.coef_, intercept=fitted.estimator.intercept_)
    metrics = {name: values[0] for name, values in fitted.report.metrics.items()}
    return {"chosen": {str(k): str(v) for k, v in fitted.report.chosen.items()}, "metrics": metrics}


def evaluate(store: Path, heads: list[str], memory: str) -> dict[str, Any]:
    """Compare heads, without looking for near-duplicates, which takes hours of 2,000,000 rows."""
    result = embedpipe.evaluate(store, heads=heads, memory=memory, near_duplicates="off", progress=True)
    means = {each.name: float(np.mean(each.metrics["accuracy"])) for each in result.candidates}
    return {"metrics": means, "notes": result.notes}


def search(store: Path, dim: int) -> dict[str, Any]:
    """Search for one query and for a batch; they are rows of the store with noise."""
    rng = np.random.default_rng(2)
    queries = next(vectors(BLOCK, dim))[1][:QUERIES] + 0.1 * rng.standard_normal((QUERIES, dim)).astype(np.float32)
    one = seconds(lambda: embedpipe.search(store, queries[0], k=K, exact=True, progress=False))
    batch = seconds(lambda: embedpipe.search(store, queries, k=K, exact=True, progress=False))
    return {"one": one, "batch": batch}


def run_job(options: argparse.Namespace) -> dict[str, Any]:
    """Run one job in this process."""
    warnings.simplefilter("ignore")
    if options.enforce:
        limit = parse_size("memory", options.memory)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    kind, _, head = options.job.partition(" ")
    work: dict[str, Callable[[], dict[str, Any]]] = {
        "fit": lambda: fit(options.store, head, options.memory, options.to),
        "evaluate": lambda: evaluate(options.store, options.heads, options.memory),
        "search": lambda: search(options.store, options.dim),
    }
    start, processor = time.perf_counter(), time.process_time()
    with Peak() as peak:
        result = work[kind]()
    spent = {"seconds": time.perf_counter() - start, "processor": time.process_time() - processor}
    return {**spent, "peak": peak.bytes, **result}


def difference(one: Path, other: Path) -> float:
    """Return the largest difference of coefficients, relative to the largest one."""
    with np.load(one) as a, np.load(other) as b:
        return max(float(np.abs(a[name] - b[name]).max() / np.abs(b[name]).max()) for name in a.files)


def main() -> None:
    """Run the jobs and print the table."""
    parser = make_parser(__doc__)
    usual = STORES / "larger_than_memory.features"
    parser.add_argument("--store", type=Path, default=usual, help="its folder; it is written if it is missing")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--memory", default="700MB", help="the limit of a process")
    parser.add_argument("--jobs", nargs="*", default=[*(f"fit {head}" for head in HEADS), "evaluate", "search"])
    parser.add_argument("--heads", nargs="*", default=["logreg", "lda", "ridge", "centroid"], help="for evaluate")
    parser.add_argument("--only-limited", action="store_true", help="leave out the runs in memory")
    parser.add_argument("--enforce", action="store_true", help="refuse allocations above the limit")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--to", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(run_job(options)))
        return
    store = make_store(options.store, options.rows, options.dim)
    size = 4 * options.rows * options.dim
    print(f"{options.rows:,} x {options.dim}: {size / 1e9:.2f} GB; map: {seconds(store.mapped):.0f} s", flush=True)
    results: dict[str, Any] = {"rows": options.rows, "dim": options.dim, "memory": options.memory, "jobs": {}}
    columns = ["seconds", "processor seconds"]
    rows = [["job", "peak, limited", *columns, "peak, in memory", *columns, "difference of coefficients"]]
    for job in options.jobs:
        runs = {}
        both = job.startswith("fit") and not options.only_limited  # evaluate would find its results in the cache
        for kind in ("limited", "in memory") if both else ("limited",):
            memory = options.memory if kind == "limited" else "1TB"
            to = options.store.with_suffix(f".{kind}.npz")
            given = [
                "--store",
                options.store,
                "--dim",
                options.dim,
                "--memory",
                memory,
                "--job",
                job,
                "--to",
                to,
                "--heads",
                *options.heads,
            ]
            enforce = ["--enforce"] if options.enforce and kind == "limited" else []
            try:
                runs[kind] = run_self(__file__, *given, *enforce, environment=LAZY_ARENAS if enforce else None)
            except subprocess.CalledProcessError as error:
                runs[kind] = {"failed": error.returncode}
            print(f"{job}, {kind}: {json.dumps(runs[kind])}", file=sys.stderr, flush=True)
        files = [options.store.with_suffix(f".{kind}.npz") for kind in runs]
        fitted = len(files) == 2 and all("peak" in run for run in runs.values())
        if fitted:
            runs["difference"] = difference(*files)
        results["jobs"][job] = runs
        cells = [
            "failed" if "failed" in run else f"{run[name] / 1e9:.2f} GB" if name == "peak" else f"{run[name]:,.0f}"
            for run in (runs.get("limited"), runs.get("in memory"))
            for name in ("peak", "seconds", "processor")
            if run
        ]
        rows.append([job, *cells, *["—"] * (6 - len(cells)), f"{runs['difference']:.1e}" if fitted else "—"])
    print(markdown_table(rows))
    write_json(options, results)


if __name__ == "__main__":
    main()
