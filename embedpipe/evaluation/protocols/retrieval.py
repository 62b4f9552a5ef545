"""``retrieval``: is what is nearest of the same class? Recall@k, mean average precision and NDCG@k by cosine.

Test rows are the queries, training rows the gallery that is searched: the convention of image hashing and of kNN
protocols. Metric learning, whose test classes are not in training, searches among the test rows instead. A store
without a test split is divided into folds, each of which queries the others: near-duplicates never find each other.

- recall@k: share of queries with a row of their class among the k nearest (Oh Song et al., CVPR 2016).
- mAP: mean over the queries of the average precision over the whole gallery (Manning, Raghavan, Schuetze, Introduction
  to Information Retrieval, 2008, 8.4).
- NDCG@k: gains of 0 and 1, discounted by log2(rank + 1), divided by the largest sum that there can be (Jarvelin,
  Kekalainen, ACM TOIS 20, 2002).

Cosines are float64, rounded to 9 digits, so that copies tie; ties go to the lower row. Queries are taken in blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe.evaluation.protocols.problem import Outcome, Problem, Rows, Vectors
from embedpipe.neighbours import normalised
from embedpipe.neighbours.exact import row_blocks

KS = (1, 5, 10)
#: Bytes of the cosines of a block of queries with the whole gallery.
BLOCK = 1 << 25
DIGITS = 9

Floats = npt.NDArray[np.float64]


def run(problem: Problem) -> Outcome:
    """Search the training rows for each test row."""
    ks = [k for k in KS if k <= len(problem.y_train)]
    values, nearest = measure_queries(problem.X_test, problem.y_test, problem.X_train, problem.y_train, ks)
    details: list[dict[str, Any]] = [
        {"k": k, **{name: float(values[f"{name}_{k}"].mean()) for name in ("recall", "precision", "ndcg")}} for k in ks
    ]
    kept = {name: values[name] for name in ("map", *(f"recall_{k}" for k in ks), f"ndcg_{ks[-1]}")}
    metrics = {name: float(each.mean()) for name, each in kept.items()}
    settings = {"queries": len(problem.y_test), "gallery": len(problem.y_train), "similarity": "cosine", "k": ks}
    return Outcome(metrics, settings, details, {"nearest": nearest}, kept)


def measure_queries(
    X: Vectors, y: Rows, gallery: Vectors, labels: Rows, ks: list[int]
) -> tuple[dict[str, Floats], Rows]:
    """Return the metrics of each query, and the class of its nearest row.

    Parameters
    ----------
    X : float array (n_queries, dim)
    y : int64 array (n_queries,)
        All classes occur in the gallery.
    gallery : float array (n_rows, dim)
    labels : int64 array (n_rows,)
    ks : list of int
        Ascending, at most ``n_rows``.

    Returns
    -------
    values : dict
        ``map``, and for each k ``recall_<k>``, ``precision_<k>`` and ``ndcg_<k>``: float64 arrays (n_queries,).
    nearest : int64 array (n_queries,)
    """
    queries, rows = normalised(X), normalised(gallery)
    counts = np.bincount(labels)
    ranks = np.arange(1, len(rows) + 1)
    discounts = 1 / np.log2(ranks[: ks[-1]] + 1)
    ideal = np.cumsum(discounts)
    names = ["map", *(f"{name}_{k}" for k in ks for name in ("recall", "precision", "ndcg"))]
    values = {name: np.empty(len(queries)) for name in names}
    nearest = np.empty(len(queries), np.int64)
    step = max(1, BLOCK // (8 * len(rows)))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        found = labels[_ranking(queries[part], rows)]
        nearest[part] = found[:, 0]
        relevant = found == y[part, None]
        all_relevant = counts[y[part]]
        precisions = np.cumsum(relevant, axis=1) / ranks
        values["map"][part] = np.where(relevant, precisions, 0).sum(axis=1) / all_relevant
        for k in ks:
            first = relevant[:, :k]
            values[f"recall_{k}"][part] = first.any(axis=1)
            values[f"precision_{k}"][part] = first.mean(axis=1)
            values[f"ndcg_{k}"][part] = first @ discounts[:k] / ideal[np.minimum(all_relevant, k) - 1]
    return values, nearest


def _ranking(queries: npt.NDArray[np.float32], rows: npt.NDArray[np.float32]) -> Rows:
    """Return all rows in descending order of their cosine with each query, int64 (n_queries, n_rows)."""
    cosines = np.empty((len(queries), len(rows)))
    given = queries.astype(np.float64)
    for where, block in row_blocks(rows):
        cosines[:, where] = given @ block.astype(np.float64).T
    np.round(cosines, DIGITS, out=cosines)
    np.negative(cosines, out=cosines)
    return np.argsort(cosines, axis=1, kind="stable")
