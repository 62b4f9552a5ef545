"""Logistic regression with fewer rows than features: each training set is solved in the space that its rows span.

A solution is a linear combination of the rows (representer theorem: Kimeldorf and Wahba, Journal of Mathematical
Analysis and Applications 33, 1971), so 300 rows of 1,280 features make a problem of size 300. A rotation to the
principal axes of the rows keeps the norm of the coefficients, and so the penalty.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from embedpipe._utils.blas_threads import one_blas_thread
from embedpipe.estimators.solvers.column_stats import ColumnStats
from embedpipe.estimators.solvers.lbfgs import PathSolver, Solutions
from embedpipe.estimators.solvers.logistic_loss import Floats, LogisticLoss, Rows, TrainingSet


def is_wide(X: npt.NDArray[Any], sets: Sequence[TrainingSet]) -> bool:
    """Return whether decomposing the rows of every set is cheaper than solving for all features."""
    return bool(2 * max(len(each.rows) for each in sets) < X.shape[1])


def solve_wide_path(
    X: npt.NDArray[Any],
    y: Rows,
    n_classes: int,
    sets: Sequence[TrainingSet],
    columns: Sequence[ColumnStats],
    Cs: Sequence[float],
    *,
    start: tuple[Floats, Floats] | None = None,
    tol: float = 1e-4,
    max_iter: int = 1000,
) -> Generator[Solutions, None, None]:
    """Yield the solutions of `embedpipe.estimators.solvers.lbfgs.solve_path`, for rows standardised by ``columns``.

    Parameters
    ----------
    X : float array (n_samples, n_features)
    y : int64 array (n_samples,)
        Classes, 0 to ``n_classes`` - 1.
    sets : sequence of TrainingSet
    columns : sequence of ColumnStats
        Means and scales to standardise each set's rows with.
    start, tol, max_iter
        See `embedpipe.estimators.solvers.lbfgs.solve_path`.
    """
    with one_blas_thread():
        axes, paths = [], []
        for each, stats in zip(sets, columns, strict=True):
            basis, values = _principal(stats.standardised(X, each.rows).astype(np.float64))
            loss = LogisticLoss(
                values,
                y[each.rows],
                n_classes,
                [TrainingSet(np.arange(len(each.rows)), each.weights)],
                n_jobs=1,
                columns=[ColumnStats.identity(values.shape[1])],
            )
            axes.append(basis)
            paths.append(PathSolver(loss, None if start is None else (start[0] @ basis, start[1]), tol, max_iter))
        for C in Cs:
            solutions = [path.solve(C) for path in paths]
            yield Solutions(
                np.stack([each.coef[0] @ basis.T for each, basis in zip(solutions, axes, strict=True)]),
                np.concatenate([each.intercept for each in solutions]),
                np.concatenate([each.n_iter for each in solutions]),
                np.concatenate([each.converged for each in solutions]),
            )


def _principal(Z: Floats) -> tuple[Floats, Floats]:
    """Return the principal axes of rows (n_features, rank), and the coordinates of the rows (n_rows, rank)."""
    squares, left = eigh(Z @ Z.T, check_finite=False)
    kept = squares > len(Z) * np.finfo(np.float64).eps * max(squares[-1], np.finfo(np.float64).tiny)
    kept[-1] = True  # one axis at least, also if all rows are the same
    lengths = np.sqrt(np.maximum(squares[kept], np.finfo(np.float64).tiny))
    return Z.T @ (left[:, kept] / lengths), left[:, kept] * lengths
