"""Which rows belong together, and must not be trained on and measured on at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from embedpipe.errors import UsageError
from embedpipe.neighbours.duplicates import near_duplicates

Rows = npt.NDArray[np.int64]

#: A group of near-duplicates with a larger share of the rows than this is likely to be a chain.
LARGE = 0.05


@dataclass(frozen=True, eq=False)
class Bonds:
    """Which rows belong together (None: none), what makes them, in words, and what a reader should know of that."""

    groups: Rows | None
    what: str
    notes: list[str]

    def units(self, rows: Rows) -> int:
        """Return how many groups some rows lie in."""
        return len(rows) if self.groups is None else len(np.unique(self.groups[rows]))


def find_bonds(
    rows: int, groups: Iterable[Any] | None, vectors: npt.NDArray[np.float32] | None, threshold: float
) -> Bonds:
    """Return what the user's groups and near-duplicates join, also by way of each other.

    Raises
    ------
    UsageError
        If there are not as many values or vectors as rows, or the threshold is out of range.
    """
    relations, what, notes = [], [], []
    if groups is not None:
        relations.append(_numbered(groups, rows))
        what.append("groups")
    if vectors is not None:
        if len(vectors) != rows:
            raise UsageError(f"there are {len(vectors)} vectors for {rows} rows: give one a row")
        near = near_duplicates(vectors, threshold)
        said, several = _said_of(near, threshold)
        notes += said
        if several:
            relations.append(near)
            what.append("near-duplicates")
    return Bonds(united(relations) if relations else None, " and ".join(what), notes)


def united(relations: Sequence[Rows]) -> Rows:
    """Return the groups of rows that any of the relations join, also by way of others; numbers from 0 on."""
    rows = len(relations[0])
    firsts = [np.unique(groups, return_index=True, return_inverse=True)[1:] for groups in relations]
    left = np.tile(np.arange(rows), len(relations))
    right = np.concatenate([first[number] for first, number in firsts])
    pairs = coo_array((np.ones(len(left), bool), (left, right)), shape=(rows, rows))
    joined: Rows = connected_components(pairs, directed=False)[1].astype(np.int64)
    return joined


def _numbered(groups: Iterable[Any], rows: int) -> Rows:
    """Return a number for each value; each None and NaN has one of its own."""
    values = [value.item() if isinstance(value, np.generic) else value for value in groups]
    if len(values) != rows:
        raise UsageError(f"groups has {len(values)} values for {rows} rows: give one a row")
    nothing = [value is None or (isinstance(value, float) and math.isnan(value)) for value in values]
    keys = [(none, row if none else value) for row, (none, value) in enumerate(zip(nothing, values, strict=True))]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], np.int64)


def _said_of(near: Rows, threshold: float) -> tuple[list[str], bool]:
    """Return what to say about near-duplicates, and whether there are any."""
    sizes = np.bincount(near)
    several = sizes[sizes > 1]
    by = f"centred cosine of at least {threshold:g}"
    if not len(several):
        return [f"no near-duplicates were found ({by})"], False
    notes = [
        f"{several.sum():,} rows ({several.sum() / len(near):.1%}) are near-duplicates of others ({by}), in "
        f"{len(several):,} group{'s' * (len(several) > 1)}: no group is trained on and measured on at once"
    ]
    if several.max() > max(LARGE * len(near), 2):
        notes.append(
            f"one group of near-duplicates holds {several.max():,} rows ({several.max() / len(near):.0%}), probably a "
            "chain of rows that merely look alike, which makes folds uneven and figures too low: raise the threshold "
            f"of {threshold:g}, for instance to {(1 + threshold) / 2:.3g}"
        )
    return notes, True
