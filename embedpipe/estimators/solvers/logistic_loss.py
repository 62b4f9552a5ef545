"""The logistic loss of several training sets that share a matrix, in one pass over its rows.

Each training set, such as the training rows of a fold, has its own coefficients. Stacked, they turn many thin products
into one wide product, which reads the matrix once instead of once for each set. A block of rows stays in the
CPU's cache from its standardisation to its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import entr

from embedpipe._utils.blas_threads import one_blas_thread
from embedpipe._utils.config import usable_cores
from embedpipe.estimators.solvers.principal_rows import PrincipalRows
from embedpipe.splits.inner import take_rows

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

#: Bytes of a block's standardised rows, and of its scores.
BLOCK = 1 << 20
#: Scores are raised to the largest one plus this: their probability is negligible, and denormal numbers are slow.
MIN_SCORE = -60.0
#: Several threads pay off from this many multiplications per pass.
PARALLEL_WORK = 1 << 25
#: Below this many, setting the number of BLAS threads takes longer than the products.
TINY_WORK = 1 << 20


@dataclass(frozen=True)
class TrainingSet:
    """Rows that one model is fitted on.

    Parameters
    ----------
    rows : int64 array (n,)
    weights : float64 array (n,)
        Weight of each row.
    """

    rows: Rows
    weights: Floats

    @property
    def total(self) -> float:
        """The sum of the weights."""
        return float(self.weights.sum())


#: Rows, the numbers of the sets that hold them, their weights (n_sets, n_rows), and their coordinates if kept.
_Block = tuple[Rows, Rows, npt.NDArray[Any], npt.NDArray[Any] | None]


class LogisticLoss:
    """Mean logistic loss of linear models on standardised rows, one model for each training set.

    Parameters
    ----------
    rows : PrincipalRows
        The rows that the training sets share, and the axes that coefficients belong to.
    y : int64 array (n_samples,)
        Classes, 0 to ``n_classes`` - 1.
    n_classes : int
    sets : sequence of TrainingSet
    n_jobs : int, optional
        Number of threads; None: all usable cores.

    Attributes
    ----------
    n_scores : int
        Scores of a model for a row: 1 for two classes, else ``n_classes``.
    present : bool array (n_sets, n_classes)
        Which classes occur in each set.
    """

    def __init__(
        self, rows: PrincipalRows, y: Rows, n_classes: int, sets: Sequence[TrainingSet], n_jobs: int | None = None
    ) -> None:
        self.rows = rows
        self.y = y
        self.sets = list(sets)
        self.n_scores = 1 if n_classes == 2 else n_classes
        # Classes that do not occur in a set get probability 0.
        self.present = np.stack([np.bincount(y[each.rows], each.weights, n_classes) > 0 for each in self.sets])
        self._prepare(n_jobs)

    def _prepare(self, n_jobs: int | None) -> None:
        """Compute what every call needs."""
        self._parts = list(self._rows_by_sets())
        values = self.rows.values
        self._copies = [None if values is None else take_rows(values, rows) for rows, _, _ in self._parts]
        self._width = self.rows.X.shape[1] if values is None else values.shape[1]
        work = sum(len(rows) * len(members) for rows, members, _ in self._parts) * self._width * self.n_scores
        cores = usable_cores() if n_jobs is None or n_jobs < 1 else n_jobs
        self._threads = cores if work > PARALLEL_WORK else 1
        self._tiny = work < TINY_WORK
        self._pool: ThreadPoolExecutor | None = None

    def _rows_by_sets(self) -> Iterator[tuple[Rows, Rows, npt.NDArray[Any]]]:
        """Yield rows that are in the same sets, the numbers of these sets, and the weights (n_sets, n_rows)."""
        weights = np.zeros((len(self.sets), len(self.rows)))
        for number, each in enumerate(self.sets):
            np.add.at(weights[number], each.rows, each.weights / each.total)
        patterns, pattern_of = np.unique(weights > 0, axis=1, return_inverse=True)
        for number, pattern in enumerate(patterns.T):
            if pattern.any():
                rows, members = np.flatnonzero(pattern_of == number), np.flatnonzero(pattern)
                yield rows, members, weights[np.ix_(members, rows)].astype(self.rows.dtype)

    def null_losses(self) -> list[float]:
        """Return the least loss of each set without coefficients: the entropy of its classes."""
        counts = [np.bincount(self.y[each.rows], each.weights) / each.total for each in self.sets]
        return [float(entr(shares).sum()) for shares in counts]

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Keep a pool of threads for many calls of `__call__`; BLAS uses one thread in each of them."""
        # BLAS uses one thread for tiny products anyway, and setting that takes longer than the products.
        with one_blas_thread(not self._tiny), ThreadPoolExecutor(self._threads) as pool:
            self._pool = pool
            try:
                yield
            finally:
                self._pool = None

    def _blocks(self, width: int) -> Iterator[_Block]:
        step = max(16, BLOCK // (4 * max(width, self._width)))
        for (rows, members, weights), copy in zip(self._parts, self._copies, strict=True):
            for start in range(0, len(rows), step):
                part = slice(start, start + step)
                yield rows[part], members, weights[:, part], None if copy is None else copy[part]

    def _run_parallel(self, part: Callable[[Sequence[Any]], Any], width: int) -> list[Any]:
        """Call ``part`` on an equal share of the blocks in each thread."""
        blocks = list(self._blocks(width))
        shares = [blocks[i :: self._threads] for i in range(min(self._threads, len(blocks)))]
        if self._pool is None or len(shares) == 1:
            return [part(share) for share in shares]
        return list(self._pool.map(part, shares))

    def __call__(self, coef: Any, intercept: Any) -> tuple[Floats, Any, Any]:
        """Return the loss and gradients of each set.

        Parameters
        ----------
        coef : float64 array (n_sets, n_scores, n_axes)
            Along the axes of ``rows``.
        intercept : float64 array (n_sets, n_scores)

        Returns
        -------
        losses : float64 array (n_sets,)
        d_coef, d_intercept : float64 arrays
            Of the shapes of ``coef`` and ``intercept``.
        """
        kept = self.rows.values is not None
        # Scores have axes (score, set, row), so that sums over classes vectorise along rows.
        raw = (coef if kept else self.rows.to_features(coef)).transpose(1, 0, 2).astype(self.rows.dtype)
        constant = intercept.T.astype(self.rows.dtype)
        if self.n_scores > 1:
            constant[~self.present.T] = -np.inf

        def part(blocks: Sequence[_Block]) -> tuple[Floats, Floats, Floats]:
            losses, total = np.zeros(raw.shape[1]), np.zeros(raw.shape)
            sums = np.zeros(constant.shape)
            for rows, members, weights, copy in blocks:
                Z = self.rows.standardised(rows) if copy is None else copy
                everywhere = len(members) == raw.shape[1]
                W = (raw if everywhere else raw[:, members]).reshape(-1, Z.shape[1])
                scores = (W @ Z.T).reshape(self.n_scores, len(members), len(rows))
                scores += constant[:, members, None]
                losses[members] += _losses_and_gradients(scores, self.y[rows], weights)
                total[:, members] += (scores.reshape(-1, len(rows)) @ Z).reshape(self.n_scores, len(members), -1)
                sums[:, members] += scores.sum(axis=2, dtype=np.float64)
            return losses, total, sums

        results = self._run_parallel(part, raw.shape[0] * raw.shape[1])
        losses, total, sums = (sum(parts) for parts in zip(*results, strict=True))
        d_coef = np.asarray(total).transpose(1, 0, 2)
        return np.asarray(losses), d_coef if kept else self.rows.to_axes(d_coef), np.asarray(sums).T


def _losses_and_gradients(scores: npt.NDArray[Any], y: Rows, weights: npt.NDArray[Any]) -> Floats:
    """Replace scores (n_scores, n_sets, n_rows) by their weighted loss gradients; return the losses (n_sets,)."""
    if len(scores) == 1:
        target = (y == 1).astype(scores.dtype)
        small = np.exp(-np.abs(scores[0]))
        losses = np.log1p(small) + np.maximum(scores[0], 0) - target * scores[0]
        np.divide(np.where(scores[0] >= 0, 1, small), 1 + small, out=scores[0])
        scores[0] -= target
    else:
        scores -= scores.max(axis=0)
        np.maximum(scores, MIN_SCORE, out=scores)
        at = np.arange(len(y))
        true_scores = scores[y, :, at].T
        np.exp(scores, out=scores)
        total = scores.sum(axis=0)
        losses = np.log(total) - true_scores
        scores /= total
        scores[y, :, at] -= 1
    scores *= weights
    summed: Floats = np.einsum("fr,fr->f", losses, weights, dtype=np.float64)
    return summed
