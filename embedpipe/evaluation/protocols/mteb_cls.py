"""``mteb-cls``: classification as MTEB does it (Muennighoff et al., EACL 2023; ``AbsTaskClassification`` of mteb 2).

Ten times, 8 rows per class are drawn (or all rows of a smaller class), a logistic regression (scikit-learn's L-BFGS,
C = 1, at most 100 iterations, unscaled vectors) is fitted on them, and the whole test set is scored. The result is the
mean of the ten scores. Some MTEB tasks use 16 rows per class, so that is measured too.

With ``seed`` 0 and rows in the order of the data set, the draws are exactly those of mteb: one list of row numbers is
shuffled before each experiment, each time by a new ``numpy.random.RandomState(42)``, and the first rows of each class
are taken. Experiment j thus applies one permutation j + 1 times. Other seeds use 42 + seed. L-BFGS is deterministic.
For two classes, ``ap`` of mteb is the average precision of the predicted labels (not of probabilities) of the second
class; it is the same here.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score

from embedpipe._utils.blas_threads import one_blas_thread
from embedpipe._utils.options import SEEDS
from embedpipe.evaluation.protocols.problem import Outcome, Problem, Rows, first_of_each_class

SIZES = (8, 16)
EXPERIMENTS = 10
MAX_ITER = 100
SEED = 42


def run(problem: Problem) -> Outcome:
    """Fit and score ten draws of each size."""
    seed = (SEED + problem.seed) % SEEDS
    details: list[dict[str, Any]] = []
    predicted: dict[str, Rows] = {}
    with one_blas_thread():
        for size in SIZES:
            for experiment, rows in enumerate(draws(problem.y_train, size, seed)):
                settings_row = {"samples_per_label": size, "experiment": experiment, "training_rows": len(rows)}
                scores, predictions = _experiment(problem, rows, seed)
                details.append(settings_row | scores)
                predicted[f"{size} rows per class, draw {experiment + 1}"] = predictions
    names = [name for name in ("accuracy", "f1", "f1_weighted", "ap", "ap_weighted") if name in details[0]]
    metrics = {
        f"{name}{'' if size == SIZES[0] else f'_{size}'}": float(
            np.mean([row[name] for row in details if row["samples_per_label"] == size])
        )
        for size in SIZES
        for name in names
    }
    settings = {
        "experiments": EXPERIMENTS,
        "labels per class": list(SIZES),
        "solver": "scikit-learn LogisticRegression, L-BFGS, C = 1",
        "iterations at most": MAX_ITER,
        "seed": seed,
        "training rows": len(problem.y_train),
    }
    return Outcome(metrics, settings, details, predicted)


def draws(y: Rows, size: int, seed: int) -> list[Rows]:
    """Return the training rows of each experiment, in the order of mteb."""
    order = np.arange(len(y))
    drawn = []
    for _ in range(EXPERIMENTS):
        np.random.RandomState(seed).shuffle(order)
        drawn.append(first_of_each_class(order, y, size))
    return drawn


def _experiment(problem: Problem, rows: Rows, seed: int) -> tuple[dict[str, Any], Rows]:
    model = LogisticRegression(max_iter=MAX_ITER, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # mteb stops there as well
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
    return scores, predicted
