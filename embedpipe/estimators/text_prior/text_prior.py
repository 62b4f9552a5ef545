"""`TextPriorClassifier`, the head ``text-prior``: logistic regression that starts from, and is held to, class names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax

from embedpipe._utils.public import public_in
from embedpipe.estimators.linear.base import unit_rows
from embedpipe.estimators.solvers.column_stats import Floats
from embedpipe.estimators.text_prior.zero_shot import ZeroShotClassifier, best_scale
from embedpipe.splits.inner import Folds, inner_splits

#: Where the solver stops: further steps change the held-out log-loss in the fifth digit.
STOP = {"maxiter": 500, "ftol": 1e-6, "gtol": 1e-6}
#: With fewer labels of a class, what is held out says too little to choose C by.
FEW = 10


@public_in("embedpipe.estimators")
class TextPriorClassifier(ZeroShotClassifier):
    """Logistic regression whose penalty is the distance of its directions from the vectors of the class names.

    With few labels it stays near the zero-shot classifier, with many it becomes the linear probe. Where labels suffice,
    held-out log-loss chooses how far it may go, and no step at all is a choice.

    Parameters
    ----------
    prototypes, classes, temperature
        As of `ZeroShotClassifier`.
    Cs : sequence of float
        Inverse penalties to choose from; 0 is the zero-shot classifier.
    cv : int, iterable of (train rows, held-out rows), or None
        Splits on which C is chosen; by default 3 folds, or one held-out fifth of more than 20,000 rows.

    Attributes
    ----------
    classes_, coef_, intercept_, temperature_, n_features_in_
        As of `ZeroShotClassifier`; the temperature is that of the prior.
    C_ : float
        The chosen inverse penalty; 0 for the zero-shot classifier.

    Notes
    -----
    The objective is ``C * sum(log-loss) + sum(|w_k - s t_k|^2) / 2`` on unit rows that are divided by ``temperature``,
    for unit prototypes ``t_k``. Names that say little of the labels get a small ``s``, the scale of least log-loss.
    Biases have the same penalty around 0. With fewer than 10 labels of a class, C is not chosen: it is `FALLBACK`.

    References
    ----------
    Silva-Rodriguez, Hajimiri, Ben Ayed, Dolz: A closer look at the few-shot adaptation of large vision-language models,
    CVPR 2024 (CLAP; here with one multiplier for all classes, chosen by held-out loss). Li, Grandvalet, Davoine:
    Explicit inductive bias for transfer learning with convolutional networks, ICML 2018 (L2-SP).

    Examples
    --------
    >>> from embedpipe.estimators import TextPriorClassifier
    >>> X, y = [[2.0, 1.0], [3.0, 2.0], [1.0, 1.0], [2.0, 3.0]], ["cat", "cat", "dog", "dog"]
    >>> model = TextPriorClassifier([[1.0, 0.0], [0.0, 1.0]], ["cat", "dog"]).fit(X, y)
    >>> model.predict([[3.0, 1.0], [0.1, 0.2]])
    array(['cat', 'dog'], dtype='<U3')
    """

    #: All rows are read at once.
    trains_on_blocks = False
    #: The value of C if there are too few rows to choose it (`benchmarks/zero_shot.py`).
    FALLBACK = 0.1

    def __init__(
        self,
        prototypes: Any,
        classes: Sequence[Any],
        *,
        temperature: float = 0.05,
        Cs: Sequence[float] = (0.0, 1e-2, 1e-1, 1.0, 10.0, 100.0),
        cv: Folds = None,
    ) -> None:
        super().__init__(prototypes, classes, temperature=temperature)
        self.Cs = Cs
        self.cv = cv

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Choose ``C_`` and fit; without labels, this is the zero-shot classifier.

        Parameters
        ----------
        X : float array (n_samples, n_features)
        y : array (n_samples,), optional
            Labels among ``classes``.
        sample_weight : float array (n_samples,), optional

        Raises
        ------
        ValueError
            As `ZeroShotClassifier.fit`, or if a C is below 0.
        """
        Cs = np.sort(np.asarray(self.Cs, np.float64))
        if not len(Cs) or Cs[0] < 0:
            raise ValueError(f"Cs must be numbers >= 0, got {self.Cs!r}")
        X, y, weights = self._check(X, y, sample_weight)
        start = np.hstack([self._prototypes(X), np.zeros((len(self.classes_), 1))])
        self.C_, self.temperature_ = 0.0, self.temperature
        if y is not None:
            # Steps have the size that the usual temperature asks for, whatever the names are worth.
            rows = np.hstack([unit_rows(X), np.ones((len(X), 1))]) / self.temperature
            few = self.cv is None and np.unique(y, return_counts=True)[1].min() < FEW
            splits = [] if few or len(Cs) == 1 else inner_splits(self.cv, y, classes=True, weights=weights)
            fallback = float(min(Cs.tolist(), key=lambda C: abs(np.log(max(C, 1e-300) / self.FALLBACK))))
            self.C_ = _choose(rows, y, weights, start, splits, Cs, self.temperature) if splits else fallback
            scale = best_scale(rows @ start.T * self.temperature, y, weights)
            self.temperature_ = 1 / scale
            start = _solve(rows, y, weights, scale * self.temperature * start, self.C_)
        self.coef_, self.intercept_ = start[:, :-1] / self.temperature, start[:, -1] / self.temperature
        return self


def _choose(
    rows: Floats,
    y: npt.NDArray[np.int64],
    weights: Floats,
    start: Floats,
    splits: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]],
    Cs: Floats,
    temperature: float,
) -> float:
    """Return the C of the least held-out log-loss; larger ones are tried while it falls."""
    scores = rows @ start.T * temperature
    starts = [temperature * best_scale(scores[train], y[train], weights[train]) * start for train, _ in splits]
    least, best = np.inf, float(Cs[0])
    found = [*starts]
    for C in Cs.tolist():
        total = 0.0
        for number, (train, test) in enumerate(splits):
            found[number] = _solve(rows[train], y[train], weights[train], starts[number], C, found[number])
            logs = log_softmax(rows[test] @ found[number].T, axis=1)[np.arange(len(test)), y[test]]
            total -= float(np.average(logs, weights=weights[test]))
        if total > least:
            break
        least, best = total, C
    return best


def _solve(
    rows: Floats, y: npt.NDArray[np.int64], weights: Floats, start: Floats, C: float, guess: Floats | None = None
) -> Floats:
    """Return the directions of least ``C * log-loss + distance from the start``, float64 (n_classes, n_features)."""
    if not C:
        return start
    truth = y[:, None] == np.arange(len(start))

    def loss(flat: Floats) -> tuple[float, Floats]:
        moved = flat.reshape(start.shape)
        logs = log_softmax(rows @ (start + moved).T, axis=1)
        slope = weights[:, None] * (np.exp(logs) - truth)
        value = -C * float(weights @ logs[truth]) + float((moved**2).sum()) / 2
        return value, (C * (slope.T @ rows) + moved).ravel()

    first = np.zeros(start.size) if guess is None else (guess - start).ravel()
    solution = minimize(loss, first, jac=True, method="L-BFGS-B", options=STOP)
    return start + np.asarray(solution.x, np.float64).reshape(start.shape)
