"""What does the floor of the scaler (`FLOOR_QUANTILE` in `estimators/solvers/column_stats.py`) give on few labels?

    python benchmarks/variance_floor.py STORE[:COLUMN]... [--labels 60 120 250 1000] [--draws 5]

Each linear head is fitted on so many rows of the first embedding of a store, drawn class by class, and asked for the
others, on the same draws both ways. Accuracy in %, mean over the draws; the last column counts the draws that levelling
made better and worse.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from common import make_parser, write_json
from sklearn.model_selection import train_test_split

from embedpipe import FeatureStore
from embedpipe.estimators import TunedLogisticRegression, TunedRidgeClassifier
from embedpipe.estimators.solvers import column_stats as columns

HEADS = {"logreg": TunedLogisticRegression, "ridge": TunedRidgeClassifier}
FLOOR_QUANTILE = columns.FLOOR_QUANTILE


def accuracies(head: Any, X: Any, y: Any, labels: int, draws: int) -> list[float]:
    """Return the accuracy on the rows that were not drawn, draw by draw."""
    found = []
    for seed in range(draws):
        train, test = train_test_split(np.arange(len(y)), train_size=labels, random_state=seed, stratify=y)
        found.append(float(np.mean(head().fit(X[train], y[train]).predict(X[test]) == y[test])))
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = make_parser(__doc__)
    parser.add_argument("stores", nargs="+")
    parser.add_argument("--labels", type=int, nargs="+", default=[60, 120, 250, 1000])
    parser.add_argument("--draws", type=int, default=5)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
    print("| data, label | head | labels | without, % | with the floor, % | better, worse |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    results = []
    for name in options.stores:
        path, _, label = name.partition(":")
        store = FeatureStore(path)
        X, y = store.to_numpy(label or "label", layer=next(iter(store.layers)))
        for head_name, head in HEADS.items():
            for labels in options.labels:
                both = []
                for share in (0.0, FLOOR_QUANTILE):
                    columns.FLOOR_QUANTILE = share
                    both.append(np.array(accuracies(head, X, y, labels, options.draws)))
                without, floored = both
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
