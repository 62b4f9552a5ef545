"""``few-shot``: accuracy as a function of the number of labels per class, with intervals.

For 1, 2, 4, 8, 16 and all labels per class, rows are drawn five times. A draw is one order of all rows; each number of
labels takes the first rows of each class, so that the sets of one draw are nested. `TunedLogisticRegression` chooses C
by folds of the drawn rows only, and the folds are drawn too (LAION-AI/CLIP_benchmark issue 125 describes a linear probe
that chooses on other rows). Smaller classes give all their rows. With one label per class nothing can be chosen, and C
is the default of the head. With all labels, only the folds differ between draws.

The interval covers other draws *and* other test rows: both are random and crossed, because every draw is scored on
every test row. See `crossed_interval`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student
from sklearn.model_selection import StratifiedKFold

from embedpipe._utils.options import SEEDS
from embedpipe.estimators.linear.logistic_regression import TunedLogisticRegression
from embedpipe.evaluation.protocols.problem import Outcome, Problem, Rows, first_of_each_class
from embedpipe.splits.inner import FOLDS
from embedpipe.statistics import unseen_share

LABEL_COUNTS = (1, 2, 4, 8, 16)
DRAWS = 5


def run(problem: Problem) -> Outcome:
    """Measure each number of labels below the size of the largest class, and all rows."""
    y = problem.y_train
    largest = int(np.bincount(y).max())
    counts = [count for count in LABEL_COUNTS if count < largest] + [largest]
    correct = np.zeros((len(counts), DRAWS, len(problem.y_test)), bool)
    predicted: dict[str, Rows] = {}
    rows = np.zeros((len(counts), DRAWS), np.int64)
    chosen: list[list[float]] = [[] for _ in counts]
    seeds = [(problem.seed * DRAWS + draw) % SEEDS for draw in range(DRAWS)]
    for draw, seed in enumerate(seeds):
        order = np.random.default_rng(seed).permutation(len(y))
        for i, count in enumerate(counts):
            drawn = first_of_each_class(order, y, count)
            head = _head(y[drawn], seed).fit(problem.X_train[drawn], y[drawn])
            labels = "all" if count == largest else count
            predictions = head.predict(problem.X_test)
            predicted[f"{labels} labels per class, draw {draw + 1}"] = predictions
            correct[i, draw] = predictions == problem.y_test
            rows[i, draw] = len(drawn)
            chosen[i].append(head.C_)
    details: list[dict[str, Any]] = []
    for i, count in enumerate(counts):
        mean, low, high = crossed_interval(correct[i])
        row = {"labels_per_class": "all" if count == largest else count, "training_rows": int(rows[i, 0])}
        accuracies = correct[i].mean(axis=1).tolist()
        details.append(row | {"accuracy": mean, "low": low, "high": high, "draws": accuracies, "C": chosen[i]})
    metrics = {f"accuracy_{row['labels_per_class']}": row["accuracy"] for row in details}
    settings = {
        "head": "TunedLogisticRegression",
        "draws": DRAWS,
        "seeds": seeds,
        "interval": "95 %, for other draws and other test rows",
    }
    return Outcome(metrics, settings, details, predicted)


def _head(y: Rows, seed: int) -> TunedLogisticRegression:
    """Return a head that chooses C by folds drawn with the seed, or has the default C if no class has two rows."""
    counts = np.bincount(y)
    most = int(counts.max())
    if most < 2:
        return TunedLogisticRegression()
    return TunedLogisticRegression(cv=StratifiedKFold(min(FOLDS, most), shuffle=True, random_state=seed))


def crossed_interval(correct: npt.NDArray[np.bool_], level: float = 0.95) -> tuple[float, float, float]:
    """Return the mean and its confidence interval if both draws and test rows are random.

    The variance of the mean of a two-way table without replication is at most s2(row means) / J + s2(column means) / n,
    which counts the interaction twice (as the pigeonhole bootstrap does: Owen, Annals of Applied Statistics 1, 2007).
    Degrees of freedom are those of Satterthwaite (Biometrics Bulletin 2, 1946). Large draws from one training set share
    rows, which this ignores: the interval holds for draws from these rows. Answers that are all alike have no variance;
    the interval then contains what so many test rows may leave unseen (`embedpipe.statistics.unseen_share`).

    Parameters
    ----------
    correct : bool array (n_draws, n_test)
    level : float, default 0.95

    Returns
    -------
    mean, low, high : float
        ``low`` and ``high`` are within 0 and 1.
    """
    draws, rows = correct.shape
    mean = float(correct.mean())
    parts = [(float(correct.mean(axis=1).var(ddof=1)) / draws, draws - 1)]
    if rows > 1:
        parts.append((float(correct.mean(axis=0).var(ddof=1)) / rows, rows - 1))
    variance = sum(part for part, _ in parts)
    half = 0.0
    if variance:
        freedom = variance**2 / sum(part**2 / count for part, count in parts)
        half = float(student.ppf((1 + level) / 2, freedom)) * variance**0.5
    unseen = unseen_share(rows, level)
    low, high = min(mean - half, mean * (1 - unseen)), max(mean + half, mean * (1 - unseen) + unseen)
    return mean, max(0.0, low), min(1.0, high)
