"""Do clusters agree with labels? The default of `embedpipe clusters`, k-means and HDBSCAN on the same vectors.

    python benchmarks/clusters.py STORE[:COLUMN]... [--most 5000] [--json FILE]

Adjusted Rand index and normalised mutual information with the labels, which no method sees. k-means is given the number
of classes, and 20. HDBSCAN works on the first 15 principal components, as it finds next to nothing in more; what it
leaves out is one class of its own. Processor seconds, without the graph of neighbours for none.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt
from common import make_parser, markdown_table, write_json
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

import embedpipe
from embedpipe._utils.progress import Progress
from embedpipe.clustering.communities import cluster_rows
from embedpipe.heads.training.vectors import read_finite
from embedpipe.neighbours.exact import normalised


def read(source: str, most: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
    """Return unit vectors less their mean, and labels."""
    path, _, column = source.partition(":")
    store = embedpipe.FeatureStore(path)
    table = store.to_arrow(["id", column or "label"])
    table = table.filter(table.column(1).is_valid())
    X = read_finite(store, store.spec.layers[-1:], table["id"].combine_chunks())
    drawn = np.random.default_rng(0).permutation(len(X))[:most]
    X, y = X[drawn], np.array(table.column(1).to_pylist())[drawn]
    return normalised(X - X.mean(axis=0)), y


def main() -> None:
    """Measure and print a table."""
    parser = make_parser(__doc__)
    parser.add_argument("stores", nargs="+", metavar="STORE[:COLUMN]")
    parser.add_argument("--most", type=int, default=5000, help="Rows of a store that are drawn.")
    options = parser.parse_args()
    rows = [["data", "method", "clusters", "left out or between, %", "ARI", "NMI", "s"]]
    for source in options.stores:
        Z, y = read(source, options.most)
        few = PCA(15, random_state=0).fit_transform(Z)
        smallest = max(10, len(Z) // 200)

        def communities(Z: npt.NDArray[np.float32] = Z) -> tuple[npt.NDArray[Any], float]:
            number, shares = cluster_rows(Z, 1.0, 0, Progress(False))
            return number, float((shares < 0.5).mean())

        def k_means(k: int, Z: npt.NDArray[np.float32] = Z) -> tuple[npt.NDArray[Any], float]:
            return KMeans(k, n_init=1, random_state=0).fit_predict(Z), 0.0

        def hdbscan(few: Any = few, smallest: int = smallest) -> tuple[npt.NDArray[Any], float]:
            number = HDBSCAN(min_cluster_size=smallest, min_samples=5, copy=True).fit_predict(few)
            return number, float((number < 0).mean())

        classes = len(np.unique(y))
        methods = {
            "clusters": communities,
            f"k-means, {classes} as the classes": lambda k=classes: k_means(k),
            "k-means, 20": lambda: k_means(20),
            "HDBSCAN, 15 components": hdbscan,
        }
        for name, method in methods.items():
            start = time.process_time()
            number, outside = method()
            seconds = time.process_time() - start
            ari, nmi = (score(y, number) for score in (adjusted_rand_score, normalized_mutual_info_score))
            count = len(np.unique(number[number >= 0]))
            rows.append(
                [source, name, str(count), f"{100 * outside:.0f}", f"{ari:.2f}", f"{nmi:.2f}", f"{seconds:.1f}"]
            )
            print(rows[-1], flush=True)
    print(markdown_table(rows, (0, 1)))
    write_json(options, rows)


if __name__ == "__main__":
    main()
