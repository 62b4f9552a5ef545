"""The same models where there are fewer rows than features: each training set in the space that its rows span.

A solution is a combination of the rows (the representer theorem: Kimeldorf and Wahba, Journal of Mathematical Analysis
and Applications 33, 1971), so that 300 rows of 1,280 features are a problem of 300. Rotated to the principal axes of
the rows, coefficients keep their length, and the penalty is what it was.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from embedpipe._utils.blas_threads import one_blas_thread
from embedpipe.estimators.solvers.column_stats import Columns
from embedpipe.estimators.solvers.lbfgs import Path, Solutions
from embedpipe.estimators.solvers.logistic_loss import Floats, LogisticLoss, Rows, TrainingSet


def is_wide(X: npt.NDArray[Any], sets: Sequence[TrainingSet]) -> bool:
    """Say whether decomposing the rows of every set is cheaper than working on all features."""
    return bool(2 * max(len(one.rows) for one in sets) < X.shape[1])


def solve_wide_path(
    X: npt.NDArray[Any],
    y: Rows,
    n_classes: int,
    sets: Sequence[TrainingSet],
    columns: Sequence[Columns],
    Cs: Sequence[float],
    *,
    start: tuple[Floats, Floats] | None = None,
    tol: float = 1e-4,
    max_iter: int = 1000,
) -> Generator[Solutions, None, None]:
    """Yield what `embedpipe.estimators.solvers.lbfgs.solve_path` yields, for rows standardised by ``columns``.

    Parameters
    ----------
    X : float array (n_samples, n_features)
    y : int64 array (n_samples,)
        Classes, 0 to ``n_classes`` - 1.
    sets : sequence of TrainingSet
    columns : sequence of Columns
        What each set's rows are standardised with.
    """
    with one_blas_thread():
        axes, paths = [], []
        for one, own in zip(sets, columns, strict=True):
            basis, values = _principal(own.standardised(X, one.rows).astype(np.float64))
            loss = LogisticLoss(
                values,
                y[one.rows],
                n_classes,
                [TrainingSet(np.arange(len(one.rows)), one.weights)],
                n_jobs=1,
                columns=[Columns.as_they_are(values.shape[1])],
            )
            axes.append(basis)
            paths.append(Path(loss, None if start is None else (start[0] @ basis, start[1]), tol, max_iter))
        for C in Cs:
            found = [path.solve(C) for path in paths]
            yield Solutions(
                np.stack([one.coef[0] @ basis.T for one, basis in zip(found, axes, strict=True)]),
                np.concatenate([one.intercept for one in found]),
                np.concatenate([one.n_iter for one in found]),
                np.concatenate([one.converged for one in found]),
            )


def _principal(Z: Floats) -> tuple[Floats, Floats]:
    """Return the principal axes of rows (n_features, rank), and the rows along them (n_rows, rank)."""
    squares, left = eigh(Z @ Z.T, check_finite=False)
    kept = squares > len(Z) * np.finfo(np.float64).eps * max(squares[-1], np.finfo(np.float64).tiny)
    kept[-1] = True  # one axis at least, also of rows that are all alike
    lengths = np.sqrt(np.maximum(squares[kept], np.finfo(np.float64).tiny))
    return Z.T @ (left[:, kept] / lengths), left[:, kept] * lengths
