"""``dino-knn``: the weighted kNN vote of DINO (Caron et al., ICCV 2021, 4.1; Wu et al., CVPR 2018, 3.4).

As ``eval_knn.py`` of facebookresearch/dino: vectors are scaled to unit length; a neighbour with cosine s adds
exp(s / 0.07) to its class; the class with the largest sum is predicted, for k = 10, 20, 100 and 200. That script
computes in float32 on a GPU and leaves ties undefined. Here vectors are rounded to float32 once and everything else is
float64; of equally near rows the first counts, and of equal sums the first class wins. Values of k above the number of
training rows are left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from embedpipe.errors import TrainingDataError
from embedpipe.evaluation.protocols.problem import Outcome, Problem, Rows
from embedpipe.neighbours import nearest_rows, normalised

KS = (10, 20, 100, 200)
#: The k that the paper reports: "20 is usually working the best".
REPORTED = 20
TEMPERATURE = 0.07
TOP = 5


def run(problem: Problem) -> Outcome:
    """Classify with each k up to the number of training rows."""
    rows, queries = normalised(problem.X_train), normalised(problem.X_test)
    ks = [k for k in KS if k <= len(rows)]
    if REPORTED not in ks:
        raise TrainingDataError(f"dino-knn needs at least {REPORTED} training rows, got {len(rows)}")
    cosines, neighbours = nearest_rows(queries, rows, max(ks), "cosine")
    weights = np.exp(cosines / TEMPERATURE)
    labels = problem.y_train[neighbours]
    votes = np.zeros((len(queries), len(problem.classes)))
    query_rows = np.arange(len(queries))
    details: list[dict[str, Any]] = []
    predicted: dict[str, Rows] = {}
    for rank in range(max(ks)):
        votes[query_rows, labels[:, rank]] += weights[:, rank]
        if rank + 1 in ks:
            best = np.argsort(-votes, axis=1, kind="stable")[:, :TOP]
            predicted[f"k = {rank + 1}"] = best[:, 0]
            correct = best == problem.y_test[:, None]
            details.append(
                {"k": rank + 1, "top1": float(correct[:, 0].mean()), "top5": float(correct.any(axis=1).mean())}
            )
    reported = next(row for row in details if row["k"] == REPORTED)
    metrics = {"top1": reported["top1"]}
    if len(problem.classes) > TOP:
        metrics["top5"] = reported["top5"]
    else:
        for row in details:
            del row["top5"]
    settings = {
        "reported k": REPORTED,
        "k": ks,
        "k above the number of training rows": [k for k in KS if k not in ks],
        "temperature": TEMPERATURE,
        "training rows": len(rows),
    }
    return Outcome(metrics, settings, details, predicted)
