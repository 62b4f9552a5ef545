"""Is `auto` as good as the best single head on the best single layer, and better than a default logistic regression?

    python benchmarks/auto_head.py [STORE...] [--label LABEL] [--near-duplicates COSINE|off] [--json FILE]

Measured on each store, by five folds with near-duplicates together: every single head (logreg, lda, ridge, centroid,
knn with 20 and with 5 neighbours) on every layer; `auto`, which chooses layer, normalisation and head inside the
training rows of each fold; and logistic regression with scikit-learn's default C on standardised vectors of the last
layer. A split column of the store is ignored, so that every row is tested once, by a head that was not fitted on it.
Accuracies pool all rows.

Differences are paired, with Newcombe's interval (1998, method 10). It treats rows as independent and predictions as
fixed, so it does not contain the variation between other folds. Near-duplicates are correct or wrong together, so a
bootstrap of whole groups is printed too, for information; where it is much wider, few groups decide. `auto` must not be
worse than the best single configuration by more than one point, at the lower end of the one-sided 95 % interval. The
best single configuration is chosen on the rows that measure it, which flatters it and not `auto`. The exit code is 1 if
a store misses the limit.

Earlier results are read from embedpipe's cache folder (EMBEDPIPE_CACHE), and `calibration.py` shares them. The cache
does not notice a change in the code of a head: name an empty folder after one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from common import elpv_store, labelled_rows, make_parser, markdown_table, write_json
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from embedpipe import FaissKNNClassifier, FeatureStore
from embedpipe.errors import UsageError
from embedpipe.evaluation import Evaluation, evaluate
from embedpipe.neighbours.options import NEAR_DUPLICATE_COSINE, NearDuplicates, check_near_duplicates
from embedpipe.splits import Splits, make_splits
from embedpipe.statistics import paired_bootstrap, paired_interval

#: For each row, whether its prediction is correct.
Correct = npt.NDArray[np.bool_]

#: Name of the network's last layer.
LAST_LAYER = "features"
KNN_5 = FaissKNNClassifier(5, weights="softmax", metric="cosine")
SINGLE_HEADS = ("logreg", "lda", "ridge", "centroid", "knn", KNN_5)
DEFAULT = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
#: By how much `auto` may be worse, as a share of the rows.
MARGIN = 0.01
#: What `auto` chooses.
CHOICES = ("layer", "normalisation", "head")


def near_duplicates_option(text: str) -> NearDuplicates:
    """Return the value of ``--near-duplicates``."""
    try:
        return check_near_duplicates(text if text == "off" else float(text))
    except (UsageError, ValueError):
        raise argparse.ArgumentTypeError(f"must be a cosine in (0, 1] or 'off', got {text!r}") from None


def make_folds(
    store: FeatureStore, label: str, near_duplicates: NearDuplicates
) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any], Splits]:
    """Return vectors of the last layer, labels, and five folds of all labelled rows."""
    ids, X, y = labelled_rows(store, label, LAST_LAYER)
    cosine = None if near_duplicates == "off" else near_duplicates
    splits = make_splits(ids, y, task="classification", vectors=X, near_duplicates=cosine, folds=5, repeats=1)
    return X, y, splits


def evaluate_heads(store: FeatureStore, label: str, heads: tuple[Any, ...], splits: Splits) -> Evaluation:
    """Evaluate heads on all layers of a store, on the given splits."""
    return evaluate(store, heads=heads, label=label, task="classification", splits=splits)


def correct_rows(evaluation: Evaluation) -> dict[str, Correct]:
    """Return which rows each candidate classifies correctly, in order of id."""
    predictions = evaluation.predictions.sort_by("id")
    correct = pc.equal(predictions["actual"], predictions["predicted"]).to_numpy()
    names = predictions["candidate"].to_numpy()
    return {candidate.name: correct[names == candidate.name] for candidate in evaluation.candidates}


def correct_by_default(X: npt.NDArray[np.float32], y: npt.NDArray[Any], splits: Splits) -> Correct:
    """Return which rows the default logistic regression classifies correctly, in order of id."""
    correct = np.zeros(len(y), bool)
    for resample in splits.resamples:
        predicted = clone(DEFAULT).fit(X[resample.train], y[resample.train]).predict(X[resample.test])
        correct[resample.test] = predicted == y[resample.test]
    return np.asarray(correct[tested_rows(splits)], bool)


def tested_rows(splits: Splits) -> npt.NDArray[np.int64]:
    """Return the rows that are in a fold, ascending; rows of rare classes are in none."""
    return np.sort(np.concatenate([resample.test for resample in splits.resamples]))


def group_difference(second: Correct, first: Correct, splits: Splits) -> dict[str, float]:
    """Return the difference of accuracy with a bootstrap's 95 % interval; near-duplicates are drawn together."""
    groups = None if splits.groups is None else splits.groups[tested_rows(splits)]
    result = paired_bootstrap(
        lambda truth, correct: float((correct == truth).mean()), np.ones_like(first), first, second, groups=groups
    )
    return {"difference": result.difference, "low": result.low, "high": result.high}


def row_difference(second: Correct, first: Correct, level: float) -> dict[str, float]:
    """Return the difference of accuracy with Newcombe's interval."""
    both, only_first = int((first & second).sum()), int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    low, high = paired_interval(both, only_first, only_second, len(first) - both - only_first - only_second, level)
    return {"difference": float(second.mean() - first.mean()), "low": low, "high": high}


def measure(store: FeatureStore, label: str, near_duplicates: NearDuplicates) -> dict[str, Any]:
    """Return the accuracies of `auto` and of what it is compared with, and what `auto` chose."""
    X, y, splits = make_folds(store, label, near_duplicates)
    evaluation = evaluate_heads(store, label, (*SINGLE_HEADS, "auto"), splits)
    correct = correct_rows(evaluation)
    by_auto = correct.pop("auto")
    (auto,) = (candidate for candidate in evaluation.candidates if candidate.name == "auto")
    best = max(correct, key=lambda name: int(correct[name].sum()))
    by_default = correct_by_default(X, y, splits)
    from_best = row_difference(by_auto, correct[best], level=0.90)  # its lower end is the one-sided 95 % bound
    return {
        "rows": evaluation.rows,
        "classes": len(evaluation.classes),
        "resampling": evaluation.resampling,
        "singles": {display_name(name): float(rows.mean()) for name, rows in correct.items()},
        "best": display_name(best),
        "auto": float(by_auto.mean()),
        "default logreg": float(by_default.mean()),
        "auto minus best, 90 %": from_best,
        "auto minus best by groups, 95 %": group_difference(by_auto, correct[best], splits),
        "auto minus default, 95 %": row_difference(by_auto, by_default, level=0.95),
        "met": from_best["low"] >= -MARGIN,
        "chosen": [" ".join(choice) for choice in zip(*(auto.chosen[name] for name in CHOICES), strict=True)],
    }


def display_name(candidate: str) -> str:
    """Return the name of a candidate as it is printed."""
    return candidate.replace(type(KNN_5).__name__, "knn of 5")


def in_points(share: float) -> str:
    """Return a difference in percentage points."""
    return f"{100 * share:+.2f}"


def with_interval(difference: dict[str, float]) -> str:
    """Return a difference with its interval in percentage points."""
    ends = (in_points(difference[end]) for end in ("difference", "low", "high"))
    return "{} ({} to {})".format(*ends)


def markdown(results: dict[str, dict[str, Any]]) -> str:
    """Return one Markdown table of all stores."""
    rows = [["store", "rows", "best single head", "its accuracy, %", "`auto`, %", "`auto` minus best, points"]]
    rows[0] += ["lower end", f"lower end >= {in_points(-MARGIN)}", "default logreg, %", "`auto` minus default (95 %)"]
    for name, result in results.items():
        from_best = result["auto minus best, 90 %"]
        rows.append(
            [
                name,
                f"{result['rows']:,}",
                result["best"],
                f"{100 * result['singles'][result['best']]:.2f}",
                f"{100 * result['auto']:.2f}",
                in_points(from_best["difference"]),
                in_points(from_best["low"]),
                "yes" if result["met"] else "NO",
                f"{100 * result['default logreg']:.2f}",
                with_interval(result["auto minus default, 95 %"]),
            ]
        )
    return markdown_table(rows, left=(0, 2, 7))


def main() -> int:
    """Measure and print; return 1 if the limit is missed."""
    parser = make_parser(__doc__)
    parser.add_argument("stores", type=Path, nargs="*", metavar="STORE", help="stores; default: elpv's solar cells")
    parser.add_argument("--label", default="label", help="column of the labels (default: label)")
    parser.add_argument(
        "--near-duplicates",
        type=near_duplicates_option,
        default=NEAR_DUPLICATE_COSINE,
        metavar="COSINE|off",
        help="centred cosine from which rows are near-duplicates; off: plain folds (default: %(default)s)",
    )
    options = parser.parse_args()
    options.stores = options.stores or [Path(elpv_store().path)]
    results: dict[str, dict[str, Any]] = {}
    for path in options.stores:
        result = results[path.stem] = measure(FeatureStore(path), options.label, options.near_duplicates)
        print(f"{path.stem}: {result['resampling']}, {result['rows']:,} rows, {result['classes']} classes")
        print("  " + ", ".join(f"{name} {100 * share:.2f}" for name, share in result["singles"].items()))
        print(f"  auto chose, fold by fold: {', '.join(result['chosen'])}")
        by_groups = with_interval(result["auto minus best by groups, 95 %"])
        print(f"  auto minus {result['best']}, bootstrap of near-duplicate groups: {by_groups} points", flush=True)
    print(markdown(results))
    write_json(options, results)
    return 0 if all(result["met"] for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
