"""L2-penalised logistic regression of several training sets at once, up a path of penalties.

L-BFGS (Liu and Nocedal, Mathematical Programming 45, 1989) on all sets in step, so that they share each pass over the
rows. Its first guess of the curvature is the features' correlations, the curvature of the loss where probabilities
are alike (Böhning, Annals of the Institute of Statistical Mathematics 44, 1992): correlated features then cost few
passes more than independent ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe.estimators.solvers.arrays import Arrays
from embedpipe.estimators.solvers.column_stats import TOO_LARGE
from embedpipe.estimators.solvers.logistic_loss import LogisticLoss

Floats = npt.NDArray[np.float64]

#: Steps that L-BFGS remembers.
MEMORY = 10
#: With more features than this, curvature is taken to be alike in all directions: their products would fill memory.
MOST_FEATURES = 4096
#: Share of a loss that float32 products may round away.
ROUNDING = 1e-6
#: What a step must bring of what the slope promises (Nocedal and Wright, Numerical Optimization, 2006, section 3.1).
ARMIJO = 1e-4
MOST_HALVINGS = 20


@dataclass
class Solutions:
    """Models of all training sets under one penalty, for standardised features.

    Attributes
    ----------
    coef : float64 array (n_sets, n_scores, dim)
    intercept : float64 array (n_sets, n_scores)
    n_iter : int64 array (n_sets,)
        Steps that each took.
    converged : bool array (n_sets,)
    """

    coef: Floats
    intercept: Floats
    n_iter: npt.NDArray[np.int64]
    converged: npt.NDArray[np.bool_]


@dataclass
class _Descent:
    """One set's L-BFGS: where it stands, where it goes, what it remembers; arrays of the loss's kind."""

    point: Any
    loss: float = np.inf
    slope: Any = None
    direction: Any = None
    step: float = 0.0
    steps: int = 0
    halvings: int = 0
    done: bool = False
    failed: bool = False
    pairs: deque[tuple[Any, Any]] = field(default_factory=lambda: deque(maxlen=MEMORY))


class Path:
    """Solves for one penalty after another, each from the last one's solution."""

    def __init__(self, loss: LogisticLoss, start: tuple[Floats, Floats] | None, tol: float, max_iter: int) -> None:
        self._loss, self._arrays = loss, loss.arrays
        self._tol, self._max_iter = tol, max_iter
        self._dim = loss.X.shape[1]
        begin = np.zeros((loss.n_scores, self._dim + 1)) if start is None else np.column_stack(start)
        self._descents = [_Descent(self._arrays.there(begin)) for _ in loss.sets]
        self._gram = loss.correlations() if self._dim <= MOST_FEATURES else None
        share = 1 / max(loss.n_scores, 2)
        self._curvature = share * (1 - share)
        self._penalties = np.zeros(len(loss.sets))

    def solve(self, C: float) -> Solutions:
        """Minimise mean loss + sum of squared coefficients / (2 C total weight), for every set."""
        penalties = np.array([1 / (C * one.total) for one in self._loss.sets])
        self._change_penalties(penalties)
        precondition = self._preconditioner(float(penalties.mean()))
        active = list(range(len(self._descents)))
        xp = self._arrays.xp
        for descent in self._descents:
            descent.loss, descent.direction, descent.step = np.inf, xp.zeros_like(descent.point), 0.0
            descent.steps = descent.halvings = 0
            descent.done = descent.failed = False
        while active:
            trials = xp.stack([one.point + one.step * one.direction for one in self._descents])
            losses, slopes = self._evaluate(trials, penalties)
            moved = [i for i in active if self._accept(self._descents[i], trials[i], float(losses[i]), slopes[i])]
            self._choose_directions(moved, precondition)
            active = [i for i in active if not self._descents[i].done]
        points = self._arrays.back(xp.stack([one.point for one in self._descents]))
        if self._loss.n_scores > 1:
            # A number added to all classes' scores changes nothing but rounding: take the scores whose sum is 0.
            known = self._loss.known[:, :, None]
            points = np.where(known, points - points.mean(axis=1, keepdims=True, where=known), points)
        return Solutions(
            points[:, :, :-1],
            points[:, :, -1],
            np.array([one.steps for one in self._descents]),
            np.array([not one.failed for one in self._descents]),
        )

    def _evaluate(self, points: Any, penalties: Floats) -> tuple[Floats, Any]:
        coef = points[:, :, :-1]
        losses, d_coef, d_intercept = self._loss(coef, points[:, :, -1])
        losses = losses + penalties / 2 * self._arrays.back((coef**2).sum(axis=(1, 2)))
        d_coef = d_coef + self._arrays.there(penalties)[:, None, None] * coef
        slopes = self._arrays.xp.concatenate([d_coef, d_intercept[:, :, None]], axis=2)
        return losses, slopes

    def _accept(self, one: _Descent, trial: Any, loss: float, slope: Any) -> bool:
        """Take a trial point or halve its step; say whether a new direction is needed."""
        first = not one.step
        if not first:
            promised = float((one.slope * one.direction).sum())
            slack = ROUNDING * abs(one.loss)
            if not loss <= one.loss + ARMIJO * one.step * promised + slack:
                one.halvings += 1
                one.step /= 2 if one.halvings < 3 else 8
                # No shorter step helps: this is as low as the arithmetic gets.
                one.done = one.halvings > MOST_HALVINGS
                return False
            moved, change = trial - one.point, slope - one.slope
            if (moved * change).sum() > 1e-10 * (moved**2).sum():
                dtype = self._loss.X.dtype  # what is remembered needs no more digits than the rows have
                one.pairs.append((self._arrays.cast(moved, dtype), self._arrays.cast(change, dtype)))
            one.steps += 1
        elif not np.isfinite(loss):
            raise ValueError(TOO_LARGE)
        one.point, one.loss, one.slope, one.halvings = trial, loss, slope, 0
        one.done = bool(abs(slope).max() <= self._tol)
        if not one.done and one.steps >= self._max_iter:
            one.done = one.failed = True
        return not one.done

    def _choose_directions(self, moved: Sequence[int], precondition: _Preconditioner) -> None:
        """Set directions by the two-loop recursion (Nocedal and Wright, algorithm 7.4), preconditioned together."""
        if not moved:
            return
        reduced, all_alphas = [], []
        for i in moved:
            one = self._descents[i]
            q, alphas = one.slope, []
            for s, y in reversed(one.pairs):
                alphas.append(float((s * q).sum() / (s * y).sum()))
                q = q - alphas[-1] * y
            reduced.append(q)
            all_alphas.append(alphas)
        latest = [
            self._descents[i].pairs[-1][1] if self._descents[i].pairs else reduced[n] for n, i in enumerate(moved)
        ]
        solved = precondition(self._arrays.xp.stack([*reduced, *latest]))
        solved_latest = iter(solved[len(moved) :])
        for n, i in enumerate(moved):
            one, r = self._descents[i], solved[n]
            if one.pairs:
                s, y = one.pairs[-1]
                r = r * float((s * y).sum() / (y * next(solved_latest)).sum())
            for (s, y), alpha in zip(one.pairs, reversed(all_alphas[n]), strict=True):
                r = r + (alpha - float((y * r).sum() / (s * y).sum())) * s
            one.direction, one.step = -r, 1.0

    def _change_penalties(self, penalties: Floats) -> None:
        """Correct what is remembered of the curvature for new penalties, which are a known part of it."""
        for one, more in zip(self._descents, penalties - self._penalties, strict=True):
            for _ in range(len(one.pairs)):
                s, y = one.pairs.popleft()
                y[:, :-1] += float(more) * s[:, :-1]
                if (s * y).sum() > 1e-10 * (s**2).sum():
                    one.pairs.append((s, y))
        self._penalties = penalties

    def _preconditioner(self, penalty: float) -> _Preconditioner:
        latest = [(one.pairs[-1], p) for one, p in zip(self._descents, self._penalties, strict=True) if one.pairs]
        if latest and self._gram is not None:
            # How strong the loss curves along the last steps, against the correlations there.
            ratios = []
            for (s, y), p in latest:
                curved = float((s[:, :-1] * y[:, :-1]).sum()) - float(p) * float((s[:, :-1] ** 2).sum())
                ratios.append(curved / max(float(((s[:, :-1] @ self._gram) * s[:, :-1]).sum()), 1e-300))
            self._curvature = float(np.clip(np.median(ratios), 1e-6, 0.25))
        return _Preconditioner(self._arrays, self._gram, self._curvature, penalty)


class _Preconditioner:
    """Divides by an estimate of the curvature: of the loss, in units of the correlations, and of the penalty."""

    def __init__(self, arrays: Arrays, gram: Any, curvature: float, penalty: float) -> None:
        self._xp, self._intercept = arrays.xp, curvature
        self._diagonal = curvature + penalty
        self._divide = None if gram is None else arrays.inverse(gram, curvature, max(penalty, 1e-4 * curvature))

    def __call__(self, slopes: Any) -> Any:
        """Divide slopes, (n, n_scores, dim + 1)."""
        coef, intercept = slopes[:, :, :-1], slopes[:, :, -1:]
        flat = coef.reshape(-1, coef.shape[2])
        divided = flat / self._diagonal if self._divide is None else self._divide(flat)
        return self._xp.concatenate([divided.reshape(coef.shape), intercept / self._intercept], axis=2)


def solve_path(
    loss: LogisticLoss,
    Cs: Sequence[float],
    *,
    start: tuple[Floats, Floats] | None = None,
    tol: float = 1e-4,
    max_iter: int = 1000,
) -> Generator[Solutions, None, None]:
    """Yield the solutions for each C in turn; those not asked for are not computed.

    Parameters
    ----------
    loss : LogisticLoss
    Cs : sequence of float
        Inverse penalties; going up, each solution is a good start for the next.
    start : (float64 array (n_scores, dim), float64 array (n_scores,)), optional
        Coefficients and intercepts, on standardised rows, to begin with.
    tol : float
        The largest slope at a solution, as in `sklearn.linear_model.LogisticRegression`.
    max_iter : int
        Steps for each penalty.

    Raises
    ------
    ValueError
        If a loss is not finite.
    """
    path = Path(loss, start, tol, max_iter)
    with loss.threads():
        for C in Cs:
            yield path.solve(C)
