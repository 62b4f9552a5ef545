"""How long does `logreg` take on a few hundred or thousand rows, and how much does rounding of the vectors move it?

    python benchmarks/small_fits.py STORE... [--rows 385 1600] [--rounds 3] [--json FILE]

Draws training rows from a store in each round, measures accuracy and log-loss on all other rows, and processor seconds
on one thread. All vectors then move by up to 6e-6, as between two engines, and the model is fitted again: the largest
move of a probability, and the number of predictions that change, are those of all rounds together.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import labelled_rows, make_parser, markdown_table, write_json
from threadpoolctl import threadpool_limits

import embedpipe
from embedpipe.estimators import TunedLogisticRegression

#: The largest difference between vectors of torch and of OpenVINO on the photos of `docs/tutorials/photos.md`.
MOVE = 6e-6


def measure(X: npt.NDArray[np.float32], y: npt.NDArray[Any], rows: int, rounds: int) -> dict[str, Any]:
    """Fit on ``rows`` random rows in each round, with the vectors as they are and moved."""
    runs: list[dict[str, Any]] = []
    for seed in range(rounds):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(y))
        train, test = order[:rows], order[rows:]
        start = time.process_time()
        model = TunedLogisticRegression(n_jobs=1).fit(X[train], y[train])
        seconds = time.process_time() - start
        shares = model.predict_proba(X[test])
        of_label = shares[np.arange(len(test)), np.searchsorted(model.classes_, y[test])]
        moved = X + rng.uniform(-MOVE, MOVE, X.shape).astype(np.float32)
        again = TunedLogisticRegression(n_jobs=1).fit(moved[train], y[train]).predict_proba(moved[test])
        runs.append(
            {
                "seconds": seconds,
                "accuracy": float((model.classes_[shares.argmax(axis=1)] == y[test]).mean()),
                "log-loss": float(-np.log(of_label).mean()),
                "C": model.C_,
                "move": float(np.abs(again - shares).max()),
                "changed": int((again.argmax(axis=1) != shares.argmax(axis=1)).sum()),
            }
        )
    return {
        "seconds": statistics.median(run["seconds"] for run in runs),
        "accuracy": statistics.mean(run["accuracy"] for run in runs),
        "log-loss": statistics.mean(run["log-loss"] for run in runs),
        "C": [run["C"] for run in runs],
        "move": max(run["move"] for run in runs),
        "changed": sum(run["changed"] for run in runs),
    }


def main() -> None:
    """Measure each store and size, and print a table."""
    parser = make_parser(__doc__)
    parser.add_argument("stores", nargs="+", type=Path, metavar="STORE", help="stores with labels")
    parser.add_argument("--rows", type=int, nargs="+", default=[385, 1600], help="training rows (default: 385, 1600)")
    parser.add_argument("--rounds", type=int, default=3, help="draws of training rows (default: 3)")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    table = [["store, rows", "seconds", "accuracy", "log-loss", "C", "largest move", "changed"]]
    with threadpool_limits(1):
        for path in options.stores:
            _, X, y = labelled_rows(embedpipe.FeatureStore(path), "label", None)
            for rows in options.rows:
                name = f"{path.name}, {rows:,}"
                found = results[name] = measure(X, y, rows, options.rounds)
                figures = [f"{found['seconds']:.2f}", f"{found['accuracy']:.4f}", f"{found['log-loss']:.4f}"]
                chosen = ", ".join(f"{C:g}" for C in found["C"])
                table.append([name, *figures, chosen, f"{found['move']:.1e}", str(found["changed"])])
                print(table[-1], flush=True)
    print(markdown_table(table))
    write_json(options, results)


if __name__ == "__main__":
    main()
