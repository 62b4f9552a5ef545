"""How does the time of finding duplicates grow, and what memory does `clean` take?

    python benchmarks/clean_at_scale.py [--rows 33000:512 100000:256 300000:256 1000000:256] [--exact] [--json FILE]

Clustered random vectors with random perceptual hashes; 9 % of the rows are copies with small changes. Processor time of
the graph of neighbours and of the pairs. `--exact` compares all pairs of the first size too. `--clean` also writes the
last size as vectors with labels, of which 2 % are wrong, imports them, and runs the command `clean` in a process of its
own: wall time and peak memory.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import make_parser, markdown_table, write_json

from embedpipe.decoding.hashing.perceptual import PerceptualHashes
from embedpipe.neighbours.duplicates import duplicate_pairs, near_duplicate_groups
from embedpipe.neighbours.exact import normalised
from embedpipe.neighbours.graph import neighbour_graph

NEIGHBOURS = 20


def make_vectors(rows: int, dim: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return clustered vectors, (rows, dim), of which the last 9 % are copies, and their clusters."""
    rng = np.random.default_rng(0)
    copies = rows * 9 // 100
    centres = rng.standard_normal((max(10, rows // 300), dim), np.float32)
    X, cluster = np.empty((rows, dim), np.float32), rng.integers(0, len(centres), rows)
    for start in range(0, rows, 50_000):
        part = slice(start, min(start + 50_000, rows))
        count = part.stop - part.start
        X[part] = centres[cluster[part]] + 0.7 * rng.standard_normal((count, dim), np.float32)
    X[rows - copies :] = X[:copies] + 0.1 * rng.standard_normal((copies, dim), np.float32)
    cluster[rows - copies :] = cluster[:copies]
    return X, cluster


def measure(rows: int, dim: int, exact: bool) -> dict[str, Any]:
    """Return seconds of processor time, and the share of the copies that are found."""
    Z = normalised(make_vectors(rows, dim)[0])
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2**64, (rows, 4), dtype=np.uint64)
    copies = rows * 9 // 100
    flips = np.packbits(rng.random((copies, 256)) < 0.04, axis=1).view(np.uint64)
    bits[rows - copies :] = bits[:copies] ^ flips
    seconds: dict[str, Any] = {"rows": rows, "dim": dim}
    start = time.process_time()
    graph = neighbour_graph(Z, NEIGHBOURS)
    seconds["graph"] = time.process_time() - start
    for name, hashes in (("cosines", None), ("hashes", PerceptualHashes(bits, np.ones(rows, bool)))):
        start = time.process_time()
        pairs = duplicate_pairs(graph, 0.95, hashes)
        seconds[name] = time.process_time() - start
        found = np.isin(np.arange(copies), pairs.left[pairs.right - pairs.left == rows - copies])
        seconds[f"{name}: recall"] = float(found.mean())
    seconds["recall"] = graph.recall.mean
    if exact:
        start = time.process_time()
        near_duplicate_groups(Z)
        seconds["all pairs"] = time.process_time() - start
    return seconds


def run_clean(rows: int, dim: int) -> dict[str, float]:
    """Import vectors with labels and run `embedpipe clean` on them; return seconds and the peak of memory in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        vectors, store = Path(folder) / "vectors.npy", Path(folder) / "store"
        ids, labels = Path(folder) / "ids.txt", Path(folder) / "labels.txt"
        X, cluster = make_vectors(rows, dim)
        np.save(vectors, X)
        ids.write_text("\n".join(f"row-{row:08d}" for row in range(rows)), encoding="utf-8")
        # Ten classes of many clusters each, and 2 % of the labels wrong.
        wrong = np.random.default_rng(2).random(rows) < 0.02
        labels.write_text("\n".join(f"class {number}" for number in (cluster + wrong) % 10), encoding="utf-8")
        del X
        run = [sys.executable, "-m", "embedpipe"]
        given = [
            str(vectors),
            "--ids",
            str(ids),
            "--labels",
            str(labels),
            "--to",
            str(store),
            "--name",
            "made/up",
            "--quiet",
        ]
        subprocess.run([*run, "import-vectors", *given], check=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        vectors.unlink()
        start = time.perf_counter()
        subprocess.run([*run, "clean", str(store), "--to", str(Path(folder) / "findings.parquet")], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # The peak is that of the largest child, which import-vectors is not.
        return {
            "wall": time.perf_counter() - start,
            "processor": after.ru_utime - before.ru_utime,
            "peak bytes": 1024 * after.ru_maxrss,
        }


def main() -> None:
    """Measure and print a table."""
    parser = make_parser(__doc__)
    parser.add_argument("--rows", nargs="+", default=["33000:512", "100000:256", "300000:256", "1000000:256"])
    parser.add_argument("--exact", action="store_true", help="Compare all pairs of the first size too.")
    parser.add_argument("--clean", action="store_true", help="Run the command on the last size.")
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    for number, size in enumerate(options.rows):
        rows, dim = map(int, size.split(":"))
        results.append(measure(rows, dim, options.exact and number == 0))
        print(results[-1], flush=True)
    names = ["rows", "dim", "graph", "hashes", "all pairs", "recall", "cosines: recall", "hashes: recall"]
    rows_of = [[f"{each[name]:,.3g}" if name in each else "" for name in names] for each in results]
    print(markdown_table([names, *rows_of]))
    for smaller, larger in pairwise(results):
        if smaller["dim"] == larger["dim"]:
            times = [each["graph"] + each["hashes"] for each in (smaller, larger)]
            growth = np.log(times[1] / times[0]) / np.log(larger["rows"] / smaller["rows"])
            print(f"{smaller['rows']:,} to {larger['rows']:,} rows: n^{growth:.2f}")
    command = run_clean(*map(int, options.rows[-1].split(":"))) if options.clean else {}
    print(command)
    write_json(options, {"sizes": results, "clean": command})


if __name__ == "__main__":
    main()
