"""``mteb-cls``: classification as MTEB does it (Muennighoff et al., EACL 2023; ``AbsTaskClassification`` of mteb 2).

Ten times, 8 rows a class are drawn (fewer where a class has fewer), a logistic regression (scikit-learn's L-BFGS,
C = 1, at most 100 iterations, vectors as they are) is fitted on them, and the whole test set is scored; reported is the
mean of the ten. Some of MTEB's tasks set 16 rows a class, so that is measured too.

The draws are mteb's own, to the row, where ``seed`` is 0 and rows are in the data set's order: one list of row numbers
is shuffled anew before each experiment, each time by a fresh ``numpy.random.RandomState(42)``, and the first rows of
each class are taken. Experiment j thus applies one permutation j + 1 times. Other seeds take 42 + seed. L-BFGS has no
randomness of its own. For two classes mteb's ``ap`` is the average precision of the predicted labels (not of
probabilities), of the second class; so it is here.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score

from embedpipe._utils.blas_threads import one_blas_thread
from embedpipe.evaluation.protocols.problem import Outcome, Problem, Rows, few_of_each

SIZES = (8, 16)
EXPERIMENTS = 10
MAX_ITER = 100
SEED = 42


def run(problem: Problem) -> Outcome:
    """Fit and score ten draws of each size."""
    seed = SEED + problem.seed
    details: list[dict[str, Any]] = []
    with one_blas_thread():
        for size in SIZES:
            for experiment, rows in enumerate(draws(problem.y_train, size, seed)):
                about = {"samples_per_label": size, "experiment": experiment, "training_rows": len(rows)}
                details.append(about | _experiment(problem, rows, seed))
    names = [name for name in ("accuracy", "f1", "f1_weighted", "ap", "ap_weighted") if name in details[0]]
    figures = {
        f"{name}{'' if size == SIZES[0] else f'_{size}'}": float(
            np.mean([row[name] for row in details if row["samples_per_label"] == size])
        )
        for size in SIZES
        for name in names
    }
    settings = {
        "experiments": EXPERIMENTS,
        "samples_per_label": list(SIZES),
        "solver": "scikit-learn LogisticRegression, L-BFGS, C = 1",
        "max_iter": MAX_ITER,
        "random_state": seed,
        "training rows": len(problem.y_train),
    }
    return Outcome(figures, settings, details)


def draws(y: Rows, size: int, seed: int) -> list[Rows]:
    """Return the rows that each experiment is fitted on, in mteb's order."""
    order = np.arange(len(y))
    drawn = []
    for _ in range(EXPERIMENTS):
        np.random.RandomState(seed).shuffle(order)
        drawn.append(few_of_each(order, y, size))
    return drawn


def _experiment(problem: Problem, rows: Rows, seed: int) -> dict[str, Any]:
    model = LogisticRegression(max_iter=MAX_ITER, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # mteb stops there, too
        model.fit(problem.X_train[rows], problem.y_train[rows])
    actual, predicted = problem.y_test, model.predict(problem.X_test)
    scores = {
        "accuracy": float((predicted == actual).mean()),
        "f1": float(f1_score(actual, predicted, average="macro")),
        "f1_weighted": float(f1_score(actual, predicted, average="weighted")),
        "converged": bool(model.n_iter_.max() < MAX_ITER),
    }
    if len(problem.classes) == 2 and len(np.unique(actual)) == 2:
        scores |= {
            "ap": float(average_precision_score(actual, predicted, average="macro")),
            "ap_weighted": float(average_precision_score(actual, predicted, average="weighted")),
        }
    return scores
