"""Groups of rows that belong together: the training and the test rows never share a group.

Groups come from a column of the user's (one patient, one shoot) and from near-duplicates.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from embedpipe._utils.messages.counting import counted
from embedpipe._utils.missing import is_missing
from embedpipe._utils.option_names import option
from embedpipe.decoding.hashing.perceptual import PerceptualHashes
from embedpipe.errors import UsageError
from embedpipe.neighbours.duplicates import first_copies, near_duplicate_groups
from embedpipe.neighbours.exact import Vectors
from embedpipe.statistics.percentages import percent

Rows = npt.NDArray[np.int64]

#: A group of near-duplicates with more than this share of the rows is probably a chain of similar rows.
LARGE = 0.05


@dataclass(frozen=True, eq=False)
class RowGroups:
    """Groups of rows.

    Attributes
    ----------
    numbers : int64 array (n_samples,), optional
        The group of each row; None if each row is a group of its own.
    source : str
        What makes the groups: ``groups``, ``near-duplicates``, ``exact copies``, or ``groups and`` one of these.
    notes : list of str
        What a reader of the results should know about the groups.
    """

    numbers: Rows | None
    source: str
    notes: list[str]

    def count(self, rows: Rows) -> int:
        """Return the number of groups that the rows are in."""
        return len(rows) if self.numbers is None else len(np.unique(self.numbers[rows]))


def find_groups(
    rows: int,
    groups: Iterable[Any] | None,
    vectors: Vectors | None,
    cosine: float | Literal["copies"],
    hashes: PerceptualHashes | None = None,
) -> RowGroups:
    """Return the groups that the user's groups and the near-duplicates, or only exact copies, form together.

    Raises
    ------
    UsageError
        If the number of values or vectors differs from the number of rows, or the cosine is out of range.
    """
    groupings, sources, notes = [], [], []
    if groups is not None:
        groupings.append(_numbered(groups, rows))
        sources.append("groups")
    if vectors is not None:
        if len(vectors) != rows:
            raise UsageError(f"vectors must have one row per id, got {len(vectors)} vectors for {rows} ids")
        if cosine == "copies":
            duplicates, what = first_copies(vectors), "exact copies"
            count = int((duplicates != np.arange(rows)).sum())
            some = "1 row is an exact copy of another" if count == 1 else f"{count:,} rows are exact copies of others"
            notes.append(f"{some}: copies are never in both the training and the test rows")
        else:
            duplicates, what = near_duplicate_groups(vectors, cosine, hashes=hashes), "near-duplicates"
            notes += _notes_on(duplicates, cosine, criterion_of(cosine, hashes))
        if len(np.unique(duplicates)) < rows:
            groupings.append(duplicates)
            sources.append(what)
    return RowGroups(merge_groupings(groupings) if groupings else None, " and ".join(sources), notes)


def merge_groupings(groupings: Sequence[Rows]) -> Rows:
    """Return the connected components of rows that share a group in any of the groupings; numbers from 0."""
    rows = len(groupings[0])
    firsts = [np.unique(groups, return_index=True, return_inverse=True)[1:] for groups in groupings]
    left = np.tile(np.arange(rows), len(groupings))
    right = np.concatenate([first[number] for first, number in firsts])
    pairs = coo_array((np.ones(len(left), bool), (left, right)), shape=(rows, rows))
    joined: Rows = connected_components(pairs, directed=False)[1].astype(np.int64)
    return joined


def _numbered(groups: Iterable[Any], rows: int) -> Rows:
    """Return a number for each distinct value; every missing one (None, NaN, pandas' NA, NaT) has one of its own."""
    values = [value.item() if isinstance(value, np.generic) else value for value in groups]
    if len(values) != rows:
        raise UsageError(f"groups must have one value per row, got {len(values)} values for {rows} rows")
    missing = [is_missing(value) for value in values]
    unhashable = next((value for value in values if not isinstance(value, Hashable)), None)
    if unhashable is not None:
        raise UsageError(
            f"a group must be one value per row, such as a text or a number, got a {type(unhashable).__name__}: "
            f"{unhashable!r:.80}"
        )
    keys = [(gap, row if gap else value) for row, (gap, value) in enumerate(zip(missing, values, strict=True))]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], np.int64)


def criterion_of(cosine: float, hashes: PerceptualHashes | None) -> str:
    """Return by what near-duplicates are found, in words."""
    by_cosine = f"centred cosine of at least {cosine:g}"
    if hashes is None or not hashes.usable.any():
        return by_cosine
    lacking = int((~hashes.usable).sum())
    return "by perceptual hashes" + f"; {by_cosine} for the {lacking:,} rows without one" * (lacking > 0)


def _notes_on(duplicates: Rows, cosine: float, criterion: str) -> list[str]:
    """Return what a reader should know about the near-duplicates."""
    sizes = np.bincount(duplicates)
    several = sizes[sizes > 1]
    if not len(several):
        return [f"no near-duplicates were found ({criterion})"]
    notes = [
        f"{several.sum():,} rows ({percent(several.sum() / len(duplicates))}) are near-duplicates of others "
        f"({criterion}), in {counted(len(several), 'group')}: a group is never in both the "
        "training and the test rows"
    ]
    if several.max() > max(LARGE * len(duplicates), 2) and "cosine" in criterion:
        notes.append(
            f"one group of near-duplicates has {several.max():,} rows ({percent(several.max() / len(duplicates), 0)}), "
            "probably a chain of merely similar rows. It makes folds uneven and metrics too low: raise "
            f"{option('near_duplicates')} from {cosine:g}, for instance to {(1 + cosine) / 2:.3g}"
        )
    return notes
