"""`fit` within a limit of memory: vectors stay in a memory map, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier
from stored import clusters, make_store

from embedpipe import FeatureStore, fit
from embedpipe._utils.machine import memory
from embedpipe._utils.machine.memory import parse_size
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.estimators.solvers import column_stats, logistic_loss, principal_rows
from embedpipe.heads.training import training_data, vectors
from embedpipe.heads.training.vectors import fits_memory
from embedpipe.neighbours import exact

DIM = 8
#: Columns of predictions whose last digits depend on the blocks.
NUMBERS = ["confidence", "margin", "probability_cat", "probability_dog", "probability_owl"]
#: A limit beside what the process holds, which leaves no room for the vectors of 140 rows.
TINY = "75kB"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    X, y = clusters(143, dim=DIM, spread=1.5)
    X[100] = X[7]
    label = np.array(["cat", "dog", "owl"], object)[y]
    label[[3, 50]] = None
    split = np.array(["train", "train", "validation", "test"], object)[np.arange(143) % 4]
    split[9] = "other"
    number = X @ np.arange(DIM) / 10
    return make_store(tmp_path_factory.mktemp("stores") / "s", X, label=label, split=split, number=number)


@pytest.fixture(autouse=True)
def empty_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a limit be that of what a verb adds, as tests before this one have left memory in use."""
    monkeypatch.setattr(memory, "used_memory", lambda: 0)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make blocks that do not divide the rows."""
    monkeypatch.setattr(column_stats, "BLOCK", 8 * DIM * 10)
    monkeypatch.setattr(exact, "ROW_BLOCK", 4 * DIM * 13)
    monkeypatch.setattr(logistic_loss, "BLOCK", 4 * DIM * 16)
    monkeypatch.setattr(principal_rows, "BLOCK", 4 * DIM * 11)
    monkeypatch.setattr(principal_rows, "MAX_COPY", 0)


@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("ridge", {}),
        ("ridge", {"label": "number"}),
        ("lda", {}),
        ("centroid", {}),
        ("logreg", {}),
        ("logreg", {"class_weight": "balanced"}),
        ("ridge", {"calibrate": True}),
    ],
)
def test_head_is_the_one_that_is_fitted_in_memory(
    store: FeatureStore, head: str, options: dict[str, Any], small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory = fit(store, head, **options)
    monkeypatch.setattr(training_data, "read_finite", None)
    by_blocks = fit(store, head, memory=TINY, **options)
    expected, report = in_memory.report.to_dict(), by_blocks.report.to_dict()
    assert report["metrics"].keys() == expected["metrics"].keys()
    for name, values in expected["metrics"].items():
        assert report["metrics"][name] == pytest.approx(values, rel=1e-9)
    for name in ("rows", "measured_rows", "baseline", "chosen", "confusion", "left_out", "classes", "notes"):
        assert report[name] == expected[name]
    assert by_blocks.held_out.column("id").equals(in_memory.held_out.column("id"))
    assert by_blocks.held_out.column("predicted").to_pylist() == pytest.approx(
        in_memory.held_out.column("predicted").to_pylist()
    )


@pytest.mark.parametrize("head", ["ridge", "lda", "centroid", "logreg"])
def test_folds_are_measured_from_the_map(tmp_path: Path, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = clusters(90, spread=1.5)
    store = make_store(tmp_path / "s", X, label=[f"class {number}" for number in y])
    in_memory = fit(store, head, folds=3)
    monkeypatch.setattr(training_data, "read_finite", None)
    by_blocks = fit(store, head, folds=3, memory="47kB")
    assert by_blocks.report.confusion == in_memory.report.confusion
    np.testing.assert_allclose(by_blocks.estimator.coef_, in_memory.estimator.coef_, rtol=1e-9)


@pytest.mark.parametrize("head", ["knn", "auto", KNeighborsClassifier()])
def test_head_that_needs_all_vectors_is_refused_before_they_are_read(
    store: FeatureStore, head: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "map_layers", None)
    name = head if isinstance(head, str) else type(head).__name__
    message = f"fit of {name} needs about .* for 140 x 8, and memory is 75kB: use logreg, ridge, lda or centroid, or"
    with pytest.raises(UsageError, match=message):
        fit(store, head, memory=TINY)


def test_what_fits_is_read_into_memory(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fits_memory(143, 8, "1TB")
    assert fits_memory(143, 8)
    assert not fits_memory(143, 8, TINY)
    monkeypatch.setattr(memory, "available_memory", lambda: 143 * 8 * 4)
    assert not fits_memory(143, 8)
    with pytest.raises(UsageError, match=r"and 3\.66 kB can be used: use logreg"):
        fit(store, "knn")


def test_limit_below_what_belongs_to_the_rows_is_refused(store: FeatureStore) -> None:
    message = "memory must be at least 70 kB, got 60kB: ids, labels and predictions of 140 rows take about 70 kB"
    with pytest.raises(UsageError, match=message):
        fit(store, "ridge", memory="60kB")


def test_predictions_are_those_of_vectors_in_memory(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    head = fit(store, "logreg", folds=3)
    expected = head.predict(store)
    monkeypatch.setattr(vectors, "fits_memory", lambda *_: False)
    monkeypatch.setattr(exact, "ROW_BLOCK", 4 * DIM * 13)
    got = head.predict(store)
    assert got.drop_columns(NUMBERS).equals(expected.drop_columns(NUMBERS))
    for name in NUMBERS:
        np.testing.assert_allclose(got.column(name).to_numpy(), expected.column(name).to_numpy(), rtol=1e-9)


def test_infinite_vector_in_a_map_is_named(tmp_path: Path, small_blocks: None) -> None:
    X, y = clusters(40, dim=DIM)
    X[33, 2] = np.inf
    store = make_store(tmp_path / "s", X, label=[f"class {number}" for number in y])
    with pytest.raises(TrainingDataError, match=r"1 of .* not, such as that of 'row-033'"):
        fit(store, "ridge", memory="21kB")


@pytest.mark.parametrize(
    ("text", "size"), [("2GiB", 2 << 30), ("500MB", 500_000_000), ("1.5 kib", 1536), ("7", 7), ("7B", 7)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size("memory", text) == size


@pytest.mark.parametrize("text", ["much", "0", "-1GB", "2 GiX", "iB", "", "9" * 400])
def test_sizes_must_have_a_number_and_a_unit(store: FeatureStore, text: str) -> None:
    with pytest.raises(UsageError, match="memory must be a size such as 500MB, 2GB or 2GiB, got"):
        fit(store, "ridge", memory=text)
