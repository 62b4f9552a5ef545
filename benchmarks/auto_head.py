"""Is `auto` as good as the best single head on the best single layer, and better than a plain logistic regression?

    python benchmarks/auto_head.py [STORE...] [--label LABEL] [--near COSINE]

On each store, by five folds with near-duplicates together: every single head (logreg, lda, ridge, centroid, and knn of
20 and of 5 neighbours) on every layer; `auto`, which picks layer, normalisation and head inside the training rows of
each fold; and logistic regression with scikit-learn's default C on standardised vectors of the last layer. A store's
own split is not used, so that every row is tested once, by a head that did not see it: figures are of all rows pooled.

Differences are paired, with Newcombe's interval (1998, method 10), which takes rows as independent and predictions as
they are: how other folds would move them is not in it. Near-duplicates are right or wrong together, so the difference
is given by a bootstrap of whole groups too, for information; where it is much wider, few groups decide. `auto` should
not be worse than the best single configuration by more than one point, at the lower end of the one-sided 95 % interval.
That best one is found on the very rows that it is measured on, which flatters it, and not `auto`. Exits with 1 if a
store misses the limit. The last line has all numbers as JSON.

What was measured before is taken from embedpipe's cache folder (EMBEDPIPE_CACHE), and `calibration.py` takes it too. It
does not know when the code of a head was changed: name an empty folder then.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from common import make_parser, write_json
from heads import elpv
from leakage import labelled
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from embedpipe import FaissKNNClassifier, FeatureStore
from embedpipe.evaluation import Evaluation, evaluate
from embedpipe.neighbours.near import NEAR_DUPLICATE_COSINE
from embedpipe.splits import Splits, make_splits
from embedpipe.statistics import paired_bootstrap, paired_interval

Right = npt.NDArray[np.bool_]

#: The network's last layer.
LAST = "features"
KNN_5 = FaissKNNClassifier(5, weights="softmax", metric="cosine")
SINGLES = ("logreg", "lda", "ridge", "centroid", "knn", KNN_5)
DEFAULT = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
#: How much worse `auto` may be, as a share of the rows.
MARGIN = 0.01
#: What `auto` says of its choice.
PICKED = ("layer", "normalisation", "head")


def divide(store: FeatureStore, label: str, near: float) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any], Splits]:
    """Return vectors of the last layer, labels, and folds over all rows that have one."""
    ids, X, y = labelled(store, label, LAST)
    return (
        X,
        y,
        make_splits(
            ids, y, task="classification", vectors=X, near_duplicates=near if near <= 1 else None, folds=5, repeats=1
        ),
    )


def compare(store: FeatureStore, label: str, heads: tuple[Any, ...], splits: Splits) -> Evaluation:
    """Evaluate heads on all layers of a store, on these splits instead of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "splits.parquet"
        splits.save(path)
        return evaluate(store, heads=heads, label=label, task="classification", splits=str(path))


def right_rows(found: Evaluation) -> dict[str, Right]:
    """Return which rows each candidate has right, in the order of ids."""
    said = found.predictions.sort_by("id")
    right, name = (column.to_numpy() for column in (pc.equal(said["actual"], said["predicted"]), said["candidate"]))
    return {one.name: right[name == one.name] for one in found.candidates}


def right_by_default(X: npt.NDArray[np.float32], y: npt.NDArray[Any], splits: Splits) -> Right:
    """Return which rows the plain logistic regression has right, in the order of ids."""
    right: Right = np.zeros(len(y), bool)
    for one in splits.resamples:
        predicted = clone(DEFAULT).fit(X[one.train], y[one.train]).predict(X[one.test])
        right[one.test] = predicted == y[one.test]
    return np.asarray(right[tested_rows(splits)], bool)


def tested_rows(splits: Splits) -> npt.NDArray[np.int64]:
    """Return the rows that take part, going up: those of rare classes do not."""
    return np.sort(np.concatenate([one.test for one in splits.resamples]))


def by_groups(second: Right, first: Right, splits: Splits) -> dict[str, float]:
    """Return the difference with a bootstrap's 95 % interval, near-duplicates drawn together."""
    groups = None if splits.groups is None else splits.groups[tested_rows(splits)]
    found = paired_bootstrap(
        lambda truth, right: float((right == truth).mean()), np.ones_like(first), first, second, groups=groups
    )
    return {"difference": found.difference, "low": found.low, "high": found.high}


def less(second: Right, first: Right, level: float) -> dict[str, float]:
    """Return how much more often the second is right than the first, with its interval."""
    both, one, other = int((first & second).sum()), int((first & ~second).sum()), int((second & ~first).sum())
    low, high = paired_interval(both, one, other, len(first) - both - one - other, level)
    return {"difference": float(second.mean() - first.mean()), "low": low, "high": high}


def measure(store: FeatureStore, label: str, near: float = NEAR_DUPLICATE_COSINE) -> dict[str, Any]:
    """Measure `auto`, what it is held against, and what it picked."""
    X, y, splits = divide(store, label, near)
    found = compare(store, label, (*SINGLES, "auto"), splits)
    right = right_rows(found)
    own = right.pop("auto")
    (auto,) = (one for one in found.candidates if one.name == "auto")
    best = max(right, key=lambda name: int(right[name].sum()))
    plain = right_by_default(X, y, splits)
    against_best = less(own, right[best], level=0.90)  # its lower end is that of the one-sided 95 % interval
    return {
        "rows": found.rows,
        "classes": len(found.classes),
        "resampling": found.resampling,
        "singles": {shown(name): float(each.mean()) for name, each in right.items()},
        "best": shown(best),
        "auto": float(own.mean()),
        "default logreg": float(plain.mean()),
        "auto less best, 90 %": against_best,
        "auto less best by groups, 95 %": by_groups(own, right[best], splits),
        "auto less default, 95 %": less(own, plain, level=0.95),
        "met": against_best["low"] >= -MARGIN,
        "picked": [" ".join(each) for each in zip(*(auto.chosen[name] for name in PICKED), strict=True)],
    }


def shown(name: str) -> str:
    """Return a candidate's name as it is printed."""
    return name.replace(type(KNN_5).__name__, "knn of 5")


def points(share: float) -> str:
    """Write a difference in percentage points."""
    return f"{100 * share:+.2f}"


def between(found: dict[str, float]) -> str:
    """Write a difference with its interval in percentage points."""
    return f"{points(found['difference'])} ({points(found['low'])} to {points(found['high'])})"


def markdown(results: dict[str, dict[str, Any]]) -> str:
    """Lay out all stores as one Markdown table."""
    headings = ("store", "rows", "best single head", "its accuracy, %", "`auto`, %", "points more", "at least, points")
    rows = [[*headings, f"{points(-MARGIN)} or more", "default logreg, %", "`auto`: points more (95 %)"]]
    rows.append(["---", "---:", "---", *["---:"] * 4, "---", "---:", "---:"])
    for name, one in results.items():
        best, default = one["auto less best, 90 %"], one["auto less default, 95 %"]
        rows.append(
            [
                name,
                f"{one['rows']:,}",
                one["best"],
                f"{100 * one['singles'][one['best']]:.2f}",
                f"{100 * one['auto']:.2f}",
                points(best["difference"]),
                points(best["low"]),
                "yes" if one["met"] else "NO",
                f"{100 * one['default logreg']:.2f}",
                between(default),
            ]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> int:
    """Measure, print, and exit with 1 if the limit is missed."""
    parser = make_parser(__doc__)
    parser.add_argument("stores", type=Path, nargs="*", metavar="STORE", help="the solar cells where none is given")
    parser.add_argument("--label", default="label")
    parser.add_argument(
        "--near", type=float, default=NEAR_DUPLICATE_COSINE, help="centred cosine of near-duplicates; 1.01: plain folds"
    )
    options = parser.parse_args()
    options.stores = options.stores or [Path(elpv().path)]
    results: dict[str, dict[str, Any]] = {}
    for path in options.stores:
        one = results[path.stem] = measure(FeatureStore(path), options.label, options.near)
        print(f"{path.stem}: {one['protocol']}, {one['rows']:,} rows, {one['classes']} classes")
        print("  " + ", ".join(f"{name} {100 * share:.2f}" for name, share in one["singles"].items()))
        print(f"  auto picked, fold by fold: {', '.join(one['picked'])}")
        grouped = one["auto less best by groups, 95 %"]
        print(f"  points more than {one['best']}, near-duplicates together: {between(grouped)}", flush=True)
    print(markdown(results))
    write_json(options, results)
    return 0 if all(one["met"] for one in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
