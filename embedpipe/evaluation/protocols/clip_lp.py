"""``clip-lp``: the linear probe of CLIP (Radford et al., ICML 2021, appendix A.3).

Multinomial logistic regression by scikit-learn's L-BFGS, at most 1,000 iterations, on unscaled vectors (the README of
openai/CLIP does the same with a fixed C). C is searched between 1e-6 and 1e6, in 8 steps per decade, by accuracy on
held-out rows: first every second decade, then the neighbours of the best value at half the distance, and so on down to
one step. The model is then refitted on all training rows with the best C, and the test rows are scored once.

The held-out rows are the published validation split if there is one, as in the paper. Otherwise they are a stratified
fifth of the training rows, drawn with ``seed``; the paper names no share. Among equally good values of C the smallest
is chosen; the paper does not say which. Classes with a single row are not held out.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score

from embedpipe._utils.blas_threads import SMALL, one_blas_thread
from embedpipe.errors import TrainingDataError
from embedpipe.evaluation.protocols.problem import Outcome, Problem, Rows, Vectors
from embedpipe.statistics.percentages import percent

STEPS_PER_DECADE = 8
CS = [10.0 ** (step / STEPS_PER_DECADE) for step in range(-6 * STEPS_PER_DECADE, 6 * STEPS_PER_DECADE + 1)]
FIRST_STRIDE = 2 * STEPS_PER_DECADE
MAX_ITER = 1000
HELD_OUT_SHARE = 0.2


def run(problem: Problem) -> Outcome:
    """Choose C on held-out rows, refit on all, score the test rows."""
    X, y = problem.X_train, problem.y_train
    held_out = _held_out(y, problem.seed) if problem.held_out is None else problem.held_out
    train = np.setdiff1d(np.arange(len(y)), held_out)
    tried: dict[int, dict[str, Any]] = {}
    with one_blas_thread(X.nbytes < SMALL):
        best, positions = -1, list(range(0, len(CS), FIRST_STRIDE))
        stride = FIRST_STRIDE
        while positions:
            for position in positions:
                if position not in tried:
                    tried[position] = _try(CS[position], X, y, train, held_out)
            best = max(sorted(tried), key=lambda position: tried[position]["held_out_accuracy"])
            stride //= 2
            positions = [i for i in (best - stride, best + stride) if stride and 0 <= i < len(CS)]
        model = fit_logistic_regression(X, y, CS[best])
        predicted = model.predict(problem.X_test)
    metrics = {
        "accuracy": float((predicted == problem.y_test).mean()),
        "mean_per_class_recall": float(
            recall_score(problem.y_test, predicted, average="macro", labels=np.unique(problem.y_test))
        ),
        "C": CS[best],
        "held_out_accuracy": tried[best]["held_out_accuracy"],
    }
    settings = {
        "solver": "scikit-learn LogisticRegression, L-BFGS",
        "iterations at most": MAX_ITER,
        "converged": bool(model.n_iter_.max() < MAX_ITER),
        "C from": CS[0],
        "C to": CS[-1],
        "steps per decade": STEPS_PER_DECADE,
        "held out": "validation split" if problem.held_out is not None else f"{percent(HELD_OUT_SHARE, 0)}, stratified",
        "held-out rows": len(held_out),
        "training rows": len(y),
        "seed": problem.seed,
    }
    return Outcome(metrics, settings, [tried[position] for position in sorted(tried)], {f"C = {CS[best]:g}": predicted})


def fit_logistic_regression(X: Vectors, y: Rows, C: float) -> Any:
    """Fit scikit-learn's logistic regression; the protocol accepts a fit that has not converged after `MAX_ITER`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=C, max_iter=MAX_ITER).fit(X, y)


def _try(C: float, X: Vectors, y: Rows, train: Rows, held_out: Rows) -> dict[str, Any]:
    model = fit_logistic_regression(X[train], y[train], C)
    iterations = int(model.n_iter_.max())
    accuracy = float((model.predict(X[held_out]) == y[held_out]).mean())
    return {"C": C, "held_out_accuracy": accuracy, "iterations": iterations, "converged": iterations < MAX_ITER}


def _held_out(y: Rows, seed: int) -> Rows:
    """Draw a fifth of each class, at least one row, but none of a class with a single row."""
    order = np.random.default_rng(seed).permutation(len(y))
    drawn = []
    for label in np.unique(y):
        rows = order[y[order] == label]
        drawn.append(rows[: min(max(1, round(HELD_OUT_SHARE * len(rows))), len(rows) - 1)])
    held_out = np.sort(np.concatenate(drawn))
    if not len(held_out):
        raise TrainingDataError("at least one class must have 2 rows, to choose C on held-out rows: label more rows")
    return held_out
