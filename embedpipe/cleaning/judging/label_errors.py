"""Labels that are likely to be wrong, by predictions of heads that were not fitted on the rows, and by neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
#: The least probability, so that no class is ruled out by one head.
LEAST = 1e-6
#: Share of the weight of a mislabelling that is the same for all. With less, labels that are wrong at random rank
#: behind rows between two classes; with two thirds, on no data set on which this was chosen behind self-confidence.
EVEN = 2 / 3


@dataclass(frozen=True)
class LabelErrors:
    """Rows whose label is likely to be wrong, the surest first.

    Attributes
    ----------
    rows : int64 array (n,)
    proposed : int64 array (n,)
        The most probable class.
    scores : float64 array (n,)
        The doubt of their labels, as `doubt_of_labels` returns it.
    confused : list of (int, int, int)
        Label, proposed class, number of rows; the most frequent first.
    """

    rows: Rows
    proposed: Rows
    scores: Floats
    confused: list[tuple[int, int, int]]


def with_neighbours(probabilities: Floats, y: Rows, neighbours: Rows, cosines: Floats) -> Floats:
    """Return the mean of a head's probabilities and of the share of neighbours with each label.

    A head draws a plane and a graph looks around: together they find more wrong labels than either
    (`benchmarks/label_errors.py`). A neighbour counts by the square of its cosine, and the frequencies of the classes
    count as one more neighbour.

    Parameters
    ----------
    probabilities : float64 array (n_rows, n_classes)
        Of heads that were not fitted on the rows.
    y : int64 array (n_rows,)
    neighbours : int64 array (n_rows, k)
        Row numbers; -1 for none.
    cosines : float64 array (n_rows, k)
    """
    n_rows, n_classes = probabilities.shape
    votes = np.zeros((n_rows, n_classes))
    rows = np.arange(n_rows)
    for near, cosine in zip(neighbours.T, cosines.T, strict=True):
        weight = np.where(near >= 0, np.maximum(cosine, 0) ** 2, 0.0)
        np.add.at(votes, (rows, y[near]), weight)
    frequencies = np.bincount(y, minlength=n_classes) / n_rows
    votes = (votes + frequencies) / (votes.sum(axis=1, keepdims=True) + 1)
    kept = np.clip(probabilities, LEAST, None)
    mean: Floats = (kept / kept.sum(axis=1, keepdims=True) + votes) / 2
    return mean


def find_label_errors(probabilities: Floats, y: Rows) -> LabelErrors:
    """Find the rows of which another class is more probable than is usual for rows of that class.

    The threshold of a class is the mean of its probability over the rows with that label (confident learning;
    Northcutt, Jiang and Chuang, JAIR 2021), so that a class of which heads are never sure is not accused more than
    others.

    Parameters
    ----------
    probabilities : float64 array (n_rows, n_classes)
        As `with_neighbours` gives them.
    y : int64 array (n_rows,)
    """
    found, proposed = _suspects(probabilities, y)
    doubt = doubt_of_labels(probabilities, y)[found]
    order = np.argsort(-doubt, kind="stable")
    found, proposed, doubt = found[order], proposed[order], doubt[order]
    pairs, counts = np.unique(np.column_stack([y[found], proposed]), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    confused = [(int(pairs[i, 0]), int(pairs[i, 1]), int(counts[i])) for i in order]
    return LabelErrors(found, proposed, doubt, confused)


def doubt_of_labels(probabilities: Floats, y: Rows) -> Floats:
    """Return the doubt of each label, in [0, 1]: of it and the other classes together, the share of the others.

    Each class counts by its probability, and another class also by how often its rows are mislabelled like this among
    the rows that `find_label_errors` finds, as far as that is not `EVEN`. In many data sets most errors are of a few
    kinds, such as a class that was taken for a similar one; an improbable label alone is often only an unusual item.

    Parameters
    ----------
    probabilities : float64 array (n_rows, n_classes)
    y : int64 array (n_rows,)
    """
    rows, n_classes = np.arange(len(y)), probabilities.shape[1]
    others = 1 - np.eye(n_classes)
    suspects, proposed = _suspects(probabilities, y)
    counts = others / (n_classes - 1)
    np.add.at(counts, (proposed, y[suspects]), 1)
    # How frequent each wrong label is among the rows of a class; 1 where all are equally frequent.
    frequent = EVEN * others + (1 - EVEN) * (n_classes - 1) * counts / counts.sum(axis=1, keepdims=True)
    wrong = (probabilities @ frequent)[rows, y]
    doubt: Floats = wrong / (wrong + probabilities[rows, y])
    return doubt


def _suspects(probabilities: Floats, y: Rows) -> tuple[Rows, Rows]:
    """Return rows whose most probable class is not their label, where it is as probable as usual, and that class."""
    n_classes = probabilities.shape[1]
    usual = np.array([probabilities[y == c, c].mean() if (y == c).any() else 1.0 for c in range(n_classes)])
    best = probabilities.argmax(axis=1).astype(np.int64)
    suspects = np.flatnonzero((best != y) & (probabilities.max(axis=1) >= usual[best]))
    return suspects, best[suspects]
