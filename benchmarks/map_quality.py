"""How long does a map take, and how many neighbours does it keep?

    python benchmarks/map_quality.py [--store STORE] [--rows 100000 1000000] [--json FILE]

Vectors of a store, or made up: groups of points around 1,000 centres, whose distances vary as those of photos do. The
share of the 10 nearest neighbours by cosine that are also among the 10 nearest on the map is measured on 2,000 rows;
that of PCA alone is beside it.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from common import make_parser, markdown_table, write_json

from embedpipe import FeatureStore
from embedpipe._utils.progress import Progress
from embedpipe.neighbours import nearest_rows, normalised, without_itself
from embedpipe.report.pictures.projection import _principal, project

#: Rows whose neighbours are compared.
SAMPLE = 2000
DIM = 256


def made_up(rows: int) -> np.ndarray:
    """Return float32 vectors in groups of different sizes."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((1000, DIM)).astype(np.float32)
    group = random.choice(1000, rows, p=random.dirichlet(np.ones(1000)))
    noise = random.standard_normal((rows, DIM), np.float32) * random.uniform(0.3, 1, (rows, 1)).astype(np.float32)
    return centres[group] + noise


def kept(vectors: np.ndarray, points: np.ndarray) -> float:
    """Return the share of 10 nearest neighbours that are the 10 nearest on the map."""
    unit = normalised(vectors)
    chosen = np.sort(np.random.default_rng(1).choice(len(unit), min(SAMPLE, len(unit)), replace=False))
    _, wanted = without_itself(*nearest_rows(unit[chosen], unit, 11, "cosine"), chosen)
    _, drawn = without_itself(*nearest_rows(points[chosen], points, 11, "euclidean"), chosen)
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(wanted, drawn, strict=True)]))


def main() -> None:
    """Measure each size, and print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--store", help="measure the vectors of this store")
    parser.add_argument("--rows", type=int, nargs="*", default=[], help="numbers of made-up rows to measure")
    options: argparse.Namespace = parser.parse_args()
    cases = [(f"made up, {DIM} dimensions", rows) for rows in options.rows]
    if options.store:
        cases.insert(0, (options.store, 0))
    results = []
    for name, rows in cases:
        vectors = made_up(rows) if rows else np.asarray(FeatureStore(options.store).to_numpy())
        start, wall = time.process_time(), time.perf_counter()
        points, method = project(vectors, 0, Progress(True))
        cpu, wall = time.process_time() - start, time.perf_counter() - wall
        share, pca = kept(vectors, points), kept(vectors, _principal(normalised(vectors), 0))
        print(method)
        results.append({"vectors": name, "rows": len(vectors), "cpu": cpu, "wall": wall, "kept": share, "pca": pca})
    titles = ["vectors", "rows", "processor seconds", "10 nearest kept", "by PCA"]
    lines = [
        [str(r["vectors"]), f"{r['rows']:,}", f"{r['cpu']:.0f}", f"{r['kept']:.2f}", f"{r['pca']:.3f}"] for r in results
    ]
    print(markdown_table([titles, *lines]))
    write_json(options, results)


if __name__ == "__main__":
    main()
