"""`evaluate` within a limit of memory: the same results from a memory map, and what is left out is said."""

from __future__ import annotations

import importlib
import re
from typing import Any

import numpy as np
import pytest
from stored import clusters, make_store

from embedpipe import FeatureStore, evaluate, make_splits
from embedpipe._utils.machine import memory
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.evaluation import differences
from embedpipe.evaluation.comparison import measuring
from embedpipe.evaluation.comparison import rows as reading
from embedpipe.evaluation.metrics import PredictedRows
from embedpipe.neighbours import duplicates, exact
from embedpipe.neighbours.duplicates import near_duplicate_groups
from embedpipe.splits import Resample, Splits
from embedpipe.splits.mapped_rows import MappedRows

comparing = importlib.import_module("embedpipe.evaluation.comparison.evaluate")

#: A limit beside what the process holds, which leaves no room for the vectors of 121 rows.
TINY = "65kB"
DIM = 8


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    X, y = clusters(121, dim=DIM, spread=1.5)
    X[[100, 101, 102]] = X[[7, 8, 9]] + 1e-4
    X[103] = X[5]
    y[[100, 101, 102, 103]] = y[[7, 8, 9, 5]]
    return make_store(tmp_path_factory.mktemp("stores") / "s", X, label=[f"class {number}" for number in y])


@pytest.fixture(autouse=True)
def without_results_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make blocks that do not divide the rows; predictions have room, and none come from the cache."""
    monkeypatch.setattr(memory, "used_memory", lambda: 0)
    monkeypatch.setattr(exact, "ROW_BLOCK", 4 * DIM * 13)
    monkeypatch.setattr(comparing, "require_room", lambda *_: None)
    monkeypatch.setattr(measuring, "read_result", lambda *_: None)


def means(result: Any) -> dict[str, dict[str, float]]:
    return {each.name: {name: float(np.mean(v)) for name, v in each.metrics.items()} for each in result.candidates}


def test_results_are_those_of_vectors_in_memory(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = ["logreg", "lda", "ridge", "centroid"]
    in_memory = evaluate(store, heads=heads, repeats=1, folds=3)
    monkeypatch.setattr(measuring, "read_finite", None)
    by_blocks = evaluate(store, heads=heads, repeats=1, folds=3, memory=TINY)
    assert by_blocks.splits_id == in_memory.splits_id
    expected = means(in_memory)
    for name, metrics in means(by_blocks).items():
        assert metrics == pytest.approx(expected[name], rel=1e-6)
    for one, other in zip(by_blocks.candidates, in_memory.candidates, strict=True):
        assert [curve.signal for curve in one.rejection] == [
            c.signal for c in other.rejection if c.signal != "distance"
        ]
        assert one.confusion == other.confusion
    assert [note for note in by_blocks.notes if note not in in_memory.notes] == [
        "rejection by distance is left out: vectors that stay on disk are not compared with all training rows"
    ]
    assert "near-duplicates together" in by_blocks.resampling


def test_copies_stay_together_where_the_search_for_near_duplicates_has_no_room(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "search_bytes", lambda count, dim: 2 * count * dim)
    monkeypatch.setattr(reading, "memory_left", lambda limit: 1000)
    result = evaluate(store, heads="ridge", memory=TINY, folds=3, repeats=1)
    notes = " ".join(result.notes)
    assert (
        "near-duplicates of 121 rows are not looked for, only exact copies: their search needs about 1.94 kB" in notes
    )
    assert "1 row is an exact copy of another: copies are never in both the training and the test rows" in notes
    assert result.resampling == "3-fold stratified cross-validation, exact copies together"


def test_heads_that_need_all_vectors_are_left_out_with_the_numbers(store: FeatureStore) -> None:
    result = evaluate(store, heads=["ridge", "knn"], memory=TINY, folds=3, repeats=1)
    assert [each.name for each in result.candidates] == ["ridge"]
    assert re.search(
        r"knn could not be measured: it needs about .* for 121 x 8, and memory is 65kB: use logreg, ridge, lda or "
        r"centroid, or give memory='1GB'",
        " ".join(result.notes),
    )
    with pytest.raises(TrainingDataError, match="knn cannot be fitted on these rows: it needs about"):
        evaluate(store, heads="knn", memory=TINY, folds=3, repeats=1)
    with pytest.raises(UsageError, match=r"dino-knn needs about .* for 121 x 8"):
        evaluate(store, protocol="dino-knn", memory=TINY)


def test_predictions_that_have_no_room_are_refused() -> None:
    splits = make_splits([str(row) for row in range(30)], np.arange(30) % 2, task="classification", repeats=2)
    measuring.require_room(4, splits, 2, "1TB")
    with pytest.raises(UsageError, match=r"predictions of 4 candidates for 60 test rows need about 19\.2 kB"):
        measuring.require_room(4, splits, 2, "1B")


def test_near_duplicates_of_mapped_rows_are_those_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    X = clusters(400, classes=90, dim=DIM, spread=0.05)[0]
    X[[300, 301]] = X[[2, 3]]
    rows = np.random.default_rng(0).permutation(400)
    mapped = MappedRows([X[rows]]).take(np.argsort(rows))
    expected = near_duplicate_groups(X, 0.9)
    assert len(np.unique(expected)) < 300
    np.testing.assert_array_equal(near_duplicate_groups(mapped, 0.9), expected)
    monkeypatch.setattr(duplicates, "ALL_PAIRS", 100)
    np.testing.assert_array_equal(near_duplicate_groups(mapped, 0.9), near_duplicate_groups(X, 0.9))


@pytest.mark.parametrize("groups", [None, np.arange(40) // 2])
def test_bootstrap_in_parts_is_that_in_one(groups: np.ndarray | None, monkeypatch: pytest.MonkeyPatch) -> None:
    test = Resample(0, 0, np.arange(20), np.arange(20, 40))
    splits = Splits([str(row) for row in range(40)], [test], "test split", groups)
    y = np.arange(20) % 3
    tested = [PredictedRows(y, np.roll(y, 1), np.eye(3)[y] * 0.7 + 0.1, n_classes=3)]
    values = {name: [value] for name, value in tested[0].metrics().items()}
    monkeypatch.setattr(differences, "MAX_WEIGHTS", 400 * 20)
    expected = differences.estimates(values, splits, tested)
    monkeypatch.setattr(differences, "MAX_WEIGHTS", 7 * 20)
    assert differences.estimates(values, splits, tested) == expected
    assert expected["macro_f1"].low < expected["macro_f1"].high
