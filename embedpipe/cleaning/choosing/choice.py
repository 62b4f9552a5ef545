"""Which rows to label next: typical ones while labels are few, then those that a head is unsure of, spread out."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from embedpipe.estimators.wrappers.base import fit_on
from embedpipe.heads.registry import make_estimator

Rows = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]
#: So many labels a class make a head whose doubts mean something; with fewer, typical rows are chosen.
FEW_PER_CLASS = 8
#: Most clusters, neighbours that make a row typical, and doubtful rows for each that is chosen.
MOST_CLUSTERS, TYPICAL_NEIGHBOURS, CANDIDATES = 500, 20, 10
ITERATIONS = 20
#: Cosines that are held at once: those of all pairs of 40,000 rows would take 6 GB.
MOST_COSINES = 1 << 24


def choose_rows(
    Z: Vectors, y: npt.NDArray[np.int64], pool: Rows, labelled: Rows, count: int, seed: int
) -> tuple[Rows, npt.NDArray[np.float64]]:
    """Choose rows of ``pool`` to label; also return their margins, NaN where no head was asked.

    Parameters
    ----------
    Z : float32 array (n_rows, dim)
        Vectors of length 1.
    y : int64 array (n_rows,)
        Classes; only those of ``labelled`` are read.
    pool, labelled : int64 array
        Row numbers, disjoint.
    count : int
    seed : int
    """
    count = min(count, len(pool))
    known = np.unique(y[labelled])
    if len(known) < 2 or len(labelled) < FEW_PER_CLASS * len(known):
        return typical_rows(Z, pool, labelled, count, seed), np.full(count, np.nan)
    return doubtful_rows(Z, y, pool, labelled, count, seed)


def typical_rows(Z: Vectors, pool: Rows, labelled: Rows, count: int, seed: int) -> Rows:
    """Choose the most typical row of each of the largest clusters that has the fewest labels.

    There are as many clusters as there will be labels, so that each choice is of another kind (Hacohen, Dekel and
    Weinshall, "Active learning on a budget", ICML 2022). Typical: the mean cosine to the nearest rows of the cluster.
    """
    both = np.concatenate([labelled, pool])
    clusters = min(len(labelled) + count, MOST_CLUSTERS, len(both))
    member = _clustered(KMeans(clusters, n_init=1, max_iter=ITERATIONS, random_state=seed), Z[both]).labels_
    labels_in = np.bincount(member[: len(labelled)], minlength=clusters)
    order = np.lexsort((-np.bincount(member, minlength=clusters), labels_in))
    ranked = {}
    for cluster in order.tolist():
        inside = np.flatnonzero(member == cluster)
        free = inside[inside >= len(labelled)]
        if len(free):
            typicality = _typicality(Z, both[free], both[inside])
            ranked[cluster] = both[free[np.argsort(-typicality, kind="stable")]].tolist()
    chosen: list[int] = []
    depth = 0
    while len(chosen) < count:
        chosen += [rows[depth] for rows in ranked.values() if depth < len(rows)]
        depth += 1
    return np.array(chosen[:count], np.int64)


def _typicality(Z: Vectors, rows: Rows, cluster: Rows) -> Vectors:
    """Return the mean cosine of each row to the nearest rows of its cluster."""
    nearest = min(TYPICAL_NEIGHBOURS, len(cluster))
    step = max(1, MOST_COSINES // len(cluster))
    means = []
    for start in range(0, len(rows), step):
        cosines = Z[rows[start : start + step]] @ Z[cluster].T
        means.append(np.partition(cosines, -nearest, axis=1)[:, -nearest:].mean(axis=1))
    return np.concatenate(means)


def doubtful_rows(
    Z: Vectors, y: npt.NDArray[np.int64], pool: Rows, labelled: Rows, count: int, seed: int
) -> tuple[Rows, npt.NDArray[np.float64]]:
    """Choose rows with small margins that differ from one another, by a head of the labels, and return the margins."""
    _, head = make_estimator("logreg", "classification", len(labelled))
    probabilities = np.sort(fit_on(head, Z[labelled], y[labelled]).predict_proba(Z[pool]), axis=1)
    return spread_out(Z, pool, probabilities[:, -1] - probabilities[:, -2], count, seed)


def spread_out(
    Z: Vectors, pool: Rows, margins: npt.NDArray[np.float64], count: int, seed: int
) -> tuple[Rows, npt.NDArray[np.float64]]:
    """Choose rows of ``pool`` with small margins that differ from one another, and return the margins.

    The rows with the smallest margins, ten times as many as are chosen, are clustered with their doubt as weight, and
    the row nearest to each centre is chosen (Zhdanov, "Diverse mini-batch active learning", 2019).
    """
    count = min(count, len(pool))
    candidates = np.argsort(margins, kind="stable")[: CANDIDATES * count]
    clusters = min(count, MOST_CLUSTERS, len(candidates))
    kmeans = KMeans(clusters, n_init=1, max_iter=ITERATIONS, random_state=seed)
    doubt = np.maximum(1 - margins[candidates], 0) + 1e-3  # margins of scores may be above 1
    centres = _clustered(kmeans, Z[pool[candidates]], doubt).cluster_centers_
    near = Z[pool[candidates]] @ centres.T - (centres**2).sum(axis=1) / 2
    free = np.ones(len(candidates), bool)
    chosen: list[int] = []
    for number in range(count):
        best = int(np.where(free, near[:, number % clusters], -np.inf).argmax())
        free[best] = False
        chosen.append(best)
    rows = candidates[chosen]
    return pool[rows], margins[rows]


def _clustered(kmeans: KMeans, Z: Vectors, weights: npt.NDArray[np.float64] | None = None) -> KMeans:
    """Fit clusters; of vectors with copies, some may stay empty."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return kmeans.fit(Z, sample_weight=weights)
