"""What does the protocol `retrieval` take: its time beside scikit-learn query by query, and its memory.

    python benchmarks/retrieval.py [--rows 10000 50000] [--dim 384] [--queries 200] [--json FILE]

Random vectors of 50 classes; a fifth of the rows query the others. scikit-learn's `average_precision_score` and
`ndcg_score` are timed on --queries of these and scaled up. Both compute the cosines; seconds are the processor's. The
memory is the peak of a process, less what it held with the vectors in place.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
from common import make_parser, markdown_table, process_memory, run_self, write_json
from sklearn.metrics import average_precision_score, ndcg_score

from embedpipe.evaluation import run_protocol

CLASSES = 50


def measure(rows: int, dim: int, queries: int) -> dict[str, Any]:
    """Return seconds, memory in bytes and seconds of scikit-learn for so many rows."""
    rng = np.random.default_rng(0)
    y = rng.integers(CLASSES, size=rows)
    X = (rng.standard_normal((CLASSES, dim))[y] + 2 * rng.standard_normal((rows, dim))).astype(np.float32)
    test = rows // 5
    before = process_memory("VmRSS")
    start = time.process_time()
    result = run_protocol("retrieval", X[test:], y[test:], X[:test], y[:test])
    seconds, memory = time.process_time() - start, process_memory("VmHWM") - before
    unit = X.astype(np.float64) / np.linalg.norm(X, axis=1, keepdims=True)
    start = time.process_time()
    scores = unit[:queries] @ unit[test:].T
    precisions = [average_precision_score(y[test:] == y[i], scores[i]) for i in range(queries)]
    ndcg_score(y[:queries, None] == y[test:], scores, k=10)
    scaled = (time.process_time() - start) * test / queries
    return {
        "seconds": seconds,
        "memory": memory,
        "sklearn": scaled,
        "map": [result.metrics["map"], np.mean(precisions)],
    }


def main() -> None:
    """Print a table."""
    parser = make_parser(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 50_000], help="rows (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=384, help="length of the vectors (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=200, help="queries for scikit-learn (default: %(default)s)")
    parser.add_argument("--alone", type=int, help="measure so many rows in this process and print JSON")
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(measure(options.alone, options.dim, options.queries)))
        return
    rows, results = [["rows", "seconds", "scikit-learn, times as long", "memory"]], {}
    for count in options.rows:
        results[count] = one = run_self(
            sys.argv[0], "--alone", count, "--dim", options.dim, "--queries", options.queries
        )
        ratio = one["sklearn"] / one["seconds"]
        rows.append([f"{count:,}", f"{one['seconds']:.1f}", f"{ratio:.1f}", f"{one['memory'] / 1e6:.0f} MB"])
    print(markdown_table(rows))
    write_json(options, results)


if __name__ == "__main__":
    main()
