"""Does `clean` find wrong labels, and better than the usual score? Planted errors in stores with good labels.

    python benchmarks/label_errors.py STORE[:COLUMN]... [--share 0.05] [--draws 3] [--json FILE]

In each draw a share of the labels is replaced: "uniform" by any other class, "similar" by the class whose mean vector
is nearest. Labels are then judged as `clean` does: by heads of five folds and by the neighbours. Compared on the same
probabilities: self-confidence, which is cleanlab's default, its normalised margin, and parts of what `clean` does.
Average precision, and the precision of as many rows as were changed. Labels that were wrong before count as false
alarms.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import numpy.typing as npt
from common import make_parser, markdown_table, write_json
from sklearn.metrics import average_precision_score

import embedpipe
from embedpipe.cleaning.held_out import held_out_probabilities
from embedpipe.cleaning.judging.label_errors import doubt_of_labels, with_neighbours
from embedpipe.heads.training.vectors import read_finite
from embedpipe.neighbours.exact import normalised
from embedpipe.neighbours.graph import neighbour_graph
from embedpipe.splits.make import make_splits

KINDS = ("uniform", "similar")
NEIGHBOURS = 20


def plant(y: npt.NDArray[Any], Z: npt.NDArray[Any], kind: str, share: float, seed: int) -> npt.NDArray[Any]:
    """Return the class numbers with wrong ones planted."""
    rng, n_classes = np.random.default_rng(seed), int(y.max()) + 1
    means = np.array([Z[y == number].mean(axis=0) for number in range(n_classes)])
    likeness = means @ means.T
    np.fill_diagonal(likeness, -np.inf)
    planted = y.copy()
    for row in rng.permutation(len(y))[: round(share * len(y))]:
        others = np.delete(np.arange(n_classes), y[row])
        planted[row] = rng.choice(others) if kind == "uniform" else likeness[y[row]].argmax()
    return planted


def measure(source: str, options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Return average precision and precision of each kind of error and score."""
    path, _, column = source.partition(":")
    store = embedpipe.FeatureStore(path)
    table = store.to_arrow(["id", column or "label"])
    table = table.filter(table.column(1).is_valid())
    X = read_finite(store, store.spec.layers[:1], table["id"].combine_chunks())
    y = np.unique(np.array(table.column(1).to_pylist()), return_inverse=True)[1]
    Z = normalised(X - X.mean(axis=0))
    graph = neighbour_graph(Z, NEIGHBOURS)
    results: dict[str, dict[str, list[float]]] = {}
    for kind in KINDS:
        for seed in range(options.draws):
            planted = plant(y, Z, kind, options.share, seed)
            wrong, rows = planted != y, np.arange(len(y))
            ids = [str(row) for row in rows]
            splits = make_splits(ids, planted, task="classification", vectors=X, repeats=1, seed=seed)
            alone = np.nan_to_num(held_out_probabilities(X, rows, planted, splits, "logreg")).clip(1e-6)
            alone /= alone.sum(axis=1, keepdims=True)
            even = np.full_like(alone, 1 / alone.shape[1])
            joined = with_neighbours(alone, planted, graph.positions, graph.scores)
            votes = 2 * with_neighbours(even, planted, graph.positions, graph.scores) - even
            own = np.eye(alone.shape[1], dtype=bool)[planted]
            scores = {
                "self-confidence (cleanlab's default)": -alone[rows, planted],
                "normalised margin": np.where(own, -1, alone).max(axis=1) - alone[rows, planted],
                "neighbours alone": -votes[rows, planted],
                "self-confidence, with neighbours": -joined[rows, planted],
                "clean without neighbours": doubt_of_labels(alone, planted),
                "clean": doubt_of_labels(joined, planted),
            }
            for name, score in scores.items():
                first = np.argsort(-score, kind="stable")[: wrong.sum()]
                values = [float(average_precision_score(wrong, score)), float(wrong[first].mean())]
                results.setdefault(f"{kind}, {name}", {"ap": [], "precision": []})
                for key, value in zip(("ap", "precision"), values, strict=True):
                    results[f"{kind}, {name}"][key].append(value)
    return results


def main() -> None:
    """Measure and print each store."""
    parser = make_parser(__doc__)
    parser.add_argument("stores", nargs="+", metavar="STORE[:COLUMN]")
    parser.add_argument("--share", type=float, default=0.05, help="of the labels that are replaced (default: 0.05)")
    parser.add_argument("--draws", type=int, default=3, help="default: 3")
    options = parser.parse_args()
    results = {source: measure(source, options) for source in options.stores}
    for source, measured in results.items():
        rows = [[source, "average precision", "precision"]]
        rows += [[name, *(f"{np.mean(values):.3f}" for values in each.values())] for name, each in measured.items()]
        print(markdown_table(rows) + "\n")
    write_json(options, results)


if __name__ == "__main__":
    main()
