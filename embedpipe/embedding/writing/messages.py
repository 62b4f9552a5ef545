"""What a runner has done with rows of a listing, for the writer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from embedpipe.errors import Failure
from embedpipe.store.adopting import NewFile


@dataclass(frozen=True)
class Embedded:
    """Rows of the listing with new vectors: column -> float32 (n, dim).

    ``counts`` are those of each item. ``texts`` are the beginnings of the texts, None for images; ``perceptual_hashes``
    are those of images, None for texts.
    """

    rows: list[int]
    hashes: list[str]
    vectors: dict[str, npt.NDArray[np.float32]]
    counts: list[Mapping[str, int]]
    texts: list[str | None]
    perceptual_hashes: list[str | None]


@dataclass(frozen=True)
class Written:
    """Rows of the listing with new vectors, in a data file that no version of the store names yet.

    ``counts`` are sums over the items. ``known``: the store had these ids when the run was planned.
    """

    rows: list[int]
    file: NewFile
    counts: Mapping[str, int]
    known: bool


@dataclass(frozen=True)
class Reused:
    """A row of the listing that takes the stored vector of ``from_id``.

    ``takes`` says whose hand-set values it takes: those of the stored row with its own id, those of ``from_id`` from
    which it moved, or none. If it ``leaves``, the row of ``from_id`` loses them in the same commit.
    """

    row: int
    hash: str
    from_id: str
    takes: Literal["own", "moved", "nothing"] = "own"
    leaves: bool = False


Message = Embedded | Written | Reused | Failure


def count_rows(message: Message) -> int:
    """Return the number of rows that a message is about."""
    return len(message.rows) if isinstance(message, Embedded | Written) else 1


def add_counts(totals: Counter[str], items: Iterable[Mapping[str, int]]) -> None:
    """Add the counts of each item, in a third of the time that `Counter.update` takes for small ones."""
    for counts in items:
        for name, count in counts.items():
            totals[name] += count
