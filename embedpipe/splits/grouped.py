"""Stratified folds with groups: each row is held out in one fold and trained on in all others."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


def fold_numbers(classes: Rows, groups: Rows | None, folds: int, rng: np.random.Generator) -> Rows:
    """Assign rows to folds at random: groups stay whole, and classes are as even as the groups allow.

    The largest groups are assigned first, each to the fold that has least of its classes. Single rows come last and
    level the folds out. Without groups, the numbers of rows of a class in two folds differ by one at most, and so do
    the sizes of the folds. A class is in every fold if at least ``folds`` groups hold no other class.

    scikit-learn's ``StratifiedGroupKFold`` assigns single rows one by one too, and takes longer for 5,000 of them than
    this function for 50,000. Its ``GroupKFold`` leaves the sizes of folds to chance when it shuffles.

    Parameters
    ----------
    classes : int64 array (n_samples,)
        Numbers from 0. All 0: only the sizes of the folds are made even.
    groups : int64 array (n_samples,), optional
        Numbers from 0.
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
    # Groups of the same size and class are assigned at once. -1: the group has several classes.
    profile = np.stack([-sizes, np.where(lowest == highest, lowest, -1)], axis=1)
    totals = np.bincount(classes)
    held = np.zeros((folds, len(totals)))
    fold_of = np.empty(len(starts), np.int64)
    for size, kind in np.unique(profile, axis=0).tolist():
        members = rng.permutation(np.flatnonzero((profile == (size, kind)).all(axis=1)))
        if kind >= 0:
            fold_of[members] = assigned = _assign_evenly(held[:, kind], held.sum(axis=1), len(members), -size, rng)
            held[:, kind] -= size * np.bincount(assigned, minlength=folds)
            continue
        for group in members.tolist():
            present, counts = np.unique(classes[order[starts[group] : starts[group] - size]], return_counts=True)
            # How much the sum of squared class shares grows, up to a part that is the same for all folds.
            crowded = held[:, present] @ (counts / totals[present] ** 2)
            fold_of[group] = fold = np.lexsort((rng.permutation(folds), held.sum(axis=1), crowded))[0]
            held[fold, present] += counts
    numbers = np.empty(len(classes), np.int64)
    numbers[order] = np.repeat(fold_of, sizes)
    return numbers


def _assign_evenly(
    in_class: npt.NDArray[np.float64], total: npt.NDArray[np.float64], count: int, size: int, rng: np.random.Generator
) -> Rows:
    """Return a fold for each of ``count`` groups of ``size`` rows of a class.

    Each group goes to the fold with the fewest rows of the class; of several such folds, to the smallest.
    """
    folds = len(in_class)
    # The n-th place of a fold is at the height in_class + n * size. The lowest places are taken.
    most = min(count, int((in_class.sum() + count * size) // (folds * size)) + 2)
    heights = in_class[:, None] + size * np.arange(most)
    ties = np.broadcast_to(rng.permutation(folds)[:, None], heights.shape)
    totals = np.broadcast_to(total[:, None], heights.shape)
    places = np.lexsort((ties.ravel(), totals.ravel(), heights.ravel()))[:count]
    return np.repeat(np.arange(folds), most)[places]
