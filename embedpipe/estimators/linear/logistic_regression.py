"""`TunedLogisticRegression`, the head ``logreg``: logistic regression that chooses its C on held-out rows.

``fit`` standardises all rows and rotates them to their principal axes, once. ``C_`` is chosen in
`TunedLogisticRegression._choose_penalty`: for each C of ``Cs``, ascending, all folds of
`embedpipe.splits.inner.inner_splits` are fitted at once (`embedpipe.estimators.solvers`), until the held-out log-loss
rises. ``fit`` then fits all rows with the C of the least loss.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import _check_sample_weight

from embedpipe._utils.blas_threads import one_blas_thread
from embedpipe._utils.public import public_in
from embedpipe.estimators.linear.base import SoftmaxClassifier, scores_of_all_classes
from embedpipe.estimators.solvers.column_stats import ColumnStats, Floats, Matrix, scores_of
from embedpipe.estimators.solvers.lbfgs import Solutions, solve_path
from embedpipe.estimators.solvers.logistic_loss import LogisticLoss, TrainingSet
from embedpipe.estimators.solvers.principal_rows import PrincipalRows
from embedpipe.estimators.solvers.torch_matrix import move_to_device
from embedpipe.splits.inner import Folds, Split, inner_splits
from embedpipe.splits.mapped_rows import MappedRows

if TYPE_CHECKING:
    from embedpipe.estimators.solvers.torch_matrix import TorchMatrix

Rows = npt.NDArray[np.int64]

#: The value of ``tol`` while C is chosen: a looser one favours large C, whose path is stopped halfway.
CHOICE_TOL = 1e-4


@public_in("embedpipe.estimators")
class TunedLogisticRegression(SoftmaxClassifier):
    """Multinomial logistic regression on standardised features, with C chosen by held-out log-loss.

    The linear probe of Kornblith et al. and of CLIP. It minimises the same objective as
    `sklearn.linear_model.LogisticRegression`, on features scaled as `VarianceFloorScaler` does. C is chosen by
    log-loss, which, unlike accuracy, has one clear minimum on a few hundred rows.

    Parameters
    ----------
    Cs : sequence of float
        Inverse penalties to choose from.
    cv : int, iterable of (train rows, held-out rows), or None
        Splits on which C is chosen; by default 3 folds, or one held-out fifth of more than 20,000 rows.
    class_weight : dict, "balanced" or None
        Weight of each class's rows; ``balanced`` gives all classes the same total weight.
    tol : float
        Stop when the next step is expected to decrease the loss by no more than this share of it, and of what was
        gained over a model without coefficients; 1e-4 while C is chosen. With the default, rounding of the features,
        as by another engine, moves probabilities by less than 1e-3.
    max_iter : int
        Maximum number of L-BFGS steps for each C.
    n_jobs : int, optional
        Number of threads; None: all usable cores.
    device : str, optional
        Torch device to fit on, such as ``cuda``; by default the CPU, without torch. Steps and C are the same
        (except for ties); sums in another order change the solution within ``tol``.

    Attributes
    ----------
    classes_ : array (n_classes,)
    coef_ : float64 array (n_classes, n_features), or (1, n_features) for two classes
        For raw features: standardisation is folded in.
    intercept_ : float64 array (n_classes,) or (1,)
    C_ : float
        The chosen inverse penalty.
    n_iter_ : int
        Number of steps of the final fit.
    n_features_in_ : int

    References
    ----------
    Kornblith, Shlens, Le: Do better ImageNet models transfer better?, CVPR 2019. Radford et al.: Learning transferable
    visual models from natural language supervision, ICML 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from embedpipe.estimators import TunedLogisticRegression
    >>> X = np.array([[0.0], [1.0], [2.0], [7.0], [8.0], [9.0]])
    >>> model = TunedLogisticRegression().fit(X, ["low", "low", "low", "high", "high", "high"])
    >>> model.predict([[1.5]])
    array(['low'], dtype='<U4')
    >>> model.C_
    10.0
    """

    #: The value of C if there are too few rows to choose it.
    FALLBACK = 0.01

    def __init__(
        self,
        Cs: Sequence[float] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
        *,
        cv: Folds = None,
        class_weight: Any = None,
        tol: float = 1e-8,
        max_iter: int = 1000,
        n_jobs: int | None = None,
        device: str | None = None,
    ) -> None:
        self.Cs = Cs
        self.cv = cv
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter
        self.n_jobs = n_jobs
        self.device = device

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Choose ``C_`` and fit.

        Parameters
        ----------
        X : float array (n_samples, n_features)
            Neither changed nor copied.
        y : array (n_samples,)
        sample_weight : float array (n_samples,), optional
            Weights >= 0; multiplied by ``class_weight``.

        Raises
        ------
        ValueError
            If there are fewer than two classes with a weight above 0, or a parameter is out of range.
        UsageError
            If the device cannot be used.

        Warns
        -----
        ConvergenceWarning
            If the final fit stops after ``max_iter`` steps.
        """
        X, position = self._check_training(X, y)
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        X = move_to_device(X, self.device)
        Cs = np.sort(np.asarray(self.Cs, np.float64))
        if not len(Cs) or Cs[0] <= 0:
            raise ValueError(f"Cs must be positive numbers, got {self.Cs!r}")
        if len(np.unique(position[weights > 0])) < 2:
            raise ValueError("sample_weight must be above 0 for rows of two classes or more, got one class")
        splits = inner_splits(self.cv, position, classes=True, weights=weights) if len(Cs) > 1 else []
        everything = np.arange(len(X))
        columns = ColumnStats.measure(X, everything, self._weights(position, everything, weights))
        with one_blas_thread():
            rows = _rows_of(X, columns)
        start = None
        if splits:
            self.C_, start = self._choose_penalty(rows, position, weights, splits, Cs)
        else:
            self.C_ = float(Cs[np.argmin(np.abs(np.log(Cs / self.FALLBACK)))])
        self.coef_, self.intercept_, self.n_iter_ = self._solve(rows, position, weights, start)
        return self

    def _weights(self, y: Rows, rows: Rows, weights: Floats) -> Floats:
        """Return the weights of ``rows`` in a model that is fitted on these rows only."""
        if self.class_weight is None:
            return weights[rows]
        by_class = compute_sample_weight(self.class_weight, self.classes_[y[rows]])
        return np.asarray(weights[rows] * by_class, np.float64)

    def _path(
        self, rows: PrincipalRows, y: Rows, weights: Floats, trained_on: Sequence[Rows], Cs: Sequence[float], **how: Any
    ) -> Generator[Solutions, None, None]:
        """Return a generator of the solutions of each training set, for each C in turn."""
        sets = [TrainingSet(numbers, self._weights(y, numbers, weights)) for numbers in trained_on]
        if isinstance(rows.X, np.ndarray | MappedRows):
            loss = LogisticLoss(rows, y, len(self.classes_), sets, self.n_jobs)
        else:
            from embedpipe.estimators.solvers.torch_loss import TorchLogisticLoss

            loss = TorchLogisticLoss(rows, y, len(self.classes_), sets)
        return solve_path(loss, Cs, max_iter=self.max_iter, **how)

    def _choose_penalty(
        self, rows: PrincipalRows, y: Rows, weights: Floats, splits: list[Split], Cs: Floats
    ) -> tuple[float, Any]:
        """Return the C with the least held-out log-loss, and the mean solution for it as a start for the final fit."""
        path = self._path(rows, y, weights, [train for train, _ in splits], Cs.tolist(), tol=max(CHOICE_TOL, self.tol))
        least, best = np.inf, (float(Cs[0]), (np.zeros(0), np.zeros(0)))
        with contextlib.closing(path):
            for C, solutions in zip(Cs.tolist(), path, strict=True):
                total = 0.0
                for coef, intercept, (_, test) in zip(solutions.coef, solutions.intercept, splits, strict=True):
                    losses = _log_losses(rows.X, *rows.unscaled(coef, intercept), test, y[test])
                    total += float(np.average(losses, weights=self._weights(y, test, weights)))
                if total > least:
                    break
                least, best = total, (C, (solutions.coef.mean(axis=0), solutions.intercept.mean(axis=0)))
        return best

    def _solve(self, rows: PrincipalRows, y: Rows, weights: Floats, start: Any) -> tuple[Floats, Floats, int]:
        path = self._path(rows, y, weights, [np.arange(len(rows))], [self.C_], start=start, tol=self.tol)
        with contextlib.closing(path):
            solution = next(path)
        if not solution.converged.all():
            warnings.warn(
                f"logistic regression did not converge in {self.max_iter} steps: raise max_iter, or tol={self.tol}",
                ConvergenceWarning,
                stacklevel=2,
            )
        coef, intercept = rows.unscaled(solution.coef[0], solution.intercept[0])
        return coef, intercept, int(solution.n_iter[0])


def _rows_of(X: Matrix | TorchMatrix, columns: ColumnStats) -> PrincipalRows:
    """Return the rows in coordinates along their principal axes, on the device that holds them."""
    if isinstance(X, np.ndarray | MappedRows):
        return PrincipalRows(X, columns)
    from embedpipe.estimators.solvers.torch_loss import TorchRows

    return TorchRows(X, columns)


def _log_losses(X: Matrix | TorchMatrix, coef: Floats, intercept: Floats, rows: Rows, y: Rows) -> Floats:
    """Return the log-loss of each of ``rows``, whose classes are ``y``."""
    if not isinstance(X, np.ndarray | MappedRows):
        return X.log_losses(coef, intercept, rows, y)
    scores = scores_of_all_classes(scores_of(X, coef, intercept, rows))
    losses: Floats = -log_softmax(scores, axis=1)[np.arange(len(rows)), y]
    return losses
