"""How much does the variance floor (`FLOOR_QUANTILE` in `estimators/solvers/column_stats.py`) gain on few labels?

    python benchmarks/variance_floor.py STORE[:COLUMN]... [--labels 60 120 250 1000] [--draws 5] [--json FILE]

Each linear head is fitted on a stratified draw of rows of a store's first layer and tested on all other rows, with and
without the floor, on the same draws. Accuracy in %, mean over the draws. The last column counts the draws in which the
accuracy with the floor is higher and lower.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from common import make_parser, write_json
from sklearn.model_selection import train_test_split

from embedpipe import FeatureStore
from embedpipe.estimators import TunedLogisticRegression, TunedRidgeClassifier
from embedpipe.estimators.solvers import column_stats

HEADS = {"logreg": TunedLogisticRegression, "ridge": TunedRidgeClassifier}
FLOOR_QUANTILE = column_stats.FLOOR_QUANTILE


def accuracies(head: Any, X: Any, y: Any, labels: int, draws: int) -> list[float]:
    """Return the accuracy of each draw on the rows that were not drawn."""
    values = []
    for seed in range(draws):
        train, test = train_test_split(np.arange(len(y)), train_size=labels, random_state=seed, stratify=y)
        values.append(float(np.mean(head().fit(X[train], y[train]).predict(X[test]) == y[test])))
    return values


def main() -> None:
    """Measure, and print a table."""
    parser = make_parser(__doc__)
    parser.add_argument("stores", nargs="+", metavar="STORE[:COLUMN]", help="stores, and their label columns (label)")
    parser.add_argument(
        "--labels",
        type=int,
        nargs="+",
        default=[60, 120, 250, 1000],
        help="numbers of training rows (60, 120, 250 and 1000)",
    )
    parser.add_argument("--draws", type=int, default=5, help="draws of the training rows (default: 5)")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
    print("| data, label | head | labels | without, % | with the floor, % | higher, lower |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    results = []
    for name in options.stores:
        path, _, label = name.partition(":")
        store = FeatureStore(path)
        X, y = store.to_numpy(label=label or "label", layer=next(iter(store.layers)))
        for head_name, head in HEADS.items():
            for labels in options.labels:
                pair = []
                for quantile in (0.0, FLOOR_QUANTILE):
                    column_stats.FLOOR_QUANTILE = quantile
                    pair.append(np.array(accuracies(head, X, y, labels, options.draws)))
                without, floored = pair
                data = f"{store.path.rsplit('/', 1)[-1]}, {label or 'label'}"
                print(
                    f"| {data} | {head_name} | {labels} | {100 * without.mean():.1f} | {100 * floored.mean():.1f} | "
                    f"{(floored > without).sum()}, {(floored < without).sum()} |",
                    flush=True,
                )
                row = {"data": data, "head": head_name, "labels": labels}
                results.append({**row, "without": without.tolist(), "with the floor": floored.tolist()})
    write_json(options, results)


if __name__ == "__main__":
    main()
