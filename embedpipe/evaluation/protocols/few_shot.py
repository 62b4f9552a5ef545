"""``few-shot``: accuracy by the number of labels a class, with intervals.

For 1, 2, 4, 8, 16 and all labels a class, five times: rows are drawn anew (one order of all rows a draw, of which each
size takes the first of each class, so that a curve goes through nested sets), and with them the folds on which
`TunedLogisticRegression` chooses C inside the drawn rows; nothing is chosen on others (LAION-AI/CLIP_benchmark's issue
125 is about a probe that does). A class with fewer rows gives what it has. With one label a class there is nothing to
choose on, and C is the head's own default. With all, only the folds are drawn anew.

The interval holds for other draws *and* other test rows: both are random and crossed, every draw being scored on every
test row. See `crossed_interval`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student
from sklearn.model_selection import StratifiedKFold

from embedpipe.estimators.linear.logistic_regression import TunedLogisticRegression
from embedpipe.evaluation.protocols.problem import Outcome, Problem, Rows, few_of_each
from embedpipe.splits.inner import FOLDS

SIZES = (1, 2, 4, 8, 16)
DRAWS = 5


def run(problem: Problem) -> Outcome:
    """Measure each size that is smaller than the largest class, and all rows."""
    y = problem.y_train
    largest = int(np.bincount(y).max())
    sizes = [size for size in SIZES if size < largest] + [largest]
    right = np.zeros((len(sizes), DRAWS, len(problem.y_test)), bool)
    rows = np.zeros((len(sizes), DRAWS), np.int64)
    chosen: list[list[float]] = [[] for _ in sizes]
    for draw in range(DRAWS):
        seed = problem.seed * DRAWS + draw
        order = np.random.default_rng(seed).permutation(len(y))
        for at, size in enumerate(sizes):
            some = few_of_each(order, y, size)
            head = _head(y[some], seed).fit(problem.X_train[some], y[some])
            right[at, draw] = head.predict(problem.X_test) == problem.y_test
            rows[at, draw] = len(some)
            chosen[at].append(head.C_)
    details: list[dict[str, Any]] = []
    for at, size in enumerate(sizes):
        mean, low, high = crossed_interval(right[at])
        about = {"size": "all" if size == largest else size, "training_rows": int(rows[at, 0])}
        accuracies = right[at].mean(axis=1).tolist()
        details.append(about | {"accuracy": mean, "low": low, "high": high, "draws": accuracies, "C": chosen[at]})
    figures = {f"accuracy_{row['size']}": row["accuracy"] for row in details}
    settings = {
        "head": "TunedLogisticRegression",
        "draws": DRAWS,
        "seeds": [problem.seed * DRAWS + draw for draw in range(DRAWS)],
        "interval": "95 %, over draws and test rows",
    }
    return Outcome(figures, settings, details)


def _head(y: Rows, seed: int) -> TunedLogisticRegression:
    """Return a head that chooses C on folds drawn with the seed, or takes its default where no class has two rows."""
    counts = np.bincount(y)
    most = int(counts.max())
    if most < 2:
        return TunedLogisticRegression()
    return TunedLogisticRegression(cv=StratifiedKFold(min(FOLDS, most), shuffle=True, random_state=seed))


def crossed_interval(right: npt.NDArray[np.bool_], level: float = 0.95) -> tuple[float, float, float]:
    """Return the mean with a confidence interval for draws and test rows that are both random.

    The variance of the mean of a two-way table without replication is at most s2(row means) / J + s2(column means) / n,
    which counts the interaction twice (as does the pigeonhole bootstrap: Owen, Annals of Applied Statistics 1,
    2007); degrees of freedom are Satterthwaite's (Biometrics Bulletin 2, 1946). Draws that are a large part of the one
    training set have rows in common, which this leaves out: it holds for draws from these rows.

    Parameters
    ----------
    right : bool array (n_draws, n_test)
    level : float

    Returns
    -------
    mean, low, high : float
        ``low`` and ``high`` within 0 and 1; equal to the mean where nothing varies.
    """
    draws, rows = right.shape
    mean = float(right.mean())
    parts = [(float(right.mean(axis=1).var(ddof=1)) / draws, draws - 1)]
    if rows > 1:
        parts.append((float(right.mean(axis=0).var(ddof=1)) / rows, rows - 1))
    variance = sum(part for part, _ in parts)
    if not variance:
        return mean, mean, mean
    freedom = variance**2 / sum(part**2 / count for part, count in parts)
    half = float(student.ppf((1 + level) / 2, freedom)) * variance**0.5
    return mean, max(0.0, mean - half), min(1.0, mean + half)
