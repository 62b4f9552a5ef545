"""Logistic regression and linear SVM on standardised features, with the penalty chosen on held-out rows."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from embedpipe.heads.columns import Columns, Floats, scores_of
from embedpipe.heads.folds import Folds, Split, inner_splits
from embedpipe.heads.linear import LinearClassifier
from embedpipe.heads.threads import SMALL, one_blas_thread

Rows = npt.NDArray[np.int64]


class _TunedClassifier(LinearClassifier, ABC):
    """Standardises, goes up the values of C until held-out loss worsens, and fits all rows with the best."""

    #: Used where there are too few rows to choose.
    FALLBACK = 0.01

    def __init__(self, Cs: Sequence[float], *, cv: Folds, max_iter: int) -> None:
        self.Cs = Cs
        self.cv = cv
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any) -> Self:
        """Choose ``C_`` and fit.

        Parameters
        ----------
        X : float array (n_samples, n_features)
            Left as it is; one standardised copy of at most its size is made at a time.
        y : array (n_samples,)
        """
        X, position = self._check_training(X, y)
        Cs = np.sort(np.asarray(self.Cs, np.float64))
        if not len(Cs) or Cs[0] <= 0:
            raise ValueError(f"Cs={self.Cs!r} must be numbers above 0")
        with one_blas_thread(X.nbytes < SMALL):
            self.C_ = self._choose(X, position, Cs)
            everything = np.arange(len(X))
            columns = Columns.of(X, everything)
            model = self._solver().set_params(C=self.C_).fit(columns.standardised(X, everything), position)
        self.coef_, self.intercept_ = columns.unscaled(model.coef_, model.intercept_)
        self.n_iter_ = int(np.max(model.n_iter_))
        return self

    def _choose(self, X: npt.NDArray[Any], y: Rows, Cs: Floats) -> float:
        splits = inner_splits(self.cv, y, classes=True) if len(Cs) > 1 else []
        if not splits:
            return float(Cs[np.argmin(np.abs(np.log(Cs / self.FALLBACK)))])
        losses = np.sum([self._held_out_losses(X, y, split, Cs) for split in splits], axis=0)
        return float(Cs[np.argmin(losses)])

    def _held_out_losses(self, X: npt.NDArray[Any], y: Rows, split: Split, Cs: Floats) -> Floats:
        """Return the held-out loss for each C, going up; infinite after it has worsened."""
        train, test = split
        known, labels = np.unique(y[train], return_inverse=True)
        columns = Columns.of(X, train)
        Z = columns.standardised(X, train)
        model = self._solver()
        losses = np.full(len(Cs), np.inf)
        for i, C in enumerate(Cs.tolist()):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # the last digits of a losing C do not matter
                model.set_params(C=C).fit(Z, labels)
            scores = scores_of(X, *columns.unscaled(model.coef_, model.intercept_), rows=test)
            losses[i] = self._loss(scores, np.searchsorted(known, y[test])).mean()
            if i and losses[i] > losses[i - 1]:
                break
        return losses

    @abstractmethod
    def _solver(self) -> Any:
        """Return an unfitted estimator with a parameter C."""

    @abstractmethod
    def _loss(self, scores: Floats, y: Rows) -> Floats:
        """Return the loss of each row, for ``scores`` (n, n_classes), or (n, 1) for two classes."""


class TunedLogisticRegression(_TunedClassifier):
    """Multinomial logistic regression on standardised features; C by held-out log-loss.

    The linear probe of Kornblith et al. (CVPR 2019) and CLIP (Radford et al., ICML 2021), solved by
    `sklearn.linear_model.LogisticRegression` (L-BFGS). Log-loss, unlike accuracy, has one clear minimum on a few
    hundred rows.

    Parameters
    ----------
    Cs : sequence of float
        Inverse penalties to choose from.
    cv : int, iterable of (train rows, held-out rows), or None
        On which rows to choose; by default 3 folds, or one held-out fifth of more than 20,000 rows.
    max_iter : int

    Attributes
    ----------
    C_ : float
    """

    def __init__(
        self,
        Cs: Sequence[float] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
        *,
        cv: Folds = None,
        max_iter: int = 1000,
    ) -> None:
        super().__init__(Cs, cv=cv, max_iter=max_iter)

    def predict_proba(self, X: Any) -> Floats:
        """Return probabilities, float64 (n_samples, n_classes)."""
        shares: Floats = softmax(_two_sided(self.decision_function(X)), axis=1)
        return shares

    def _solver(self) -> Any:
        # Going up in C, the last solution is a good start for the next.
        return LogisticRegression(max_iter=self.max_iter, warm_start=True)

    def _loss(self, scores: Floats, y: Rows) -> Floats:
        loss: Floats = -log_softmax(_two_sided(scores), axis=1)[np.arange(len(y)), y]
        return loss


class TunedLinearSVC(_TunedClassifier):
    """One-vs-rest linear SVM on standardised features; C by held-out squared hinge loss.

    Solved by `sklearn.svm.LinearSVC`, which makes a float64 copy of its own and more. Parameters and attributes are
    those of `TunedLogisticRegression`.
    """

    def __init__(
        self, Cs: Sequence[float] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1), *, cv: Folds = None, max_iter: int = 10_000
    ) -> None:
        super().__init__(Cs, cv=cv, max_iter=max_iter)

    def _solver(self) -> Any:
        return LinearSVC(dual=True, max_iter=self.max_iter, random_state=0)

    def _loss(self, scores: Floats, y: Rows) -> Floats:
        if scores.shape[1] == 1:
            wanted = np.where(y == 1, 1, -1)[:, None]
        else:
            wanted = np.where(np.arange(scores.shape[1]) == y[:, None], 1, -1)
        loss: Floats = (np.maximum(0, 1 - wanted * scores) ** 2).sum(axis=1)
        return loss


def _two_sided(scores: Floats) -> Floats:
    """Return scores of all classes, where those of two are given as one column or a vector."""
    scores = scores.reshape(len(scores), -1)
    return np.hstack([np.zeros_like(scores), scores]) if scores.shape[1] == 1 else scores
