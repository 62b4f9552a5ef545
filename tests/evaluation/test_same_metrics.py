"""`fit` and `evaluate` give one head the same metrics on the same rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stored import clusters, make_store

from embedpipe import fit
from embedpipe.evaluation import evaluate

NAMES = np.array(["cat", "dog", "owl"])
HEADS = ["logreg", "lda", "knn", "ridge", "centroid"]


@pytest.mark.parametrize("classes", [2, 3])
def test_fit_and_evaluate_give_the_same_metrics(tmp_path: Path, classes: int) -> None:
    X, y = clusters(90, classes, spread=0.5)
    y[:9:3] = (y[:9:3] + 1) % classes  # test rows that every head predicts wrongly, and most with certainty
    split = ["test" if i % 3 == 0 else "train" for i in range(len(y))]
    store = make_store(tmp_path / "store", X, label=NAMES[y].tolist(), split=split)
    evaluation = evaluate(store, heads=HEADS, near_duplicates="off", progress=False)
    assert {candidate.name for candidate in evaluation.candidates} == {*HEADS}
    rows = [row for row in evaluation.predictions.to_pylist() if row["probabilities"] is not None]
    assert min(row["probabilities"][evaluation.classes.index(row["actual"])] for row in rows) < 1e-4
    for candidate in evaluation.candidates:
        report = fit(store, head=candidate.head, progress=False).report
        shared = report.metrics.keys() & candidate.metrics.keys()
        assert shared >= {"accuracy", "balanced_accuracy", "macro_f1"}
        for name in shared:
            assert candidate.metrics[name] == pytest.approx(report.metrics[name], rel=1e-9), (candidate.name, name)
        assert evaluation.baseline["log_loss"] == pytest.approx(report.baseline["log_loss"][0], rel=1e-9)
