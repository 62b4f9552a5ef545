"""What makes measured metrics too good or unfair: copies of test rows among training rows, and copies at odds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe.decoding.hashing.perceptual import PerceptualHashes
from embedpipe.neighbours.duplicates import near_duplicate_groups
from embedpipe.neighbours.exact import Rows
from embedpipe.neighbours.options import NEAR_DUPLICATE_COSINE
from embedpipe.splits.groups import LARGE, criterion_of
from embedpipe.splits.inner import Split
from embedpipe.splits.mapped_rows import MappedRows
from embedpipe.statistics.percentages import percent

#: Of more rows only exact copies are looked for: all pairs of these take about two seconds on two cores.
MOST_ROWS = 10_000


def leakage_notes(
    X: npt.NDArray[np.float32] | MappedRows,
    copies: Rows,
    splits: Sequence[Split],
    hashes: PerceptualHashes | None = None,
) -> list[str]:
    """Return a note if held-out rows have near-duplicates, as `evaluate` finds them, among the training rows.

    Where a chain of similar rows joins many of them, as with poor vectors, only exact copies count: ``copies`` are
    those of `first_copies`.
    """
    groups, what = copies, "exact copies"
    if len(X) <= MOST_ROWS:
        near = near_duplicate_groups(X[:], hashes=hashes)
        if np.bincount(near).max() <= max(LARGE * len(near), 2):
            groups, what = near, f"near-duplicates ({criterion_of(NEAR_DUPLICATE_COSINE, hashes)})"
    count = sum(int(np.isin(groups[test], groups[train]).sum()) for train, test in splits)
    if not count:
        return []
    rows = "1 held-out row has" if count == 1 else f"{count:,} held-out rows have"
    share = count / sum(len(test) for _, test in splits)
    return [
        f"{rows} {what} among the training rows ({percent(share)}), so that the metrics may be too good: "
        "`embedpipe evaluate` keeps them together"
    ]


def contradiction_notes(copies: Rows, y: npt.NDArray[Any], ids: pa.Array, label: str) -> list[str]:
    """Return a note if rows with equal vectors, as `first_copies` finds them, have different labels."""
    rows = np.flatnonzero((y != y[copies]).reshape(len(y), -1).any(axis=1))
    if not len(rows):
        return []
    one, other = (ids[int(row)].as_py() for row in (rows[0], copies[rows[0]]))
    some = "1 row is an exact copy of another" if len(rows) == 1 else f"{len(rows):,} rows are exact copies of others"
    return [f"{some} with another {label}, such as {one!r} of {other!r}: correct them (`embedpipe label`)"]
