"""How often does a 95 % interval contain the truth if nearly all rows are right, and how wide is it?

    python benchmarks/interval_coverage.py [--simulations 400] [--seed 0] [--json FILE]

A simulation draws which of n rows of two classes a head has right, each with the same probability, and a second head's
alike; their true difference is 0. Intervals are those of `embedpipe.evaluation.differences`: of the accuracy, the
balanced accuracy and the difference of both, on a single test set and in 5 folds. "Alone" is the percentile bootstrap
of the same metric, or the corrected resampled interval of the folds without a smallest standard error: they have no
width where all rows or folds agree. The rows of a share are exact, not simulated; "alone" is Wilson's interval. The
exit code is 1 if the coverage of an interval of an evaluation is below 91 %.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from common import make_parser, markdown_table, write_json
from scipy.stats import binom, t

from embedpipe.evaluation.differences import differences, estimates
from embedpipe.evaluation.metrics import PredictedRows
from embedpipe.splits import Resample, Splits
from embedpipe.statistics import draw_counts, share_interval, wilson

ROWS, CHANCES, FOLDS, DRAWS = (10, 30, 100), (0.9, 0.99, 1.0), 5, 400
#: Least coverage of an interval of an evaluation.
LEAST = 0.91

Ends = tuple[float, float]


def splits_of(rows: int, folds: int) -> Splits:
    """Return splits that test all rows once; a single test set has as many rows to train on."""
    parts = [np.arange(rows)] if folds == 1 else [np.arange(fold, rows, folds) for fold in range(folds)]
    train = np.arange(rows, 2 * rows)
    resamples = [
        Resample(0, fold, train if folds == 1 else np.setdiff1d(np.arange(rows), part), part)
        for fold, part in enumerate(parts)
    ]
    return Splits([f"{row}" for row in range(2 * rows)], resamples, "simulated")


def predictions(splits: Splits, y: npt.NDArray[np.int64], right: npt.NDArray[np.bool_]) -> list[PredictedRows]:
    """Return the predictions of each resample."""
    predicted = np.where(right, y, 1 - y)
    return [PredictedRows(y[part.test], predicted[part.test], n_classes=2) for part in splits.resamples]


def alone(metric: str, parts: list[PredictedRows], other: list[PredictedRows] | None, weights: Any) -> Ends:
    """Return the interval that has no width where rows or folds agree."""
    if len(parts) == 1:
        drawn = parts[0].metric(metric, weights) - (other[0].metric(metric, weights) if other else 0)
        low, high = np.nanquantile(drawn, (0.025, 0.975)).tolist()
        return low, high
    values = np.array([part.metric(metric)[0] for part in parts])
    values = values - (np.array([part.metric(metric)[0] for part in other]) if other else 0)
    error = np.sqrt(values.var(ddof=1) * (1 / FOLDS + 1 / (FOLDS - 1)))
    half = t.ppf(0.975, FOLDS - 1) * error
    return float(values.mean() - half), float(values.mean() + half)


def simulate(rows: int, chance: float, folds: int, simulations: int, seed: int) -> dict[str, list[float]]:
    """Return coverage, mean width and share without a width of each interval, now and alone."""
    rng, splits, y = np.random.default_rng(seed), splits_of(rows, folds), np.arange(rows) // folds % 2
    weights = draw_counts(rows, DRAWS)
    found: dict[str, list[tuple[float, float, float]]] = {}
    for _ in range(simulations):
        heads = [predictions(splits, y, rng.random(rows) < chance) for _ in range(2)]
        for metric in ("accuracy", "balanced_accuracy"):
            values = [[float(part.metric(metric)[0]) for part in head] for head in heads]
            now = estimates({metric: values[0]}, splits, heads[0])[metric]
            (against,) = differences(metric, True, 0.01, splits, values, heads)
            ends = {
                metric: (chance, (now.low, now.high), alone(metric, heads[0], None, weights)),
                f"difference of {metric}": (
                    0.0, (against.estimate.low, against.estimate.high), alone(metric, heads[1], heads[0], weights)
                ),
            }  # fmt: skip
            for name, (truth, *intervals) in ends.items():
                for when, (low, high) in zip(("now", "alone"), intervals, strict=True):
                    inside = low - 1e-9 <= truth <= high + 1e-9
                    found.setdefault(f"{name} {when}", []).append((inside, high - low, high - low < 1e-9))
    return {name: np.mean(each, axis=0).tolist() for name, each in found.items()}


def exact(rows: int, chance: float) -> dict[str, list[float]]:
    """Return coverage and mean width of the intervals of a share."""
    counts = np.arange(rows + 1)
    chances = binom.pmf(counts, rows, chance)
    result = {}
    for name, function in (("wilson", wilson), ("share_interval", share_interval)):
        low, high = np.array([function(int(count), rows)[1:] for count in counts]).T
        inside = (low - 1e-12 <= chance) & (chance <= high + 1e-12)
        result[name] = [float(chances[inside].sum()), float(chances @ (high - low))]
    return result


def main() -> int:
    """Measure and print; return 1 if a coverage is too low."""
    parser = make_parser(__doc__)
    parser.add_argument("--simulations", type=int, default=400, help="simulations per setting (default: 400)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything that is drawn (default: 0)")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    header = ["rows", "right", "interval", "coverage", "alone", "mean width", "alone", "no width alone"]
    table, lowest = [header], 1.0
    for rows in ROWS:
        for chance in CHANCES:
            shares = exact(rows, chance)
            results[f"{rows} {chance} exact"] = shares
            (new, wide), (old, narrow) = shares["share_interval"], shares["wilson"]
            cells = [f"{new:.1%}", f"{old:.1%}", f"{wide:.3f}", f"{narrow:.3f}", "0%"]
            table.append([str(rows), f"{chance:.0%}", "share, exact", *cells])
            for folds, where in ((1, "test set"), (FOLDS, "folds")):
                found = simulate(rows, chance, folds, options.simulations, options.seed)
                results[f"{rows} {chance} {where}"] = found
                for name in [key.removesuffix(" now") for key in found if key.endswith(" now")]:
                    now, was = found[f"{name} now"], found[f"{name} alone"]
                    lowest = min(lowest, now[0])
                    cells = [f"{now[0]:.1%}", f"{was[0]:.1%}", f"{now[1]:.3f}", f"{was[1]:.3f}", f"{was[2]:.0%}"]
                    table.append([str(rows), f"{chance:.0%}", f"{name.replace('_', ' ')}, {where}", *cells])
    print(markdown_table(table, left=(2,)))
    print(f"\nlowest coverage of an evaluation: {lowest:.1%}")
    write_json(options, results)
    return int(lowest < LEAST)


if __name__ == "__main__":
    sys.exit(main())
