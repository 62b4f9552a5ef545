"""Folds that keep groups whole and classes even."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


def fold_numbers(classes: Rows, groups: Rows | None, folds: int, rng: np.random.Generator) -> Rows:
    """Deal rows to folds: each group whole, each class as evenly as groups allow, and else at random.

    Groups go the largest first, each to the fold that has least of its classes; single rows come last and fill up
    what is missing. Where there are no groups, the numbers of a class's rows in two folds differ by one at most, and
    so do those of all rows. A class of which ``folds`` groups hold no other class is in every fold.

    scikit-learn's ``StratifiedGroupKFold`` weighs single rows one by one too, and takes longer over 5,000 of them than
    this over 50,000; its ``GroupKFold``, when it shuffles, leaves the sizes of folds to chance.

    Parameters
    ----------
    classes : int64 array (n_samples,)
        Numbers from 0 on; all 0 where nothing is to be even but the sizes.
    groups : int64 array (n_samples,), optional
        Numbers from 0 on.
    folds : int
    rng : numpy.random.Generator

    Returns
    -------
    numbers : int64 array (n_samples,)
        From 0 to ``folds - 1``.
    """
    groups = np.arange(len(classes)) if groups is None else groups
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    lowest, highest = (each.reduceat(classes[order], starts) for each in (np.minimum, np.maximum))
    # Groups of one size and one class are alike, and dealt at once; -1: of several classes.
    alike = np.stack([-sizes, np.where(lowest == highest, lowest, -1)], axis=1)
    whole = np.bincount(classes)
    held = np.zeros((folds, len(whole)))
    fold_of = np.empty(len(starts), np.int64)
    for size, kind in np.unique(alike, axis=0).tolist():
        several = rng.permutation(np.flatnonzero((alike == (size, kind)).all(axis=1)))
        if kind >= 0:
            fold_of[several] = dealt = _evened(held[:, kind], held.sum(axis=1), len(several), -size, rng)
            held[:, kind] -= size * np.bincount(dealt, minlength=folds)
            continue
        for group in several.tolist():
            own, counts = np.unique(classes[order[starts[group] : starts[group] - size]], return_counts=True)
            # What the sum of squared shares grows by, but for a part that is the same for all folds.
            crowded = held[:, own] @ (counts / whole[own] ** 2)
            fold_of[group] = fold = np.lexsort((rng.permutation(folds), held.sum(axis=1), crowded))[0]
            held[fold, own] += counts
    numbers = np.empty(len(classes), np.int64)
    numbers[order] = np.repeat(fold_of, sizes)
    return numbers


def _evened(
    own: npt.NDArray[np.float64], total: npt.NDArray[np.float64], count: int, size: int, rng: np.random.Generator
) -> Rows:
    """Return a fold for each of ``count`` groups of ``size`` rows of a class.

    Each goes where there are fewest rows of the class, and of these folds to the one with fewest rows.
    """
    folds = len(own)
    # The n-th place that a fold offers is at the height own + n * size; the lowest places are taken.
    most = min(count, int((own.sum() + count * size) // (folds * size)) + 2)
    heights = own[:, None] + size * np.arange(most)
    ties = np.broadcast_to(rng.permutation(folds)[:, None], heights.shape)
    totals = np.broadcast_to(total[:, None], heights.shape)
    places = np.lexsort((ties.ravel(), totals.ravel(), heights.ravel()))[:count]
    return np.repeat(np.arange(folds), most)[places]
