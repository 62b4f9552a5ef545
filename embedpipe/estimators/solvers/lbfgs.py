"""L2-penalised logistic regression of several training sets at once, for a sequence of penalties.

L-BFGS (Liu and Nocedal, Mathematical Programming 45, 1989) steps all sets together, so that they share each pass over
the rows. It is preconditioned by the mean squares along the principal axes, which bound the curvature of the loss
(Böhning, Annals of the Institute of Statistical Mathematics 44, 1992): correlated features then need few passes more
than independent ones. `embedpipe.estimators.linear.logistic_regression` calls this, and chooses C.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe.estimators.solvers.column_stats import TOO_LARGE
from embedpipe.estimators.solvers.logistic_loss import LogisticLoss

Floats = npt.NDArray[np.float64]

#: Number of steps from which L-BFGS estimates the curvature.
MEMORY = 10
#: Relative error of a loss due to float32 products.
ROUNDING = 1e-6
#: Share of the decrease predicted by the gradient that a step must achieve (Armijo's condition: Nocedal and Wright,
#: Numerical Optimization, 2006, section 3.1).
ARMIJO = 1e-4
MAX_HALVINGS = 20
#: Relative rounding of a loss.
EPSILON = float(np.finfo(np.float64).eps)


@dataclass
class Solutions:
    """Models of all training sets for one penalty, along the axes of their rows.

    Attributes
    ----------
    coef : float64 array (n_sets, n_scores, n_axes)
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
    #: The loss of the best model without coefficients, to which gains are compared.
    null: float
    loss: float = np.inf
    gradient: Any = None
    direction: Any = None
    step: float = 0.0
    steps: int = 0
    halvings: int = 0
    done: bool = False
    failed: bool = False
    #: The latest steps, the changes of the gradient along them, and the products of both.
    pairs: deque[tuple[Any, Any, float]] = field(default_factory=lambda: deque(maxlen=MEMORY))
    #: The losses before the latest steps.
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=MEMORY))


class PathSolver:
    """Solves for one penalty after another; each starts from the solution of the previous one."""

    def __init__(self, loss: LogisticLoss, start: tuple[Floats, Floats] | None, tol: float, max_iter: int) -> None:
        self._loss, self._backend = loss, loss.rows.backend
        self._tol, self._max_iter = tol, max_iter
        self._squares = loss.rows.squares
        initial = np.zeros((loss.n_scores, len(self._squares) + 1)) if start is None else np.column_stack(start)
        self._descents = [_Descent(self._backend.to_device(initial), null) for null in loss.null_losses()]
        self._rounding = float(np.finfo(loss.rows.dtype).eps) ** 2
        share = 1 / max(loss.n_scores, 2)
        self._curvature = share * (1 - share)
        self._penalties = np.zeros(len(loss.sets))
        losses, gradients = self._evaluate([each.point for each in self._descents])
        for descent, value, gradient in zip(self._descents, losses, gradients, strict=True):
            descent.loss, descent.gradient = float(value), gradient
            if not np.isfinite(descent.loss):
                raise ValueError(TOO_LARGE)

    def solve(self, C: float) -> Solutions:
        """Minimise mean loss + sum of squared coefficients / (2 C total weight) for every set."""
        self._change_penalties(np.array([1 / (C * each.total) for each in self._loss.sets]))
        inverse = self._inverse_curvature()
        for descent in self._descents:
            descent.steps = descent.halvings = 0
            descent.done = descent.failed = False
            descent.losses.clear()
            self._choose_direction(descent, inverse)
        while not all(each.done for each in self._descents):
            trials = [each.point if each.done else each.point + each.step * each.direction for each in self._descents]
            losses, gradients = self._evaluate(trials)
            for descent, trial, value, gradient in zip(self._descents, trials, losses, gradients, strict=True):
                if not descent.done and self._accept(descent, trial, float(value), gradient):
                    self._choose_direction(descent, inverse)
        points = self._backend.to_numpy(self._backend.xp.stack([each.point for each in self._descents]))
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

    def _evaluate(self, points: Sequence[Any]) -> tuple[Floats, Any]:
        """Return the penalised losses and gradients of all sets, each at its point."""
        xp = self._backend.xp
        stacked = xp.stack(list(points))
        coef = stacked[:, :, :-1]
        losses, d_coef, d_intercept = self._loss(coef, stacked[:, :, -1])
        losses = losses + self._penalties / 2 * self._backend.to_numpy((coef**2).sum(axis=(1, 2)))
        d_coef = d_coef + self._backend.to_device(self._penalties)[:, None, None] * coef
        return losses, xp.concatenate([d_coef, d_intercept[:, :, None]], axis=2)

    def _accept(self, descent: _Descent, trial: Any, loss: float, gradient: Any) -> bool:
        """Accept a trial point or shorten its step; return whether a new direction is needed."""
        dot = self._backend.dot
        predicted = dot(descent.gradient, descent.direction)
        slack = ROUNDING * abs(descent.loss)
        if not loss <= descent.loss + ARMIJO * descent.step * predicted + slack:
            descent.halvings += 1
            descent.step /= 2 if descent.halvings < 3 else 8
            # No shorter step decreases the loss: this is the minimum up to rounding.
            descent.done = descent.halvings > MAX_HALVINGS
            return False
        dtype = self._loss.rows.dtype  # pairs need no more precision than the rows have
        moved = self._backend.cast(trial - descent.point, dtype)
        change = self._backend.cast(gradient - descent.gradient, dtype)
        if (product := dot(moved, change)) > 1e-10 * dot(moved, moved):
            descent.pairs.append((moved, change, product))
        descent.steps += 1
        descent.losses.append(descent.loss)
        descent.point, descent.loss, descent.gradient, descent.halvings = trial, loss, gradient, 0
        return True

    def _choose_direction(self, descent: _Descent, inverse: Any) -> None:
        """Set the direction by the two-loop recursion (Nocedal and Wright, algorithm 7.4)."""
        dot = self._backend.dot
        r, alphas = descent.gradient, []
        for s, y, product in reversed(descent.pairs):
            alphas.append(dot(s, r) / product)
            r = r - alphas[-1] * y
        r = r * inverse
        if descent.pairs:
            _, y, product = descent.pairs[-1]
            r *= product / dot(y, y * inverse)
        for (s, y, product), alpha in zip(descent.pairs, reversed(alphas), strict=True):
            r += (alpha - dot(y, r) / product) * s
        descent.direction, descent.step = -r, 1.0
        scale = min(descent.null - descent.loss, descent.loss)
        least = max(self._tol * scale, self._rounding)
        # Where rounding hides the gradient, steps are expected to decrease the loss and do not.
        spread = max(descent.losses, default=np.inf) - min(descent.losses, default=0.0)
        stalled = len(descent.losses) == MEMORY and spread <= EPSILON * descent.loss
        descent.done = stalled or dot(descent.gradient, r) / 2 <= least
        if not descent.done and descent.steps >= self._max_iter:
            descent.done = descent.failed = True

    def _change_penalties(self, penalties: Floats) -> None:
        """Update losses, gradients and the remembered pairs for new penalties, whose part of each is known exactly."""
        dot = self._backend.dot
        for descent, change in zip(self._descents, (penalties - self._penalties).tolist(), strict=True):
            coef = descent.point[:, :-1]
            descent.loss += change / 2 * dot(coef, coef)
            descent.gradient[:, :-1] += change * coef
            for _ in range(len(descent.pairs)):
                s, y, product = descent.pairs.popleft()
                y[:, :-1] += change * s[:, :-1]
                product += change * dot(s[:, :-1], s[:, :-1])
                if product > 1e-10 * dot(s, s):
                    descent.pairs.append((s, y, product))
        self._penalties = penalties

    def _inverse_curvature(self) -> Any:
        """Return the inverse of an estimate of the Hessian's diagonal, (n_axes + 1,), with the intercept last."""
        dot, curved, expected = self._backend.dot, 0.0, 0.0
        squares = self._backend.to_device(self._squares)
        for descent, penalty in zip(self._descents, self._penalties.tolist(), strict=True):
            for step, change, _ in descent.pairs:
                s, y = step[:, :-1], change[:, :-1]
                curved += dot(s, y) - penalty * dot(s, s)
                expected += dot(s * squares, s)
        if expected > 0:  # curvature of the loss along the latest steps, relative to the mean squares along them
            self._curvature = float(np.clip(curved / expected, 1e-6, 0.25))
        penalty = max(float(self._penalties.mean()), 1e-4 * self._curvature)
        return self._backend.to_device(1 / np.append(self._curvature * self._squares + penalty, self._curvature))


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
    start : (float64 array (n_scores, n_axes), float64 array (n_scores,)), optional
        Initial coefficients and intercepts.
    tol : float
        A descent ends when its next step is expected to decrease the loss (by half the Newton decrement) by no more
        than this share of the loss, and of what was gained over a model without coefficients; or when the latest
        ten steps have not changed it.
    max_iter : int
        Maximum number of steps for each penalty.

    Raises
    ------
    ValueError
        If a loss is not finite.
    """
    with loss.threads():
        path = PathSolver(loss, start, tol, max_iter)
        for C in Cs:
            yield path.solve(C)
