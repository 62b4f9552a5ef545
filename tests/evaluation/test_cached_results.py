"""Cached results run no code, are never damaged ones, and not those of other code or versions."""

from __future__ import annotations

import errno
import io
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pytest
from sklearn.neighbors import NearestCentroid
from stored import clusters, make_store

from embedpipe import FeatureStore
from embedpipe._utils.checksums import DIGITS, checksum
from embedpipe.estimators import FaissKNNClassifier
from embedpipe.evaluation import evaluate
from embedpipe.evaluation.comparison import cached_results
from embedpipe.heads.registry import HEADS
from embedpipe.store.schema import vector_column

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


class SeveralCs(NearestCentroid):  # type: ignore[misc]
    """Has a C for each class, as LogisticRegressionCV has."""

    def fit(self, X: Any, y: Any) -> Self:
        super().fit(X, y)
        self.C_ = np.linspace(0.1, 1, len(self.classes_))
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


def test_same_version_of_a_restored_store_is_measured_again(tmp_path: Path) -> None:
    """A backup that is put back, or a repaired store, has other vectors in a version that was measured before."""
    X, y = clusters(60)
    path, backup = tmp_path / "store", tmp_path / "backup"
    store = make_store(path, X, label=y)
    shutil.copytree(path, backup)
    accuracy, versions = [], []
    for vectors in (np.random.default_rng(0).normal(size=X.shape).astype(np.float32), X * 2):
        rows = store.to_arrow(["id", "source_root", "label"])
        hashes = pa.array([f"{i + 60:064x}" for i in range(60)])  # other contents than before
        rows = rows.append_column("content_hash", hashes)
        store.write(rows.append_column("embedding", vector_column(vectors)))
        result = evaluate(path, heads=["centroid"], folds=3, repeats=1, near_duplicates="off", progress=False)
        accuracy.append(result.to_dict()["candidates"][0]["metrics"]["accuracy"])
        versions.append(FeatureStore(path).version)
        shutil.rmtree(path)
        shutil.copytree(backup, path)
        store = FeatureStore(path)
    assert versions[0] == versions[1]
    assert accuracy[0] != accuracy[1]


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
    before, version = count_fits(), cached_results.version
    monkeypatch.setattr(cached_results, "version", lambda name: "0" if name == distribution else version(name))
    assert count_fits() > before


def test_another_version_of_embedpipe_is_measured_again(
    count_fits: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = count_fits()
    monkeypatch.setattr(cached_results, "__version__", "0")
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


@pytest.fixture
def files(count_fits: Callable[[], int], tmp_path: Path) -> list[Path]:
    """The files of an evaluation's cached results."""
    count_fits()
    return sorted((tmp_path / "cache" / "evaluations").iterdir())


def test_cached_results_are_arrays_and_json(files: list[Path]) -> None:
    for file in files:
        with np.load(io.BytesIO(file.read_bytes()[DIGITS:]), allow_pickle=False) as archive:
            assert all(archive[name].dtype.kind in "ifu" for name in archive.files)


def test_pickle_in_the_cache_is_not_run(files: list[Path], count_fits: Callable[[], int], tmp_path: Path) -> None:
    """A foreign file with a right checksum is measured again; nothing in it runs."""
    before, mark = count_fits(), tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (mark,)

    buffer = io.BytesIO()
    np.savez(buffer, predicted=np.array([Bomb()], object), about=np.frombuffer(b"{}", np.uint8))
    for number, file in enumerate(files):
        body = pickle.dumps(Bomb()) if number % 2 else buffer.getvalue()
        file.write_bytes(checksum(body).encode() + body)
    assert count_fits() == 2 * before
    assert not mark.exists()


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other shape"])
def test_damaged_result_is_measured_again(files: list[Path], count_fits: Callable[[], int], damage: str) -> None:
    before = count_fits()
    data = bytearray(files[0].read_bytes())
    if damage == "other shape":
        # near-duplicates stay together, so folds are of about 20 rows; which of them is first depends on the code
        result = next(filter(None, (cached_results.read_result(files[0], rows, 3) for rows in range(15, 26))))
        cached_results.write_result(files[0], replace(result, predicted=result.predicted[:-1]))
    else:
        data[len(data) // 2] ^= 1
        files[0].write_bytes({"flip": bytes(data), "cut": bytes(data[:-9]), "empty": b""}[damage])
    again = before + before // len(files)
    assert count_fits() == again
    assert count_fits() == again


def test_results_are_the_same_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the cache folder cannot be written, the evaluation goes on, and one warning says so."""
    X, y = clusters(60)
    store = make_store(tmp_path / "store", X, label=y)
    expected = evaluate(store, heads=["knn", "lda"], folds=3, repeats=1, progress=False).predictions
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("EMBEDPIPE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="nothing is cached") as caught:
        result = evaluate(store, heads=["knn", "lda"], folds=3, repeats=1, progress=False)
    assert result.predictions.equals(expected)
    assert len(caught) == 1


def test_measuring_leaves_the_warning_filters_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filters are the process's. Threads of scikit-learn's that set them undo each other's, and it warns of that."""

    def refuse() -> None:
        raise AssertionError("warning filters were reset in a thread")

    X, y = clusters(60)
    store = make_store(tmp_path / "store", X, label=y)
    monkeypatch.setattr("warnings.resetwarnings", refuse)
    heads = [name for name, tasks in HEADS.items() if "classification" in tasks and name != "auto"]
    evaluation = evaluate(store, heads=heads, folds=2, repeats=1, progress=False)
    assert evaluation.failed == {}
    assert {candidate.name for candidate in evaluation.candidates} == {*heads}


def test_full_disk_does_not_fail_the_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    X, y = clusters(60)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        assert accuracy(make_store(tmp_path / "store", X, label=y)) > 0.5


def test_chosen_arrays_are_read_as_they_were_measured(tmp_path: Path) -> None:
    X, y = clusters(60)
    store = make_store(tmp_path / "store", X, label=y)
    head = SeveralCs()
    first, again = (
        evaluate(store, heads=[head], folds=3, repeats=1, progress=False).to_dict()["candidates"] for _ in range(2)
    )
    assert first == again
