"""`evaluate` in cases that could mislead: stale results, heads that change inputs or fail, few rows, saved splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pytest
from command import run
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from stored import clusters, make_store

from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.evaluation import evaluate

ONCE: dict[str, Any] = {"folds": 3, "repeats": 1, "near_duplicates": "off", "progress": False}


class Broken(GaussianNB):  # type: ignore[misc]
    """Fails when it is fitted."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        raise RuntimeError("out of order")


class Negative(GaussianNB):  # type: ignore[misc]
    """Returns negative values instead of probabilities."""

    def predict_proba(self, X: Any) -> npt.NDArray[Any]:
        return super().predict_proba(X) * 3 - 1


def names(y: npt.NDArray[Any]) -> list[str]:
    return [f"class {number}" for number in y]


def test_same_positions_of_other_rows_are_measured_again(tmp_path: Path) -> None:
    X, y = clusters(100, 2, spread=2.0)
    first: list[str | None] = [*names(y)]
    second = [*first]
    first[:20], second[40:60] = [None] * 20, [None] * 20
    store = make_store(tmp_path / "store", X, label=first, other=second)
    evaluate(store, heads=["knn"], label="label", **ONCE)
    again = evaluate(store, heads=["knn"], label="other", **ONCE)
    fresh = evaluate(make_store(tmp_path / "fresh", X, other=second), heads=["knn"], label="other", **ONCE)
    assert again.best.metrics == fresh.best.metrics
    assert set(again.predictions["id"].to_pylist()) == {f"row-{i:03d}" for i in range(100) if not 40 <= i < 60}


def test_head_that_works_in_place_does_not_affect_others(tmp_path: Path) -> None:
    X, y = clusters(90, 2, spread=1.5)
    split = ["test" if i >= 60 else "train" for i in range(90)]  # rows that follow one another are a view
    store = make_store(tmp_path / "store", X + 5, label=names(y), split=split)
    in_place = make_pipeline(StandardScaler(copy=False), LogisticRegression())
    result = evaluate(store, heads=[in_place, "lda"], **ONCE)
    alone = evaluate(make_store(tmp_path / "alone", X + 5, label=names(y), split=split), heads=["lda"], **ONCE)
    lda = next(each for each in result.candidates if each.name == "lda")
    assert lda.metrics == alone.best.metrics


@pytest.mark.parametrize(
    ("head", "why"), [(Broken(), "RuntimeError: out of order"), (Negative(), "must return probabilities")]
)
def test_failed_head_is_reported_and_others_are_measured(tmp_path: Path, head: Any, why: str) -> None:
    X, y = clusters(60, 2)
    store = make_store(tmp_path / "store", X, label=names(y))
    result = evaluate(store, heads=[head, "centroid"], **ONCE)
    assert [each.name for each in result.candidates] == ["centroid"]
    assert why in result.failed[type(head).__name__]
    assert any(why in note for note in result.notes)
    with pytest.raises(TrainingDataError, match=why):
        evaluate(store, heads=[head], **ONCE)


def test_exit_code_is_3_if_a_head_fails(tmp_path: Path) -> None:
    X, _ = clusters(40, 3)
    store = make_store(tmp_path / "store", X[:, :2], label=np.linspace(0.5, 9, 40).tolist())
    assert run("evaluate", store.path, "--heads", "ridge", "--folds", 3, "--repeats", 1, "-q").exit_code == 0
    few = make_store(tmp_path / "few", X[:6], label=names(np.arange(6) % 2))
    result = run(
        "evaluate", few.path, "--heads", "centroid,lda", "--folds", 3, "--repeats", 1, "--near-duplicates", "off", "-q"
    )
    assert result.exit_code in (0, 3)
    assert (result.exit_code == 3) == ("lda" in result.stderr)


def test_few_rows_leave_an_accuracy_uncertain(tmp_path: Path) -> None:
    X, y = clusters(30, 2, spread=0.01)
    result = evaluate(make_store(tmp_path / "store", X, label=names(y)), heads=["centroid", "lda"], **ONCE)
    for each in result.candidates:
        estimate = each.estimates["accuracy"]
        assert estimate.value == 1
        assert 0.8 < estimate.low < 0.99
        assert estimate.high == 1
    assert result.candidates[1].difference is not None
    assert result.candidates[1].difference.verdict == "undecided"


def test_saved_splits_must_keep_groups_together(tmp_path: Path) -> None:
    X, y = clusters(60, 2)
    store = make_store(tmp_path / "store", X, label=names(y), patient=[f"p{i // 4}" for i in range(60)])
    splits = str(tmp_path / "splits.parquet")
    evaluate(store, heads=["centroid"], splits=splits, **ONCE)
    with pytest.raises(UsageError, match="splits must keep rows of one 'patient' together"):
        evaluate(store, heads=["centroid"], splits=splits, group="patient", **ONCE)
    other = str(tmp_path / "other.parquet")
    first = evaluate(store, heads=["centroid"], splits=other, group="patient", **ONCE)
    again = evaluate(store, heads=["centroid"], splits=other, group="patient", **{**ONCE, "folds": 5})
    assert again.splits_id == first.splits_id
    assert any("splits are those of" in note for note in again.notes)


def test_false_findings_among_many_equal_heads_are_rare() -> None:
    """Among many equally good heads on one test set, the best is rarely called better than another."""
    from embedpipe.evaluation.differences import differences
    from embedpipe.evaluation.metrics import PredictedRows
    from embedpipe.splits.make import Resample, Splits

    rng = np.random.default_rng(0)
    rows, heads, wrongly = 400, 12, 0
    resample = Resample(0, 0, np.arange(rows, rows + 10), np.arange(rows))
    splits = Splits([f"{i}" for i in range(rows + 10)], [resample], "test split")
    for _ in range(100):
        right = rng.random((heads, rows)) < 0.8
        order = np.argsort(-right.mean(axis=1), kind="stable")
        answers = [[PredictedRows(np.ones(rows, np.int64), right[i].astype(np.int64), n_classes=2)] for i in order]
        values = [[float(right[i].mean())] for i in order]
        result = differences("accuracy", True, 0.0, splits, values, answers)
        wrongly += any(each.verdict == "worse" for each in result)
    assert wrongly <= 8
