"""The logistic loss of several training sets that share a matrix, in one pass over its rows.

Each training set has its own coefficients; set side by side they make one wide product out of many thin ones, which
reads the matrix once and not once a set. A block of rows stays in the processor's cache from its standardisation to
its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedpipe._utils.blas_threads import one_blas_thread
from embedpipe._utils.config import usable_cores
from embedpipe.estimators.solvers.arrays import Arrays
from embedpipe.estimators.solvers.column_stats import Columns

if TYPE_CHECKING:
    from embedpipe.estimators.solvers.torch_matrix import DeviceMatrix

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

#: Bytes of a block's standardised rows, and of its scores.
BLOCK = 1 << 20
#: Scores below the largest by more than this give no share that counts; much smaller ones are slow to compute with.
LEAST = -60.0
#: Bytes of a matrix of which a standardised copy is kept.
COPIED = 1 << 26
#: Multiplications of one pass below which more threads cost more than they bring.
WORTH_THREADS = 1 << 25
#: And below which it costs more to set BLAS's threads.
TINY = 1 << 20


@dataclass(frozen=True)
class TrainingSet:
    """Rows that one model is fitted on.

    Parameters
    ----------
    rows : int64 array (n,)
    weights : float64 array (n,)
        Of each of the rows.
    """

    rows: Rows
    weights: Floats

    @property
    def total(self) -> float:
        """The sum of the weights."""
        return float(self.weights.sum())


#: Rows, the sets that train on them, their weights there (n_sets, n_rows), and the rows standardised, if they are kept.
_Block = tuple[Rows, Rows, npt.NDArray[Any], npt.NDArray[Any] | None]


class LogisticLoss:
    """Mean logistic loss of linear models on standardised rows, one model a training set.

    Parameters
    ----------
    X : float array (n_samples, n_features)
        Left as it is.
    y : int64 array (n_samples,)
        Classes, 0 to ``n_classes`` - 1; of two classes one score is enough.
    n_classes : int
    sets : sequence of TrainingSet
    n_jobs : int, optional
        Threads; all where None.
    columns : sequence of Columns, optional
        What to standardise each set's rows with.

    Attributes
    ----------
    arrays : Arrays
        What it takes and gives.
    columns : list of Columns
        What each set's rows are standardised with: its own means and scales.
    n_scores : int
        Scores a model gives: 1 of two classes, else ``n_classes``.
    known : bool array (n_sets, n_classes)
        Which classes each set has.
    """

    arrays = Arrays()

    def __init__(
        self,
        X: npt.NDArray[Any] | DeviceMatrix,
        y: Rows,
        n_classes: int,
        sets: Sequence[TrainingSet],
        n_jobs: int | None = None,
        columns: Sequence[Columns] | None = None,
    ) -> None:
        self.X: Any = X
        self.y = y
        self.sets = list(sets)
        self.n_scores = 1 if n_classes == 2 else n_classes
        self.columns = list(columns or (Columns.of(X, one.rows, one.weights) for one in self.sets))
        # Classes that a set does not have get no share of its probability.
        self.known = np.stack([np.bincount(y[one.rows], one.weights, n_classes) > 0 for one in self.sets])
        # Any centre and scale near the sets' own will do for exact products: the coefficients make up the difference.
        self._shift = np.mean([columns.mean for columns in self.columns], axis=0).astype(X.dtype)
        self._per_unit = (1 / np.mean([columns.scale for columns in self.columns], axis=0)).astype(X.dtype)
        self._ratio = np.stack([1 / (self._per_unit * columns.scale) for columns in self.columns])
        self._offset = np.stack([(self._shift - columns.mean) / columns.scale for columns in self.columns])
        self._prepare(n_jobs)

    def _prepare(self, n_jobs: int | None) -> None:
        """Lay out what every call needs."""
        self._parts = list(self._alike())
        # Of a small matrix one standardised copy is kept, part after part; a large one is standardised block by block.
        small = self.X.nbytes <= COPIED
        self._copies = [self._standardised(rows) if small else None for rows, _, _ in self._parts]
        work = sum(len(rows) * len(members) for rows, members, _ in self._parts) * self.X.shape[1] * self.n_scores
        cores = usable_cores() if n_jobs is None or n_jobs < 1 else n_jobs
        self._threads = cores if work > WORTH_THREADS else 1
        self._tiny = work < TINY
        self._pool: ThreadPoolExecutor | None = None

    def _alike(self) -> Iterator[tuple[Rows, Rows, npt.NDArray[Any]]]:
        """Yield rows that the same sets train on, those sets, and the rows' weights in them (n_sets, n_rows)."""
        weights = np.zeros((len(self.sets), len(self.X)))
        for number, one in enumerate(self.sets):
            np.add.at(weights[number], one.rows, one.weights / one.total)
        patterns, which = np.unique(weights > 0, axis=1, return_inverse=True)
        for number, pattern in enumerate(patterns.T):
            if pattern.any():
                rows, members = np.flatnonzero(which == number), np.flatnonzero(pattern)
                yield rows, members, weights[np.ix_(members, rows)].astype(self.X.dtype)

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Keep threads for many calls of `__call__`; BLAS itself takes one in each."""
        # Tiny products take one thread by themselves, and setting that takes longer than they do.
        with one_blas_thread(not self._tiny), ThreadPoolExecutor(self._threads) as pool:
            self._pool = pool
            try:
                yield
            finally:
                self._pool = None

    def _blocks(self, width: int) -> Iterator[_Block]:
        step = max(16, BLOCK // (4 * max(width, self.X.shape[1])))
        for (rows, members, weights), copy in zip(self._parts, self._copies, strict=True):
            for start in range(0, len(rows), step):
                part = slice(start, start + step)
                yield rows[part], members, weights[:, part], None if copy is None else copy[part]

    def _standardised(self, rows: Rows) -> npt.NDArray[Any]:
        Z: npt.NDArray[Any] = self.X[rows]  # indexing has made a copy
        Z -= self._shift
        Z *= self._per_unit
        return Z

    def correlations(self) -> Any:
        """Return the mean product of standardised columns over all rows that any set trains on, (dim, dim)."""
        dim = self.X.shape[1]
        total, count, step = np.zeros((dim, dim), self.X.dtype), 0, max(dim, 8 * BLOCK // (4 * dim))
        for (rows, _, _), copy in zip(self._parts, self._copies, strict=True):
            for start in range(0, len(rows), step):
                part = slice(start, start + step)
                Z = self._standardised(rows[part]) if copy is None else copy[part]
                total += Z.T @ Z
            count += len(rows)
        total /= count
        return total

    def _shared(self, part: Callable[[Sequence[Any]], Any], width: int) -> list[Any]:
        """Let each thread work on a share of the blocks."""
        blocks = list(self._blocks(width))
        shares = [blocks[i :: self._threads] for i in range(min(self._threads, len(blocks)))]
        if self._pool is None or len(shares) == 1:
            return [part(share) for share in shares]
        return list(self._pool.map(part, shares))

    def __call__(self, coef: Any, intercept: Any) -> tuple[Floats, Any, Any]:
        """Return each set's loss and its gradients.

        Parameters
        ----------
        coef : float64 array (n_sets, n_scores, dim)
            On rows standardised by ``columns``.
        intercept : float64 array (n_sets, n_scores)

        Returns
        -------
        losses : float64 array (n_sets,)
        d_coef, d_intercept : float64 arrays
            As ``coef`` and ``intercept``.
        """
        # Scores stand as (score, set, row): sums over classes then run along rows, which vectorises.
        raw = (coef * self._ratio[:, None]).transpose(1, 0, 2).astype(self.X.dtype)
        constant = (intercept + np.einsum("fkd,fd->fk", coef, self._offset)).T.astype(self.X.dtype)
        if self.n_scores > 1:
            constant[~self.known.T] = -np.inf

        def part(blocks: Sequence[Any]) -> tuple[Floats, Floats, Floats]:
            losses, total = np.zeros(coef.shape[0]), np.zeros((self.n_scores, *coef.shape[::2]))
            sums = np.zeros(constant.shape)
            for rows, members, weights, copy in blocks:
                Z = self._standardised(rows) if copy is None else copy
                W = raw[:, members].reshape(-1, Z.shape[1])
                scores = (W @ Z.T).reshape(self.n_scores, len(members), len(rows))
                scores += constant[:, members, None]
                losses[members] += _to_slopes(scores, self.y[rows], weights)
                total[:, members] += (scores.reshape(-1, len(rows)) @ Z).reshape(self.n_scores, len(members), -1)
                sums[:, members] += scores.sum(axis=2, dtype=np.float64)
            return losses, total, sums

        found = self._shared(part, raw.shape[0] * raw.shape[1])
        losses, total, sums = (sum(parts) for parts in zip(*found, strict=True))
        d_intercept = np.asarray(sums).T
        d_coef = np.asarray(total).transpose(1, 0, 2) * self._ratio[:, None]
        d_coef += d_intercept[:, :, None] * self._offset[:, None]
        return np.asarray(losses), d_coef, d_intercept


def _to_slopes(scores: npt.NDArray[Any], y: Rows, weights: npt.NDArray[Any]) -> Floats:
    """Turn scores (n_scores, n_sets, n_rows) into the loss's slopes in place; return the weighted losses (n_sets,)."""
    if len(scores) == 1:
        wanted = (y == 1).astype(scores.dtype)
        small = np.exp(-np.abs(scores[0]))
        losses = np.log1p(small) + np.maximum(scores[0], 0) - wanted * scores[0]
        np.divide(np.where(scores[0] >= 0, 1, small), 1 + small, out=scores[0])
        scores[0] -= wanted
    else:
        scores -= scores.max(axis=0)
        np.maximum(scores, LEAST, out=scores)
        at = np.arange(len(y))
        right = scores[y, :, at].T
        np.exp(scores, out=scores)
        total = scores.sum(axis=0)
        losses = np.log(total) - right
        scores /= total
        scores[y, :, at] -= 1
    scores *= weights
    summed: Floats = np.einsum("fr,fr->f", losses, weights, dtype=np.float64)
    return summed
