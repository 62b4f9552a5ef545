"""Labels that are likely wrong: those that an item's nearest neighbours contradict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedpipe._utils.progress import Progress
from embedpipe.neighbours.exact import Vectors
from embedpipe.neighbours.graph import neighbour_graph

#: Number of neighbours that vote; how many must agree on another label, and how many may have the item's own.
VOTERS, AGREEING, OWN = 10, 8, 1
#: Items of smaller classes are not judged: most of their neighbours are of larger classes anyway.
LEAST = 20
MEANING = (
    f"at least {AGREEING} of the {VOTERS} nearest neighbours share another label, and at most {OWN} has the item's own"
)


@dataclass(frozen=True)
class Doubt:
    """A row whose neighbours have another label, and how many of them."""

    row: int
    label: str
    votes: int


def find_doubts(vectors: Vectors, labels: Sequence[str | None], progress: Progress | None = None) -> list[Doubt]:
    """Return the rows whose label is likely wrong, the most certain first.

    An item has no vote on itself: this is leave-one-out k nearest neighbours by cosine. Items of classes with fewer
    than 20 items are not judged.

    Parameters
    ----------
    vectors : float32 array (n, dim), or a memory map
    labels : sequence of str or None, length n
        Rows without a label do not vote.
    progress : Progress, optional
    """
    known = np.array([i for i, label in enumerate(labels) if label is not None], int)
    counts = Counter(label for label in labels if label is not None)
    if len(known) <= VOTERS or len(counts) < 2:
        return []
    with (progress or Progress(False)).step("looking for likely wrong labels", len(known), "rows") as advance:
        judged = vectors if len(known) == len(vectors) else vectors[known]
        graph = neighbour_graph(judged, VOTERS, advance=advance)
    doubts = []
    for i, (row, positions) in enumerate(zip(known.tolist(), graph.positions.tolist(), strict=True)):
        own = labels[row]
        if counts[own] < LEAST:
            continue
        voters = [labels[known[j]] for j in positions]
        [(other, votes), *_] = Counter(voters).most_common(1)
        if other is not None and other != own and votes >= AGREEING and voters.count(own) <= OWN:
            doubts.append((-votes, -float(graph.scores[i].mean()), Doubt(row, other, votes)))
    return [doubt for *_, doubt in sorted(doubts, key=lambda each: each[:2])]
