"""L2-penalised logistic regression of several training sets at once, for a sequence of penalties.

L-BFGS (Liu and Nocedal, Mathematical Programming 45, 1989) steps all sets together, so that they share each pass over
the rows. It is preconditioned by the correlations of the features, which bound the curvature of the loss (Böhning,
Annals of the Institute of Statistical Mathematics 44, 1992): correlated features then need few passes more than
independent ones. `embedpipe.estimators.linear.logistic_regression` calls this, and chooses C.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe.estimators.solvers.backend import NumpyBackend
from embedpipe.estimators.solvers.column_stats import TOO_LARGE
from embedpipe.estimators.solvers.logistic_loss import LogisticLoss

Floats = npt.NDArray[np.float64]

#: Number of steps from which L-BFGS estimates the curvature.
MEMORY = 10
#: With more features than this there is no preconditioner: the matrix of correlations would fill the memory.
MAX_FEATURES = 4096
#: Relative error of a loss due to float32 products.
ROUNDING = 1e-6
#: Share of the decrease predicted by the gradient that a step must achieve (Armijo's condition: Nocedal and Wright,
#: Numerical Optimization, 2006, section 3.1).
ARMIJO = 1e-4
MAX_HALVINGS = 20


@dataclass
class Solutions:
    """Models of all training sets for one penalty, on standardised features.

    Attributes
    ----------
    coef : float64 array (n_sets, n_scores, dim)
    intercept : float64 array (n_sets, n_scores)
    n_iter : int64 array (n_sets,)
        Number of steps of each.
    converged : bool array (n_sets,)
    """

    coef: Floats
    intercept: Floats
    n_iter: npt.NDArray[np.int64]
    converged: npt.NDArray[np.bool_]


@dataclass
class _Descent:
    """The state of L-BFGS for one training set; arrays are those of the loss's backend."""

    point: Any
    loss: float = np.inf
    gradient: Any = None
    direction: Any = None
    step: float = 0.0
    steps: int = 0
    halvings: int = 0
    done: bool = False
    failed: bool = False
    pairs: deque[tuple[Any, Any]] = field(default_factory=lambda: deque(maxlen=MEMORY))


class PathSolver:
    """Solves for one penalty after another; each starts from the solution of the previous one."""

    def __init__(self, loss: LogisticLoss, start: tuple[Floats, Floats] | None, tol: float, max_iter: int) -> None:
        self._loss, self._backend = loss, loss.backend
        self._tol, self._max_iter = tol, max_iter
        self._dim = loss.X.shape[1]
        initial = np.zeros((loss.n_scores, self._dim + 1)) if start is None else np.column_stack(start)
        self._descents = [_Descent(self._backend.to_device(initial)) for _ in loss.sets]
        self._gram = loss.correlations() if self._dim <= MAX_FEATURES else None
        share = 1 / max(loss.n_scores, 2)
        self._curvature = share * (1 - share)
        self._penalties = np.zeros(len(loss.sets))

    def solve(self, C: float) -> Solutions:
        """Minimise mean loss + sum of squared coefficients / (2 C total weight) for every set."""
        penalties = np.array([1 / (C * each.total) for each in self._loss.sets])
        self._change_penalties(penalties)
        precondition = self._preconditioner(float(penalties.mean()))
        active = list(range(len(self._descents)))
        xp = self._backend.xp
        for descent in self._descents:
            descent.loss, descent.direction, descent.step = np.inf, xp.zeros_like(descent.point), 0.0
            descent.steps = descent.halvings = 0
            descent.done = descent.failed = False
        while active:
            trials = xp.stack([each.point + each.step * each.direction for each in self._descents])
            losses, gradients = self._evaluate(trials, penalties)
            moved = [i for i in active if self._accept(self._descents[i], trials[i], float(losses[i]), gradients[i])]
            self._choose_directions(moved, precondition)
            active = [i for i in active if not self._descents[i].done]
        points = self._backend.to_numpy(xp.stack([each.point for each in self._descents]))
        if self._loss.n_scores > 1:
            # Adding a constant to the scores of all classes changes no probability: choose the scores whose sum is 0.
            present = self._loss.present[:, :, None]
            points = np.where(present, points - points.mean(axis=1, keepdims=True, where=present), points)
        return Solutions(
            points[:, :, :-1],
            points[:, :, -1],
            np.array([each.steps for each in self._descents]),
            np.array([not each.failed for each in self._descents]),
        )

    def _evaluate(self, points: Any, penalties: Floats) -> tuple[Floats, Any]:
        coef = points[:, :, :-1]
        losses, d_coef, d_intercept = self._loss(coef, points[:, :, -1])
        losses = losses + penalties / 2 * self._backend.to_numpy((coef**2).sum(axis=(1, 2)))
        d_coef = d_coef + self._backend.to_device(penalties)[:, None, None] * coef
        gradients = self._backend.xp.concatenate([d_coef, d_intercept[:, :, None]], axis=2)
        return losses, gradients

    def _accept(self, descent: _Descent, trial: Any, loss: float, gradient: Any) -> bool:
        """Accept a trial point or shorten its step; return whether a new direction is needed."""
        first = not descent.step
        if not first:
            predicted = float((descent.gradient * descent.direction).sum())
            slack = ROUNDING * abs(descent.loss)
            if not loss <= descent.loss + ARMIJO * descent.step * predicted + slack:
                descent.halvings += 1
                descent.step /= 2 if descent.halvings < 3 else 8
                # No shorter step decreases the loss: this is the minimum up to rounding.
                descent.done = descent.halvings > MAX_HALVINGS
                return False
            moved, change = trial - descent.point, gradient - descent.gradient
            if (moved * change).sum() > 1e-10 * (moved**2).sum():
                dtype = self._loss.X.dtype  # pairs need no more precision than the rows have
                descent.pairs.append((self._backend.cast(moved, dtype), self._backend.cast(change, dtype)))
            descent.steps += 1
        elif not np.isfinite(loss):
            raise ValueError(TOO_LARGE)
        descent.point, descent.loss, descent.gradient, descent.halvings = trial, loss, gradient, 0
        descent.done = bool(abs(gradient).max() <= self._tol)
        if not descent.done and descent.steps >= self._max_iter:
            descent.done = descent.failed = True
        return not descent.done

    def _choose_directions(self, moved: Sequence[int], precondition: _Preconditioner) -> None:
        """Set directions by the two-loop recursion (Nocedal and Wright, algorithm 7.4), preconditioned in one call."""
        if not moved:
            return
        reduced, all_alphas = [], []
        for i in moved:
            descent = self._descents[i]
            q, alphas = descent.gradient, []
            for s, y in reversed(descent.pairs):
                alphas.append(float((s * q).sum() / (s * y).sum()))
                q = q - alphas[-1] * y
            reduced.append(q)
            all_alphas.append(alphas)
        latest = [
            self._descents[i].pairs[-1][1] if self._descents[i].pairs else reduced[n] for n, i in enumerate(moved)
        ]
        solved = precondition(self._backend.xp.stack([*reduced, *latest]))
        solved_latest = iter(solved[len(moved) :])
        for n, i in enumerate(moved):
            descent, r = self._descents[i], solved[n]
            if descent.pairs:
                s, y = descent.pairs[-1]
                r = r * float((s * y).sum() / (y * next(solved_latest)).sum())
            for (s, y), alpha in zip(descent.pairs, reversed(all_alphas[n]), strict=True):
                r = r + (alpha - float((y * r).sum() / (s * y).sum())) * s
            descent.direction, descent.step = -r, 1.0

    def _change_penalties(self, penalties: Floats) -> None:
        """Update the remembered pairs for new penalties, whose part of the curvature is known exactly."""
        for descent, change in zip(self._descents, penalties - self._penalties, strict=True):
            for _ in range(len(descent.pairs)):
                s, y = descent.pairs.popleft()
                y[:, :-1] += float(change) * s[:, :-1]
                if (s * y).sum() > 1e-10 * (s**2).sum():
                    descent.pairs.append((s, y))
        self._penalties = penalties

    def _preconditioner(self, penalty: float) -> _Preconditioner:
        latest = [(each.pairs[-1], p) for each, p in zip(self._descents, self._penalties, strict=True) if each.pairs]
        if latest and self._gram is not None:
            # Curvature of the loss along the last steps, relative to the correlations along them.
            ratios = []
            for (s, y), p in latest:
                curved = float((s[:, :-1] * y[:, :-1]).sum()) - float(p) * float((s[:, :-1] ** 2).sum())
                ratios.append(curved / max(float(((s[:, :-1] @ self._gram) * s[:, :-1]).sum()), 1e-300))
            self._curvature = float(np.clip(np.median(ratios), 1e-6, 0.25))
        return _Preconditioner(self._backend, self._gram, self._curvature, penalty)


class _Preconditioner:
    """Multiplies by the inverse of ``curvature * correlations + penalty``, an estimate of the Hessian."""

    def __init__(self, backend: NumpyBackend, gram: Any, curvature: float, penalty: float) -> None:
        self._xp, self._intercept = backend.xp, curvature
        self._diagonal = curvature + penalty
        self._solve = None if gram is None else backend.inverse(gram, curvature, max(penalty, 1e-4 * curvature))

    def __call__(self, gradients: Any) -> Any:
        """Precondition gradients (n, n_scores, dim + 1)."""
        coef, intercept = gradients[:, :, :-1], gradients[:, :, -1:]
        flat = coef.reshape(-1, coef.shape[2])
        solved = flat / self._diagonal if self._solve is None else self._solve(flat)
        return self._xp.concatenate([solved.reshape(coef.shape), intercept / self._intercept], axis=2)


def solve_path(
    loss: LogisticLoss,
    Cs: Sequence[float],
    *,
    start: tuple[Floats, Floats] | None = None,
    tol: float = 1e-4,
    max_iter: int = 1000,
) -> Generator[Solutions, None, None]:
    """Yield the solutions for each C in turn; those that are not consumed are not computed.

    Parameters
    ----------
    loss : LogisticLoss
    Cs : sequence of float
        Inverse penalties. In ascending order each solution is a good start for the next.
    start : (float64 array (n_scores, dim), float64 array (n_scores,)), optional
        Initial coefficients and intercepts, for standardised rows.
    tol : float
        Largest absolute gradient at a solution, as in `sklearn.linear_model.LogisticRegression`.
    max_iter : int
        Maximum number of steps for each penalty.

    Raises
    ------
    ValueError
        If a loss is not finite.
    """
    path = PathSolver(loss, start, tol, max_iter)
    with loss.threads():
        for C in Cs:
            yield path.solve(C)
