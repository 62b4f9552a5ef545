"""Which rows a label budget has: draws that are nested and have the classes even, and their validation part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.finetuning.split_rows import VALIDATION_FOLDS, Rows
from embedpipe.splits.grouped import fold_numbers

#: Rows of a class that training and validation have at least, where there are so many.
FEWEST = 2
#: Budgets that are chosen where the user names none.
SIZES = 4


@dataclass(frozen=True, eq=False)
class Draw:
    """What one cell may learn from.

    Attributes
    ----------
    labels, seed : int
    train, validation : int64 array
        Positions, going up; a probe takes both, and chooses inside them.
    """

    labels: int
    seed: int
    train: Rows
    validation: Rows

    @property
    def rows(self) -> Rows:
        """All of them, going up."""
        return np.sort(np.concatenate([self.train, self.validation]))


def draw_labels(y: Rows, groups: Rows | None, pool: Rows, labels: int, seed: int) -> Draw:
    """Draw a label budget from a pool, and hold out a fifth of it for validation.

    A draw is the beginning of every larger one of the same seed. Shares of classes are those of the pool, but that each
    class has four rows first, where it has so many.

    Parameters
    ----------
    y : int64 array (n_samples,)
        Classes of all rows.
    groups : int64 array (n_samples,), optional
        Rows that stay on one side of training and validation.
    pool : int64 array
        Positions to draw from.
    labels, seed : int

    Raises
    ------
    TrainingDataError
        If rows that belong together leave one side without rows, or training with one class.
    """
    rng = np.random.default_rng([seed, 0])
    order = rng.permutation(pool)
    turns = _numbered(y[order])
    shares = (turns + rng.random(len(order))) / np.bincount(y[pool], minlength=y.max() + 1)[y[order]]
    first = turns < 2 * FEWEST
    rows = np.sort(order[np.lexsort([shares, np.where(first, turns, 2 * FEWEST)])][:labels])
    own = None if groups is None else np.unique(groups[rows], return_inverse=True)[1]
    held = _held_out(np.unique(y[rows], return_inverse=True)[1], own, np.random.default_rng([seed, 1]))
    if not held.any() or len(np.unique(y[rows[~held]])) < 2:
        raise TrainingDataError(
            f"{labels} labels (seed {seed}) cannot be divided into training and validation: too many of their rows "
            "belong together; give larger budgets, or join fewer near-duplicates (--near-duplicates)"
        )
    return Draw(labels, seed, rows[~held], rows[held])


def smallest_label_count(y: Rows, pool: Rows) -> int:
    """Return the fewest labels that give both sides two rows of every class that has them."""
    return int(np.minimum(np.bincount(y[pool]), 2 * FEWEST).sum())


def check_label_counts(sizes: tuple[int, ...], y: Rows, pool: Rows) -> None:
    """Raise UsageError or TrainingDataError if there are fewer rows, or too few to learn from."""
    least = smallest_label_count(y, pool)
    if len(np.unique(y[pool])) < 2 or len(pool) < 2 * FEWEST:
        raise TrainingDataError(f"{len(pool)} rows are too few to draw labels from, or of one class: label more")
    for labels in sizes:
        if labels > len(pool):
            raise UsageError(f"label_counts={list(sizes)}: there are {len(pool)} labels beside the test rows")
        if labels < least:
            raise UsageError(
                f"label_counts={list(sizes)}: {labels} labels are too few for {FEWEST} of each class to train on and "
                f"as many to stop by: give {least} at least"
            )


def ladders(sizes: tuple[int, ...], y: Rows, pool: Rows) -> Iterator[list[int]]:
    """Yield sizes to measure, those that cost most first.

    Where none are named, they go up to all rows, or half of them and so on, each two or four times the one before.
    """
    if sizes:
        yield from (list(sizes[:count]) for count in range(len(sizes), 0, -1))
        return
    least, top = smallest_label_count(y, pool), len(pool)
    while top >= least:
        times = 4 if top >= least * 4 ** (SIZES - 1) else 2
        found = [top // times**power for power in range(SIZES)]
        yield sorted(size for size in found if size >= least)
        top //= 2


def _numbered(classes: Rows) -> Rows:
    """Return for each row how many of its class come before it."""
    turns = np.empty(len(classes), np.int64)
    for one in np.unique(classes):
        own = np.flatnonzero(classes == one)
        turns[own] = np.arange(len(own))
    return turns


def _held_out(
    classes: Rows, groups: Rows | None, rng: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which rows are for validation: a fifth, groups whole, and of each class two, if two are left to learn."""
    held = fold_numbers(classes, groups, VALIDATION_FOLDS, rng) == 0
    together = np.arange(len(classes)) if groups is None else groups
    for one in np.unique(classes):
        own = classes == one
        for row in rng.permutation(np.flatnonzero(own & ~held)):
            more = held | (together == together[row])
            if (own & held).sum() < FEWEST <= (own & ~more).sum():
                held = more
    return np.asarray(held, bool)
