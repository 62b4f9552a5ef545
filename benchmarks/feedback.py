"""How much should what is not liked count (`UNLIKE` in `querying/feedback.py`)?

    python benchmarks/feedback.py STORE[:COLUMN]... [--queries 1000] [--json FILE]

For each query, a row of the store, the three nearest of its 15 nearest rows that have its label are liked, and the
three nearest that have another are not. The table has the share of the query's label, in %, among the next ten rows
that none of them is, by weight, with the query and without.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import make_parser, write_json

from embedpipe import SimilarityIndex
from embedpipe.querying import feedback
from embedpipe.querying.queries import Query

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
LIKED, NEAREST, NEXT = 3, 15, 10


def shares(index: SimilarityIndex, y: Any, rows: Any) -> tuple[list[list[float]], int]:
    """Return the share by weight, without and with the query, and the number of queries with likes and dislikes."""
    unit = index.check(np.asarray(index.vectors))
    hits: list[list[list[float]]] = [[[] for _ in WEIGHTS] for _ in (False, True)]
    _, near = index.search(unit[rows], NEAREST + 1)
    for row, others in zip(rows, near, strict=True):
        others = others[others != row]
        same = y[others] == y[row]
        groups = [
            [Query("", vector=unit[at], rows=(int(at),)) for at in part[:LIKED]]
            for part in (others[same], others[~same])
        ]
        if len(groups[0]) < LIKED or not groups[1]:
            continue
        for with_query, by_weight in enumerate(hits):
            for weight, found in zip(WEIGHTS, by_weight, strict=True):
                feedback.UNLIKE = weight
                given = [Query("", vector=unit[row])] if with_query else []
                (moved,) = feedback.with_feedback(given, *groups)
                _, ranked = index.search(moved.vector, NEXT + 1 + 2 * LIKED)
                left = [at for at in ranked[0] if at not in (row, *moved.rows)][:NEXT]
                found.append(float(np.mean(y[left] == y[row])))
    return [[100 * float(np.mean(found)) for found in by_weight] for by_weight in hits], len(hits[0][0])


def main() -> None:
    """Measure, and print a table."""
    parser = make_parser(__doc__)
    parser.add_argument("stores", nargs="+", metavar="STORE[:COLUMN]", help="stores, and their label columns (label)")
    parser.add_argument("--queries", type=int, default=1000, help="number of queries (default: 1000)")
    options = parser.parse_args()
    print(f"| data, queries | with the query | {' | '.join(str(weight) for weight in WEIGHTS)} |")
    print(f"|---|---|{'---:|' * len(WEIGHTS)}")
    results = []
    for name in options.stores:
        path, _, label = name.partition(":")
        index = SimilarityIndex.load(path)
        y = np.array(index.store.to_arrow([label or "label"]).column(0).to_pylist())
        rows = np.random.default_rng(0).permutation(len(y))[: options.queries]
        measured, count = shares(index, y, np.sort(rows))
        for with_query, values in zip(("no", "yes"), measured, strict=True):
            print(f"| {name}, {count} | {with_query} | {' | '.join(f'{value:.1f}' for value in values)} |")
            results.append({"store": name, "queries": count, "with_query": with_query, "shares": values})
    write_json(options, results)


if __name__ == "__main__":
    main()
