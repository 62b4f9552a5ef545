"""`next`: typical rows first, then doubtful ones, and a simulation that compares with random choices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OutputCodeClassifier
from stored import clusters, make_store

import embedpipe
from embedpipe.cleaning.choosing import choice
from embedpipe.cleaning.choosing.choice import choose_rows, doubtful_rows, typical_rows
from embedpipe.cleaning.choosing.next_items import next as choose
from embedpipe.cleaning.choosing.simulation import simulate
from embedpipe.errors import Failure, TrainingDataError, UsageError
from embedpipe.neighbours.exact import normalised


@pytest.fixture(scope="module")
def vectors() -> tuple[Any, Any]:
    X, y = clusters(300, classes=6, dim=16, spread=0.5)
    return normalised(X - X.mean(axis=0)), y


def test_first_rows_are_of_different_kinds(vectors: tuple[Any, Any]) -> None:
    Z, y = vectors
    rows = typical_rows(Z, np.arange(300), np.empty(0, np.int64), 6, seed=0)
    assert len({*y[rows].tolist()}) == 6
    # The kinds that have labels come last.
    labelled = np.flatnonzero(y < 3)[:6]
    more = typical_rows(Z, np.setdiff1d(np.arange(300), labelled), labelled, 3, seed=0)
    assert (y[more] >= 3).sum() >= 2


def test_large_clusters_are_compared_in_blocks(vectors: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = typical_rows(vectors[0], np.arange(300), np.empty(0, np.int64), 3, seed=0)
    monkeypatch.setattr(choice, "MOST_COSINES", 1_000)
    assert typical_rows(vectors[0], np.arange(300), np.empty(0, np.int64), 3, seed=0).tolist() == at_once.tolist()


def test_doubtful_rows_lie_between_the_classes() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 4)).astype(np.float32)
    y = (X[:, 0] > 0).astype(np.int64)
    Z = normalised(X)
    rows, margins = doubtful_rows(Z, y, np.arange(60, 200), np.arange(60), 10, seed=0)
    assert np.abs(Z[rows, 0]).mean() < 0.6 * np.abs(Z[60:, 0]).mean()
    assert ((margins >= 0) & (margins <= 1)).all()


@pytest.mark.parametrize("labelled", [0, 5, 100])
@pytest.mark.parametrize("count", [1, 40, 1000])
def test_choices_are_distinct_rows_of_the_pool(vectors: tuple[Any, Any], labelled: int, count: int) -> None:
    Z, y = vectors
    known = np.arange(labelled)
    pool = np.arange(labelled, 300)
    rows, margins = choose_rows(Z, y, pool, known, count, seed=1)
    assert len({*rows.tolist()}) == len(rows) == len(margins) == min(count, len(pool))
    assert np.isin(rows, pool).all()
    assert np.isnan(margins).all() == (labelled < 100)


def test_simulation_is_better_than_random_where_classes_are_clear(vectors: tuple[Any, Any]) -> None:
    gain, accuracies = simulate(*vectors, seed=0)
    assert gain is not None
    assert gain.low <= gain.value <= gain.high
    assert list(accuracies) == [24, 48, 96]
    assert all(0.5 < value <= 1 for pair in accuracies.values() for value in pair)
    assert gain.value == pytest.approx(np.mean([ours - random for ours, random in accuracies.values()]))


def test_store_without_labels_has_a_cold_start(tmp_path: Path) -> None:
    X, _ = clusters(60, classes=5)
    store = make_store(tmp_path / "store", X)
    items = choose(store, count=5, progress=False)
    assert items.table["reason"].to_pylist() == ["typical"] * 5
    assert (items.labelled, items.unlabelled, items.gain) == (0, 60, None)
    assert any("200 labelled rows are needed, and there are 0" in note for note in items.notes)


def test_rows_with_a_label_are_not_chosen_again(tmp_path: Path) -> None:
    X, y = clusters(120)
    labels = [f"class {number}" if row % 2 else None for row, number in enumerate(y)]
    store = make_store(tmp_path / "store", X, label=labels)
    items = choose(store, count=10, progress=False, skip_simulation=True)
    assert {int(id.removeprefix("row-")) % 2 for id in items.table["id"].to_pylist()} == {0}
    assert items.table["reason"].to_pylist() == ["doubtful"] * 10
    assert items.notes == []
    assert embedpipe.FeatureStore(store.path).version == store.version


def test_a_head_says_what_is_doubtful_where_no_row_has_a_label(tmp_path: Path) -> None:
    X, y = clusters(160, classes=2, spread=1.5)
    labels = [f"class {number}" for number in y]
    learned = make_store(tmp_path / "learned", X[:80], label=labels[:80])
    head = embedpipe.fit(learned, "logreg", to=tmp_path / "head", folds=0, progress=False)
    new = make_store(tmp_path / "new", X[80:])
    items = choose(new, head=tmp_path / "head", count=8, progress=False)
    assert items.table["reason"].to_pylist() == ["doubtful"] * 8
    margins = dict(zip(*(head.predict(new)[name].to_pylist() for name in ("id", "margin")), strict=True))
    assert [margins[row["id"]] for row in items.table.to_pylist()] == pytest.approx(items.table["margin"].to_pylist())
    assert np.mean(items.table["margin"]) < np.mean([*margins.values()])
    assert items.notes == []
    numbers = make_store(tmp_path / "numbers", X, label=np.linspace(0.5, 1, 160).tolist())
    of_numbers = embedpipe.fit(numbers, "ridge", folds=0, progress=False)
    with pytest.raises(UsageError, match="head must predict one class of each item, got one for regression"):
        choose(new, head=of_numbers)


def test_rows_that_a_head_cannot_predict_are_not_chosen(tmp_path: Path) -> None:
    X, y = clusters(60)
    learned = make_store(tmp_path / "learned", X, label=[f"class {number}" for number in y])
    head = embedpipe.fit(learned, "logreg", folds=0, progress=False)
    new = make_store(tmp_path / "new", X[:10])
    failures = [Failure(f"row-{row:03d}", None, "decode", "ValueError", "torn") for row in range(10)]
    new.failures_table.record(failures[:4], "made up")
    items = choose(new, head=head, count=10, progress=False)
    assert sorted(items.table["id"].to_pylist()) == [f"row-{row:03d}" for row in range(4, 10)]
    assert items.notes == ["rows that failed when they were embedded again are left out: 4"]
    without_scores = OutputCodeClassifier(LogisticRegression(), random_state=0)
    with pytest.raises(UsageError, match="head must give its classes probabilities or scores"):
        choose(new, head=embedpipe.fit(learned, without_scores, folds=0, progress=False))
    labelled = make_store(tmp_path / "labelled", X[:10], label=[None] * 4 + ["class 1"] * 6)
    labelled.failures_table.record(failures[:4], "made up")
    with pytest.raises(UsageError, match="none of the 4 rows could be predicted: embed them again"):
        choose(labelled, head=head)


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    X, y = clusters(30)
    store = make_store(tmp_path / "store", X, label=[f"class {number}" for number in y])
    with pytest.raises(UsageError, match="some rows must have no label, and all 30"):
        choose(store)
    with pytest.raises(UsageError, match="count must be >= 1, got 0"):
        choose(store, count=0)
    numbers = make_store(tmp_path / "numbers", X, label=[None, *np.linspace(0.5, 1, 29)])
    with pytest.raises(TrainingDataError, match="labels must be classes"):
        choose(numbers)


def test_equal_gains_are_no_certainty() -> None:
    X, _ = clusters(220)
    gain, simulated = simulate(normalised(X), np.zeros(220, np.int64), seed=0)
    assert gain is not None
    assert gain.low < gain.value == 0 < gain.high
    assert set(simulated.values()) == {(1.0, 1.0)}


def test_copies_are_chosen_without_a_warning() -> None:
    Z = np.tile(np.array([[1, 0]], np.float32), (60, 1))
    for labelled in (0, 40):
        rows, _ = choose_rows(Z, np.arange(60) % 2, np.arange(labelled, 60), np.arange(labelled), 5, seed=0)
        assert len({*rows.tolist()}) == 5
