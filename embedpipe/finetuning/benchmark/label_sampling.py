"""Draws of labels: nested, stratified by class, each with a validation part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedpipe._utils.option_names import option
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.finetuning.split_rows import VALIDATION_FOLDS, Rows
from embedpipe.splits.grouped import fold_numbers

#: Minimum rows of a class in training and in validation, for classes with enough rows.
MIN_ROWS = 2
#: Number of label counts that are chosen by default.
DEFAULT_COUNTS = 4


@dataclass(frozen=True, eq=False)
class LabelDraw:
    """The rows that one cell may learn from.

    Attributes
    ----------
    labels : int
        Number of rows.
    seed : int
    train, validation : int64 array
        Positions in ascending order. The linear probe uses both, and chooses its penalty inside them.
    """

    labels: int
    seed: int
    train: Rows
    validation: Rows

    @property
    def rows(self) -> Rows:
        """Positions of the training and validation rows, in ascending order."""
        return np.sort(np.concatenate([self.train, self.validation]))


def draw_labels(y: Rows, groups: Rows | None, pool: Rows, labels: int, seed: int) -> LabelDraw:
    """Draw labelled rows from a pool, and hold out a fifth of them for validation.

    A draw is a subset of every larger draw with the same seed. Each class gets four rows first, if it has so many;
    after that the class frequencies are those of the pool.

    Parameters
    ----------
    y : int64 array (n_samples,)
        Classes of all rows.
    groups : int64 array (n_samples,), optional
        Groups that are not divided between training and validation.
    pool : int64 array
        Positions to draw from.
    labels, seed : int

    Raises
    ------
    TrainingDataError
        If the groups leave no validation row, or training rows of one class only.
    """
    rng = np.random.default_rng([seed, 0])
    order = rng.permutation(pool)
    turns = _rank_in_class(y[order])
    fractions = (turns + rng.random(len(order))) / np.bincount(y[pool], minlength=y.max() + 1)[y[order]]
    first = turns < 2 * MIN_ROWS
    rows = np.sort(order[np.lexsort([fractions, np.where(first, turns, 2 * MIN_ROWS)])][:labels])
    row_groups = None if groups is None else np.unique(groups[rows], return_inverse=True)[1]
    classes = np.unique(y[rows], return_inverse=True)[1]
    is_validation = _choose_validation(classes, row_groups, np.random.default_rng([seed, 1]))
    if not is_validation.any() or len(np.unique(y[rows[~is_validation]])) < 2:
        raise TrainingDataError(
            f"{labels} labels (seed {seed}) cannot be divided into training and validation rows, because their groups "
            f"are too large: give larger {option('label_counts')}, or a higher {option('near_duplicates')}"
        )
    return LabelDraw(labels, seed, rows[~is_validation], rows[is_validation])


def smallest_label_count(y: Rows, pool: Rows) -> int:
    """Return the fewest labels that give training and validation two rows each of every class with enough rows."""
    return int(np.minimum(np.bincount(y[pool]), 2 * MIN_ROWS).sum())


def check_label_counts(label_counts: tuple[int, ...], y: Rows, pool: Rows) -> None:
    """Raise UsageError or TrainingDataError if a count is larger than the pool, or the pool too small to learn from."""
    smallest = smallest_label_count(y, pool)
    if len(np.unique(y[pool])) < 2 or len(pool) < 2 * MIN_ROWS:
        raise TrainingDataError(
            f"training and validation rows must be at least {2 * MIN_ROWS} and of two classes, got {len(pool)} rows of "
            f"{len(np.unique(y[pool]))}: label more"
        )
    for labels in label_counts:
        if not smallest <= labels <= len(pool):
            raise UsageError(
                f"{option('label_counts')} must be from {smallest} ({MIN_ROWS} rows of each class for training and "
                "for validation) "
                f"to {len(pool)} (all rows but the test rows), got {labels}"
            )


def label_count_ladders(label_counts: tuple[int, ...], y: Rows, pool: Rows) -> Iterator[list[int]]:
    """Yield lists of label counts in ascending order, the most expensive list first.

    Given counts lose the largest one in each step. Default counts end at all rows, then at half of them and so on;
    each count is two or four times the one before.
    """
    if label_counts:
        yield from (list(label_counts[:count]) for count in range(len(label_counts), 0, -1))
        return
    smallest, largest = smallest_label_count(y, pool), len(pool)
    while largest >= smallest:
        factor = 4 if largest >= smallest * 4 ** (DEFAULT_COUNTS - 1) else 2
        counts = [largest // factor**power for power in range(DEFAULT_COUNTS)]
        yield sorted(count for count in counts if count >= smallest)
        largest //= 2


def _rank_in_class(classes: Rows) -> Rows:
    """Return for each row the number of earlier rows of its class."""
    ranks = np.empty(len(classes), np.int64)
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        ranks[members] = np.arange(len(members))
    return ranks


def _choose_validation(classes: Rows, groups: Rows | None, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Return which rows are for validation: a fifth, in whole groups.

    Each class gets two rows in validation if two are left for training.
    """
    is_validation = fold_numbers(classes, groups, VALIDATION_FOLDS, rng) == 0
    row_groups = np.arange(len(classes)) if groups is None else groups
    for label in np.unique(classes):
        members = classes == label
        for row in rng.permutation(np.flatnonzero(members & ~is_validation)):
            extended = is_validation | (row_groups == row_groups[row])
            if (members & is_validation).sum() < MIN_ROWS <= (members & ~extended).sum():
                is_validation = extended
    return np.asarray(is_validation, bool)
