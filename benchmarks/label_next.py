"""How many labels does `next` save? Its choices beside random ones and plain uncertainty, in rounds.

    python benchmarks/label_next.py STORE[:COLUMN]... [--draws 20] [--per-class 1 4 10 40] [--json FILE]

In each draw a third of the labelled rows is held out, and the labels of the others are hidden. In each round a method
asks for as many labels as there are to be, and `logreg` is fitted on all that it has asked for so far. `next` runs as
it is shipped. "uncertain" takes the rows with the smallest margins, without spreading them, after a first round at
random. Printed: mean accuracy on the held-out rows, the gain over random choices with the interval over the draws, and
with how many labels each method has 90 % of the accuracy of all labels, interpolated on the logarithm of their number.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from common import make_parser, markdown_table, write_json

import embedpipe
from embedpipe.cleaning.choosing.choice import choose_rows
from embedpipe.estimators.wrappers.base import fit_on
from embedpipe.heads.registry import make_estimator
from embedpipe.heads.training.vectors import read_finite
from embedpipe.neighbours.exact import normalised

Rows = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]
Choose = Callable[[Vectors, Rows, Rows, Rows, int, int], Rows]
#: Rows of a store that are used, and the share of the accuracy of all labels that is to be reached.
MOST_ROWS, ENOUGH = 4000, 0.9


def logreg(Z: Vectors, y: Rows, rows: Rows) -> Any:
    """Return logistic regression, fitted on some rows."""
    return fit_on(make_estimator("logreg", "classification", len(rows))[1], Z[rows], y[rows])


def by_next(Z: Vectors, y: Rows, pool: Rows, labelled: Rows, count: int, seed: int) -> Rows:
    """Choose as `embedpipe.next` does."""
    return choose_rows(Z, y, pool, labelled, count, seed)[0]


def at_random(Z: Vectors, y: Rows, pool: Rows, labelled: Rows, count: int, seed: int) -> Rows:
    """Choose at random."""
    return np.random.default_rng([seed, len(labelled)]).permutation(pool)[:count]


def uncertain(Z: Vectors, y: Rows, pool: Rows, labelled: Rows, count: int, seed: int) -> Rows:
    """Choose the rows of which a head is least sure."""
    if len(np.unique(y[labelled])) < 2:
        return at_random(Z, y, pool, labelled, count, seed)
    ordered = np.sort(logreg(Z, y, labelled).predict_proba(Z[pool]), axis=1)
    return pool[np.argsort(ordered[:, -1] - ordered[:, -2], kind="stable")[:count]]


METHODS: dict[str, Choose] = {"next": by_next, "random": at_random, "uncertain": uncertain}


def accuracy(Z: Vectors, y: Rows, labelled: Rows, test: Rows) -> float:
    """Return the accuracy of a head on the test rows."""
    if len(np.unique(y[labelled])) < 2:
        return float((y[test] == y[labelled[0]]).mean())
    return float((logreg(Z, y, labelled).predict(Z[test]) == y[test]).mean())


def measure(source: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the accuracies (draws, rounds) of each method, and those with all labels."""
    path, _, column = source.partition(":")
    store = embedpipe.FeatureStore(path)
    table = store.to_arrow(["id", column or "label"])
    table = table.filter(table.column(1).is_valid())
    X = read_finite(store, store.spec.layers[:1], table["id"].combine_chunks())
    Z = normalised(X - X.mean(axis=0))
    y = np.unique(np.array(table.column(1).to_pylist()), return_inverse=True)[1]
    budgets = [each * len(np.unique(y)) for each in options.per_class]
    curves: dict[str, list[list[float]]] = {name: [] for name in METHODS}
    whole = []
    for draw in range(options.draws):
        order = np.random.default_rng(draw).permutation(len(y))[:MOST_ROWS]
        test, pool = order[: len(order) // 3], np.sort(order[len(order) // 3 :])
        if draw < 3:  # the mean of all labels hardly differs between draws, and takes longest
            whole.append(accuracy(Z, y, pool, test))
        for name, choose in METHODS.items():
            labelled = np.empty(0, np.int64)
            curve = []
            for budget in budgets:
                free = np.setdiff1d(pool, labelled)
                labelled = np.concatenate([labelled, choose(Z, y, free, labelled, budget - len(labelled), draw)])
                curve.append(accuracy(Z, y, labelled, test))
            curves[name].append(curve)
        print(
            f"{source}, draw {draw}: { ({name: np.round(each[-1], 3).tolist() for name, each in curves.items()}) }",
            flush=True,
        )
    return {"budgets": budgets, "whole": float(np.mean(whole)), **curves}


def labels_needed(budgets: list[int], curve: npt.NDArray[np.float64], wanted: float) -> str:
    """Return the number of labels with which a curve reaches an accuracy."""
    above = np.flatnonzero(curve >= wanted)
    if not len(above):
        return f"> {budgets[-1]}"
    last = int(above[0])
    if not last:
        return f"<= {budgets[0]}"
    logs = np.interp(wanted, curve[last - 1 : last + 1], np.log(budgets[last - 1 : last + 1]))
    return f"{np.exp(logs):.0f}"


def main() -> None:
    """Measure and print each store."""
    parser = make_parser(__doc__)
    parser.add_argument("stores", nargs="+", metavar="STORE[:COLUMN]")
    parser.add_argument("--draws", type=int, default=20, help="default: 20")
    parser.add_argument("--per-class", type=int, nargs="+", default=[1, 4, 10, 40], help="labels a class of each round")
    options = parser.parse_args()
    results = {}
    for source in options.stores:
        results[source] = measured = measure(source, options)
        budgets, wanted = measured["budgets"], ENOUGH * measured["whole"]
        means = {name: np.mean(measured[name], axis=0) for name in METHODS}
        rows = [[source, *map(str, budgets), f"labels for {wanted:.1%}"]]
        for name, mean in means.items():
            gains = np.array(measured[name]) - np.array(measured["random"])
            error = 1.96 * gains.std(axis=0, ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else 0 * mean
            cells = [
                f"{value:.1%}" + ("" if name == "random" else f" ({100 * gain:+.1f} ± {100 * width:.1f})")
                for value, gain, width in zip(mean, gains.mean(axis=0), error, strict=True)
            ]
            rows.append([name, *cells, labels_needed(budgets, mean, wanted)])
        print(f"\nwith all labels: {measured['whole']:.1%}\n\n{markdown_table(rows)}\n", flush=True)
    write_json(options, results)


if __name__ == "__main__":
    main()
