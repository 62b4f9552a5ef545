"""Does the search index keep its promise, how fast is it, and how does it compare with FAISS, usearch and hnswlib?

    python benchmarks/search_index.py seeds   [--rows 100000] [--dim 512] [--seeds 20]
    python benchmarks/search_index.py store   [--rows 1000000] [--dim 256] [--folder FOLDER]
    python benchmarks/search_index.py real    --vectors STORE FILE.npy ...
    python benchmarks/search_index.py foreign --store STORE --queries FILE.npy
    python benchmarks/search_index.py filters [--rows 100000] [--dim 512]
    python benchmarks/search_index.py peers   [--rows 100000] [--dim 512]

One thread each, in processor seconds, so that other programs disturb little; ratios are of one run. The data are those
of `knn_speed.py`. "seeds": the recall that is promised and measured for each of several data sets, and that of other
queries. "store": a store is written and indexed; then the time to build, bytes a row, searches one by one and in a
batch beside exact search and FAISS alone, the time of the whole command ``embedpipe search``, and the memory of opening
the index. "real": vectors of stores or files, of which up to 2,000 rows are queries and not in the index. "foreign":
queries unlike the store, with the gate and without. "filters": random rows, the rows of one region, and whole classes,
50, 10, 1 and 0.1 %, in the cells, and as they are used (up to 1,000 rows are searched exactly). "peers": FAISS's
IVF,SQ8,RFlat with the same centroids, probes and candidates, and usearch and hnswlib (``pip install usearch hnswlib``),
with their settings raised until they reach the same recall.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from common import STORES, make_parser, markdown_table, write_json
from knn_speed import make_data

import embedpipe
from embedpipe.backbones import LayerSpec
from embedpipe.decoding import Preprocessing
from embedpipe.neighbours import NearRows, approximate, make_cells, nearest_rows, normalised, tune
from embedpipe.neighbours.cells import cell_of_rows, centroids_of, empty_cells
from embedpipe.neighbours.tuning import NO_GATE
from embedpipe.store.schema import vector_column

K = 10
TARGETS = (0.95, 0.99)
QUERIES = 2000
SHARES = (0.5, 0.1, 0.01, 0.001)

Floats = npt.NDArray[np.float32]


def clock(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the processor seconds of a call, and its result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def recall(scores: npt.NDArray[Any], exact: npt.NDArray[Any]) -> float:
    """Return the share of neighbours that are as near as the exact ones."""
    return float((scores >= exact[:, -1:] - 1e-12).mean())


def seeds(options: Any) -> list[dict[str, Any]]:
    """Promise, measure, and search for other queries, for several data sets."""
    results = []
    for seed in range(options.seeds):
        X, _ = make_data(options.rows, options.dim, 1000 + seed)
        Q = normalised(make_data(QUERIES, options.dim, 5000 + seed)[0])
        exact = nearest_rows(Q, X, K, "cosine", 1)[0]
        build, cells = clock(lambda X=X: make_cells(X, "cosine", n_jobs=1))
        for target in TARGETS:
            seconds, (tuning, measured) = clock(
                lambda X=X, cells=cells, target=target: tune(X, "cosine", cells, target, (K, 100), 1)
            )
            search = NearRows(X, "cosine", cells, tuning)
            took, (scores, _) = clock(lambda search=search, Q=Q: search.search(Q, K, 1))
            results.append(
                {
                    "seed": seed,
                    "target": target,
                    "mean": measured.mean,
                    "at least": measured.at_least,
                    "other queries": recall(scores, exact),
                    "probes": tuning.probes[0],
                    "build": build,
                    "tune": seconds,
                    "us a query": 1e6 * took / len(Q),
                }
            )
            print(results[-1], flush=True)
    for target in TARGETS:
        mine = [each for each in results if each["target"] == target]
        reached = sum(each["at least"] >= target for each in mine)
        others = [each["other queries"] for each in mine]
        print(
            f"target {target}: bound reaches it on {reached} of {len(mine)}; other queries mean {np.mean(others):.4f}, "
            f"least {min(others):.4f}; measured mean {np.mean([each['mean'] for each in mine]):.4f}"
        )
    return results


def real(options: Any) -> list[dict[str, Any]]:
    """Promise, measure, and search for rows that are not in the index, for vectors of stores or files."""
    results = []
    for place in options.vectors:
        X = np.load(place) if place.endswith(".npy") else embedpipe.FeatureStore(place).to_numpy()
        order = np.random.default_rng(0).permutation(len(X))
        count = min(QUERIES, len(X) // 5)
        Q, X = normalised(X[order[:count]]), X[np.sort(order[count:])]
        exact = nearest_rows(Q, X, K, "cosine", 1)[0]
        cells = make_cells(X, "cosine", n_jobs=1)
        for target in TARGETS:
            tuning, measured = tune(X, "cosine", cells, target, (K, 100), 1)
            search = NearRows(X, "cosine", cells, tuning)
            took, (scores, _) = clock(lambda search=search, Q=Q: search.search(Q, K, 1))
            results.append(
                {
                    "vectors": Path(place).name,
                    "rows, dim": X.shape,
                    "target": target,
                    "mean": measured.mean,
                    "at least": measured.at_least,
                    "other rows": recall(scores, exact),
                    "cells, probes": (cells.nlist, tuning.probes[0]),
                    "us a query": 1e6 * took / len(Q),
                }
            )
            print(results[-1], flush=True)
    return results


def make_store(X: Floats, path: Path) -> embedpipe.FeatureStore:
    """Write vectors as a store, in blocks."""
    recipe = Preprocessing(resize=(32,), crop=(32, 32), interpolation="bilinear")
    layer = LayerSpec("features", "none", X.shape[1])
    store = embedpipe.FeatureStore.create(path, embedpipe.BackboneSpec("timm", "x", "0" * 64, True, (layer,), recipe))
    for start in range(0, len(X), 100_000):
        stop = min(start + 100_000, len(X))
        columns: dict[str, Any] = {
            "id": [f"item-{row:08d}.jpg" for row in range(start, stop)],
            "content_hash": [f"{row:064x}" for row in range(start, stop)],
            "source_root": ["made up"] * (stop - start),
            "embedding": vector_column(X[start:stop]),
        }
        store.write(pa.table(columns))
    return store.refresh()


def raw_faiss(index: Any, X: Floats, probes: int, candidates: int) -> Any:
    """Return FAISS's IVF,SQ8,RFlat with the same centroids: candidates are ranked by the vectors in memory."""
    import faiss

    own = empty_cells(centroids_of(index), "cosine", "QT_8bit", X[:: max(1, len(X) // 100_000)], 1)
    keys, cells = np.arange(len(X)), cell_of_rows(index).astype(np.int64)
    own.add_core(len(X), *(faiss.swig_ptr(each) for each in (X, keys, cells)))
    refined = faiss.IndexRefineFlat(own, faiss.swig_ptr(X))
    own.this.disown()
    refined.own_fields = True
    refined.k_factor = candidates
    own.nprobe = probes
    return refined


def store(options: Any) -> dict[str, Any]:
    """Measure a large store from the outside."""
    folder = options.folder or Path(tempfile.mkdtemp())
    path = folder / "large.features"
    result = {**searches(options, path), **commands(path)}
    if options.folder is None:
        shutil.rmtree(folder)
    return result


def searches(options: Any, path: Path) -> dict[str, Any]:
    """Write and index a store, and search it in this process."""
    X, _ = make_data(options.rows, options.dim, 1)
    Q = normalised(make_data(QUERIES, options.dim, 2)[0])
    made = make_store(X, path)
    made.mapped()
    seconds, index = clock(lambda: embedpipe.SimilarityIndex.build(made, recall=options.recall, progress=False))
    manifest = index.saved.manifest
    exact_seconds, (exact, _) = clock(lambda: index.search(Q, K, exact=True))
    near_seconds, (scores, _) = clock(lambda: index.search(Q, K))
    refined = raw_faiss(index.saved.cells, normalised(X, out=X), manifest.tuning.probes[0], manifest.tuning.candidates)
    raw_seconds, (raw, _) = clock(lambda: refined.search(Q, K))
    one_by_one = clock(lambda: [index.search(Q[at : at + 1], K) for at in range(200)])[0] / 200
    exact_one = clock(lambda: [index.search(Q[at : at + 1], K, exact=True) for at in range(10)])[0] / 10
    return {
        "rows": len(X),
        "build, processor seconds": seconds,
        "bytes a row": manifest.size / len(X),
        "cells, probes": (manifest.cells, *manifest.tuning.probes),
        "recall": manifest.recall.mean,
        "at least": manifest.recall.at_least,
        "recall of other queries": recall(scores, exact),
        "recall of FAISS alone": float((raw >= exact[:, -1:] - 1e-5).mean()),
        "batch: ms a query": 1000 * near_seconds / len(Q),
        "batch: exact / index": exact_seconds / near_seconds,
        "batch: FAISS alone / index": raw_seconds / near_seconds,
        "one by one: ms a query": 1000 * one_by_one,
        "one by one: exact / index": exact_one / one_by_one,
    }


def commands(path: Path) -> dict[str, float]:
    """Search the store by the command, and open its index, in processes of their own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "embedpipe", "search", str(path), "item-00000500.jpg", "-k", "5"]
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    script = (
        "import embedpipe, faiss, re; from embedpipe.querying import SimilarityIndex\n"
        "own = lambda: int(re.search(r'RssAnon:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024\n"
        f"store = embedpipe.FeatureStore({str(path)!r}); before = own()\n"
        "index = SimilarityIndex.load(store); state = index.state; print(own() - before)"
    )
    shown = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return {
        "embedpipe search, processor seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "opening, MB of its own": float(shown.stdout),
    }


def foreign(options: Any) -> list[dict[str, Any]]:
    """Search a store for vectors of other items."""
    X = embedpipe.FeatureStore(options.store).to_numpy()
    Q = normalised(np.load(options.queries))
    exact = nearest_rows(Q, X, K, "cosine", 1)[0]
    cells = make_cells(X, "cosine", n_jobs=1)
    results = []
    for target in TARGETS:
        tuning, measured = tune(X, "cosine", cells, target, (K, 100), 1)
        for name, used in (("with the gate", tuning), ("without", replace(tuning, gate=NO_GATE))):
            scores, _ = NearRows(X, "cosine", cells, used).search(Q, K, 1)
            results.append({"target": target, "gate": name, "rows": measured.mean, "foreign": recall(scores, exact)})
            print(results[-1], flush=True)
    return results


def filters(options: Any) -> list[dict[str, Any]]:
    """Search within random rows, and within the rows nearest to one of them, as those of a class are."""
    X, y = make_data(options.rows, options.dim, 1)
    Q = normalised(make_data(200, options.dim, 2)[0])
    cells = make_cells(X, "cosine", n_jobs=1)
    tuning, _ = tune(X, "cosine", cells, 0.95, (K, 100), 1)
    search = NearRows(X, "cosine", cells, tuning)
    rng = np.random.default_rng(0)
    results = []
    sizes = np.bincount(y)
    centre = normalised(X[rng.integers(0, len(X), 1)])
    closest = nearest_rows(centre, X, round(SHARES[0] * len(X)), "cosine", 1)[1][0]
    for share in SHARES:
        region = np.zeros(len(X), bool)
        region[closest[: round(share * len(X))]] = True
        # Classes at random, the largest that fit, until there are so many rows.
        classes = np.zeros(len(X), bool)
        for each in rng.permutation(len(sizes)):
            if classes.sum() + sizes[each] <= share * len(X):
                classes |= y == each
        if not classes.any():  # the smallest class has more rows
            classes = y == sizes.argmin()
        kinds = {"random": rng.random(len(X)) < share, "one region": region, "whole classes": classes}
        for kind, mask in kinds.items():
            within = np.flatnonzero(mask)
            exact, _ = nearest_rows(Q, X, min(K, len(within)), "cosine", 1, within=within)
            with mock.patch.object(approximate, "FEW_ROWS", 0), mock.patch.object(approximate, "MANY_QUERIES", 1 << 30):
                seconds, (scores, rows) = clock(lambda w=within: search.search(Q, min(K, len(w)), 1, within=w))
            real, (own, _) = clock(lambda w=within: search.search(Q[:1], min(K, len(w)), 1, within=w))
            results.append(
                {
                    "share": share,
                    "rows": kind,
                    "passing": len(within),
                    "recall in all cells": recall(scores, exact),
                    "wrong": int((~mask[rows]).sum()),
                    "short": int((rows < 0).sum()),
                    "ms a query in all cells": 1000 * seconds / len(Q),
                    "ms a query as used": 1000 * real,
                    "recall as used": recall(own, exact[:1]),
                }
            )
            print(results[-1], flush=True)
    return results


def peers(options: Any) -> list[dict[str, Any]]:
    """Compare with FAISS alone, usearch and hnswlib at equal recall, in one run."""
    import hnswlib
    from usearch.index import Index

    X, _ = make_data(options.rows, options.dim, 1)
    Q = normalised(make_data(QUERIES, options.dim, 2)[0])
    X = normalised(X, out=X)
    exact_seconds, (exact, _) = clock(lambda: nearest_rows(Q, X, K, "cosine", 1))
    kth = exact[:, -1:] - 1e-6

    def share(found: npt.NDArray[Any]) -> float:
        return float((np.einsum("qkd,qd->qk", X[found], Q) >= kth).mean())

    build, cells = clock(lambda: make_cells(X, "cosine", n_jobs=1))
    built = {"embedpipe": build}
    graph = hnswlib.Index("ip", options.dim)
    graph.init_index(len(X), M=16, ef_construction=100)
    graph.set_num_threads(1)
    built["hnswlib"], _ = clock(lambda: graph.add_items(X, num_threads=1))
    other = Index(ndim=options.dim, metric="ip", dtype="f32", connectivity=16, expansion_add=100)
    built["usearch"], _ = clock(lambda: other.add(np.arange(len(X)), X, threads=1))
    results = []
    for target in TARGETS:
        tuning, _ = tune(X, "cosine", cells, target, (K, 100), 1)
        search = NearRows(X, "cosine", cells, tuning)
        seconds, (_, rows) = clock(lambda s=search: s.search(Q, K, 1))
        goal = share(rows)
        results.append({"target": target, "library": "embedpipe", "recall": goal, "us": 1e6 * seconds / len(Q)})
        refined = raw_faiss(cells, X, tuning.probes[0], tuning.candidates)
        seconds, (_, rows) = clock(lambda r=refined: r.search(Q, K))
        results.append({"target": target, "library": "FAISS", "recall": share(rows), "us": 1e6 * seconds / len(Q)})
        for name in ("hnswlib", "usearch"):
            for width in (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512):
                if name == "hnswlib":
                    graph.set_ef(width)
                    seconds, (rows, _) = clock(lambda: graph.knn_query(Q, K, num_threads=1))
                else:
                    other.expansion_search = width
                    seconds, rows = clock(lambda: other.search(Q, K, threads=1).keys)
                found = share(np.asarray(rows, np.int64))
                if found >= goal:
                    break
            results.append({"target": target, "library": name, "recall": found, "us": 1e6 * seconds / len(Q)})
    results.append({"target": 1, "library": "exact", "recall": 1.0, "us": 1e6 * exact_seconds / len(Q)})
    built["FAISS"], built["exact"] = build, 0.0
    rows = [["target", "library", "recall@10", "µs a query", "built, s"]]
    for each in results:
        each["built"] = built[each["library"]]
        rows.append(
            [f"{each['target']}", each["library"], f"{each['recall']:.4f}", f"{each['us']:.0f}", f"{each['built']:.1f}"]
        )
    print(markdown_table(rows, left=(1,)))
    return results


def main() -> int:
    """Measure one part and print it."""
    parser = make_parser(__doc__)
    parser.add_argument("part", choices=["seeds", "store", "real", "foreign", "filters", "peers"])
    parser.add_argument("--rows", type=int)
    parser.add_argument("--dim", type=int)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--recall", type=float, default=0.98)
    parser.add_argument("--folder", type=Path, help="where to keep the large store (default: a temporary folder)")
    parser.add_argument("--store", type=Path, default=STORES / "clothing.features")
    parser.add_argument("--vectors", nargs="+", default=[], help="stores or .npy files")
    parser.add_argument("--queries", type=Path)
    options = parser.parse_args()
    large = options.part == "store"
    options.rows = options.rows or (1_000_000 if large else 100_000)
    options.dim = options.dim or (256 if large else 512)
    parts: dict[str, Callable[[Any], Any]] = {
        "seeds": seeds,
        "store": store,
        "real": real,
        "foreign": foreign,
        "filters": filters,
        "peers": peers,
    }
    result = parts[options.part](options)
    if isinstance(result, dict):
        for name, value in result.items():
            print(f"{name}: {value}")
    write_json(options, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
