"""Logistic regression on standardised features, with the penalty chosen on held-out rows."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import _check_sample_weight

from embedpipe._utils.public import public_in
from embedpipe.estimators.linear.base import LinearClassifier
from embedpipe.estimators.solvers.column_stats import Columns, Floats, scores_of
from embedpipe.estimators.solvers.dual import is_wide, solve_wide_path
from embedpipe.estimators.solvers.lbfgs import Solutions, solve_path
from embedpipe.estimators.solvers.logistic_loss import LogisticLoss, TrainingSet
from embedpipe.estimators.solvers.torch_matrix import place
from embedpipe.splits.inner import Folds, Split, inner_splits

if TYPE_CHECKING:
    from embedpipe.estimators.solvers.torch_matrix import DeviceMatrix

Rows = npt.NDArray[np.int64]


@public_in("embedpipe.estimators")
class TunedLogisticRegression(LinearClassifier):
    """Multinomial logistic regression on features scaled by `VarianceFloorScaler`; C by held-out log-loss.

    The linear probe of Kornblith et al. (CVPR 2019) and CLIP (Radford et al., ICML 2021). Minimises what
    `sklearn.linear_model.LogisticRegression` minimises, all folds of a value of C at once (see
    `embedpipe.estimators.solvers.lbfgs`). Log-loss, unlike accuracy, has one clear minimum on a few hundred rows.

    Parameters
    ----------
    Cs : sequence of float
        Inverse penalties to choose from.
    cv : int, iterable of (train rows, held-out rows), or None
        On which rows to choose; by default 3 folds, or one held-out fifth of more than 20,000 rows.
    class_weight : dict, "balanced" or None
        Class -> what its rows count; ``balanced`` counts all classes alike.
    tol : float
        Stop where no slope is larger; ten times that while C is chosen.
    max_iter : int
    n_jobs : int, optional
        Threads; all where None.
    device : str, optional
        A device of torch to fit on, such as ``cuda``; by default the processor, without torch. The steps are the same,
        and so is C but for ties; sums in another order move the solution by less than ``tol`` leaves open: up to 5e-3
        in a probability of 10,000 photos, where both were up to 9e-3 from the exact one.

    Attributes
    ----------
    C_ : float
    n_iter_ : int
        Of the last fit.
    """

    #: The value of C where there are too few rows to choose.
    FALLBACK = 0.01

    def __init__(
        self,
        Cs: Sequence[float] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
        *,
        cv: Folds = None,
        class_weight: Any = None,
        tol: float = 1e-5,
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
            Left as it is, and not copied.
        y : array (n_samples,)
        sample_weight : float array (n_samples,), optional
            What each row counts, 0 or more; multiplied by ``class_weight``.
        """
        X, position = self._check_training(X, y)
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        X = place(X, self.device)
        Cs = np.sort(np.asarray(self.Cs, np.float64))
        if not len(Cs) or Cs[0] <= 0:
            raise ValueError(f"Cs={self.Cs!r} must be numbers above 0")
        counted = weights > 0
        if len(np.unique(position[counted])) < 2:
            raise ValueError("all weight is on one class: give rows of two classes at least a weight above 0")
        splits = inner_splits(self.cv, position, classes=True) if len(Cs) > 1 else []
        # A split whose rows that count are of one class, or hold nothing out, says nothing.
        splits = [
            (train, test)
            for train, test in splits
            if len(np.unique(position[train[counted[train]]])) > 1 and counted[test].any()
        ]
        start = None
        if splits:
            self.C_, start = self._choose(X, position, weights, splits, Cs)
        else:
            self.C_ = float(Cs[np.argmin(np.abs(np.log(Cs / self.FALLBACK)))])
        self.coef_, self.intercept_, self.n_iter_ = self._solve(X, position, weights, start)
        return self

    def predict_proba(self, X: Any) -> Floats:
        """Return probabilities, float64 (n_samples, n_classes)."""
        shares: Floats = softmax(_two_sided(self.decision_function(X)), axis=1)
        return shares

    def _weights(self, y: Rows, rows: Rows, weights: Floats) -> Floats:
        """Return what rows count in a model that is fitted on just these."""
        if self.class_weight is None:
            return weights[rows]
        by_class = compute_sample_weight(self.class_weight, self.classes_[y[rows]])
        return np.asarray(weights[rows] * by_class, np.float64)

    def _paths(
        self,
        X: npt.NDArray[Any] | DeviceMatrix,
        y: Rows,
        weights: Floats,
        trained_on: Sequence[Rows],
        Cs: Sequence[float],
        start: Any,
    ) -> tuple[list[Columns], Generator[Solutions, None, None]]:
        sets = [TrainingSet(rows, self._weights(y, rows, weights)) for rows in trained_on]
        columns = [Columns.of(X, one.rows, one.weights) for one in sets]
        how = {"start": start, "max_iter": self.max_iter}
        how["tol"] = self.tol if len(sets) == len(Cs) == 1 else 10 * self.tol
        if not isinstance(X, np.ndarray):
            from embedpipe.estimators.solvers.torch_loss import DeviceLoss

            return columns, solve_path(DeviceLoss(X, y, len(self.classes_), sets, columns=columns), Cs, **how)
        if is_wide(X, sets):
            return columns, solve_wide_path(X, y, len(self.classes_), sets, columns, Cs, **how)
        loss = LogisticLoss(X, y, len(self.classes_), sets, self.n_jobs, columns)
        return columns, solve_path(loss, Cs, **how)

    def _choose(
        self, X: npt.NDArray[Any] | DeviceMatrix, y: Rows, weights: Floats, splits: list[Split], Cs: Floats
    ) -> tuple[float, Any]:
        columns, path = self._paths(X, y, weights, [train for train, _ in splits], Cs.tolist(), None)
        least, best = np.inf, (float(Cs[0]), (np.zeros(0), np.zeros(0)))
        with contextlib.closing(path):
            for C, found in zip(Cs.tolist(), path, strict=True):
                total = 0.0
                models = zip(columns, found.coef, found.intercept, splits, strict=True)
                for own, coef, intercept, (_, test) in models:
                    losses = _log_losses(X, *own.unscaled(coef, intercept), test, y[test])
                    total += float(np.average(losses, weights=self._weights(y, test, weights)))
                if total > least:
                    break
                least, best = total, (C, (found.coef.mean(axis=0), found.intercept.mean(axis=0)))
        return best

    def _solve(
        self, X: npt.NDArray[Any] | DeviceMatrix, y: Rows, weights: Floats, start: Any
    ) -> tuple[Floats, Floats, int]:
        columns, path = self._paths(X, y, weights, [np.arange(len(X))], [self.C_], start)
        with contextlib.closing(path):
            found = next(path)
        if not found.converged.all():
            warnings.warn(
                f"logistic regression took all of its {self.max_iter} steps: raise max_iter, or tol={self.tol}",
                ConvergenceWarning,
                stacklevel=2,
            )
        coef, intercept = columns[0].unscaled(found.coef[0], found.intercept[0])
        return coef, intercept, int(found.n_iter[0])


def _log_losses(X: npt.NDArray[Any] | DeviceMatrix, coef: Floats, intercept: Floats, rows: Rows, y: Rows) -> Floats:
    """Return the log-loss of each of some rows, whose classes are ``y``."""
    if not isinstance(X, np.ndarray):
        return X.log_losses(coef, intercept, rows, y)
    scores = _two_sided(scores_of(X, coef, intercept, rows))
    losses: Floats = -log_softmax(scores, axis=1)[np.arange(len(rows)), y]
    return losses


def _two_sided(scores: Floats) -> Floats:
    """Return scores of all classes, where those of two are given as one column or a vector."""
    scores = scores.reshape(len(scores), -1)
    return np.hstack([np.zeros_like(scores), scores]) if scores.shape[1] == 1 else scores
