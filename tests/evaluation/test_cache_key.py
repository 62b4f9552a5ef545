"""Cached results are not reused after a change of the code or of the versions that decide them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid
from stored import clusters, make_store

from embedpipe import FeatureStore
from embedpipe.estimators import FaissKNNClassifier
from embedpipe.evaluation import evaluate
from embedpipe.evaluation.comparison import cache_key

#: Files and folders of embedpipe whose code decides the result of a head.
DECIDING = ["estimators", "neighbours", "splits", "heads", "measuring.py"]


class CountingFits(NearestCentroid):  # type: ignore[misc]
    """Appends to a file whenever it is fitted."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = file

    def fit(self, X: Any, y: Any) -> Self:
        with Path(self.file).open("a") as file:
            file.write("x")
        super().fit(X, y)
        return self


@pytest.fixture
def count_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return a function that evaluates a head and returns how often it has been fitted so far."""
    monkeypatch.setenv("EMBEDPIPE_CACHE", str(tmp_path / "cache"))
    X, y = clusters(60)
    store, file = make_store(tmp_path / "store", X, label=y), tmp_path / "fits"

    def evaluate_and_count() -> int:
        evaluate(store, heads=[CountingFits(str(file))], folds=3, repeats=1, progress=False)
        return len(file.read_text())

    return evaluate_and_count


def test_unchanged_code_is_not_measured_again(count_fits: Callable[[], int]) -> None:
    assert count_fits() == count_fits()


@pytest.mark.parametrize("part", DECIDING)
def test_changed_code_is_measured_again(
    count_fits: Callable[[], int], monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    before, read_bytes = count_fits(), Path.read_bytes

    def changed(path: Path) -> bytes:
        return read_bytes(path) + b"#" * (part in path.parts)

    monkeypatch.setattr(Path, "read_bytes", changed)
    assert count_fits() > before


@pytest.mark.parametrize("distribution", ["faiss-cpu", "numpy", "scikit-learn", "scipy"])
def test_another_version_of_a_library_is_measured_again(
    count_fits: Callable[[], int], monkeypatch: pytest.MonkeyPatch, distribution: str
) -> None:
    before, version = count_fits(), cache_key.version
    monkeypatch.setattr(cache_key, "version", lambda name: "0" if name == distribution else version(name))
    assert count_fits() > before


def test_another_version_of_embedpipe_is_measured_again(
    count_fits: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = count_fits()
    monkeypatch.setattr(cache_key, "__version__", "0")
    assert count_fits() > before


def test_a_changed_search_gives_other_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search is changed to find the farthest rows; the metrics must be those of the changed search."""
    monkeypatch.setenv("EMBEDPIPE_CACHE", str(tmp_path / "cache"))
    X, y = clusters(60)
    store = make_store(tmp_path / "store", X, label=y)
    before = accuracy(store)
    predict, read_bytes = FaissKNNClassifier.predict, Path.read_bytes
    monkeypatch.setattr(FaissKNNClassifier, "predict", lambda self, X: np.roll(predict(self, X), 1))
    monkeypatch.setattr(Path, "read_bytes", lambda path: read_bytes(path) + b"#" * (path.name == "exact.py"))
    assert accuracy(store) < before


def accuracy(store: FeatureStore) -> float:
    return evaluate(store, heads=["knn"], folds=3, repeats=1, progress=False).best.estimates["accuracy"].value
