"""A store given for a head, a head for a store, a run's folder for either: messages name what was given."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any, NoReturn

import pytest
from command import run
from PIL import Image
from stored import clusters, make_store

from embedpipe.embedding import embed
from embedpipe.errors import UsageError
from embedpipe.store import FeatureStore


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, a head, and folders that look like those of runs."""
    folder = tmp_path_factory.mktemp("kinds")
    X, y = clusters(30)
    make_store(folder / "photos.features", X, label=[f"class {number}" for number in y])
    run("fit", folder / "photos.features", "--head", "centroid", "--to", folder / "photos.head")
    for name in ("run.json", "cells/a", "other/readme", "tuned/backbone.safetensors", "tuned/result.json"):
        path = folder / ("benchmark" if name[:2] in ("ru", "ce") else "") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    Image.new("RGB", (8, 8)).save(folder / "photo.png")
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("predict photos.features other --to x.csv", "'photos.features' is not a head, but a feature store"),
        ("predict photos.features photos.features --to x.csv", "is not a head, but a feature store"),
        ("predict tuned other --to x.csv", "'tuned' is not a head, but the folder of a fine-tuning run"),
        ("predict other other --to x.csv", "'other' is not a head, but a folder of other files"),
        (
            "predict nowhere other --to x.csv",
            "there is no head at 'nowhere': `embedpipe fit STORE --to FOLDER`",
        ),
        ("info photos.head", "there is no feature store at 'photos.head', but a head: `embedpipe predict` takes it"),
        ("repair photos.head", "but a head: `embedpipe predict` takes it, and `embedpipe.load_head` shows it"),
        ("fit photos.head", "there is no feature store at 'photos.head', but a head"),
        ("search photos.head photo.jpg", "there is no feature store at 'photos.head', but a head"),
        ("evaluate photos.features photos.head", "there is no feature store at 'photos.head', but a head"),
        ("evaluate benchmark", "there is no feature store at 'benchmark', but the folder of a benchmark"),
        ("verify other", "there is no feature store at 'other', but a folder of other files"),
        ("embed photos.features --to new", "'photos.features' is a feature store"),
        ("embed photos.head --to new", "'photos.head' is a head"),
        ("clusters no.features --to clusters.html", "got 'clusters.html'. A page: --page clusters.html"),
        ("evaluate no.features --table results.html", "got 'results.html'. A page: --page results.html"),
        ("evaluate no.features --heads ,", "--heads must have at least one name, got ','"),
        ("fit no.features --features ,", "--features must have at least one name, got ','"),
        ("embed photo.png --to photos.head", "'photos.head' holds other files and is not a feature store"),
        ("fit photos.features --to photos.features", "photos.features' must be a new or empty folder, or a head"),
    ],
)
def test_message_names_what_was_given(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    monkeypatch.chdir(folder)
    backbone = ["--backbone", "timm/test_resnet", "--weights", "none"] if arguments.startswith("embed") else []
    result = run(*arguments.split(), *backbone)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not (folder / "x.csv").exists()


def test_empty_source_is_not_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("photo.png")
    result = run("embed", "", "--to", "store")
    assert result.exit_code == 2
    assert "a source must not be an empty string" in result.stderr
    assert not Path("store").exists()


def test_backslash_in_the_name_of_a_store_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("photo.png")
    with pytest.raises(UsageError, match="must not hold a backslash"):
        embed("photo.png", "a\\b", backbone="timm/test_resnet", weights="none", progress=False)
    assert not Path("a\\b").exists()


def test_id_that_is_another_file_here_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store(tmp_path / "store", clusters(6)[0])
    monkeypatch.chdir(tmp_path)
    assert "another file here" not in run("search", "store", "row-000").stderr
    Path("row-000").touch()
    result = run("search", "store", "row-000")
    assert result.exit_code == 0
    assert "'row-000' is an id, and another file here: searching by id" in result.stderr


class Full:
    """Writes nothing: the disk is full."""

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device", "head.skops")


@pytest.mark.parametrize("head", ["centroid", "knn"])
def test_full_disk_is_one_message_that_names_the_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    if head == "knn":
        import faiss

        def full(*_: Any) -> NoReturn:
            raise RuntimeError("Error in virtual faiss::FileIOWriter: No space left on device")

        monkeypatch.setattr(faiss, "write_index", full)
    else:
        monkeypatch.setattr("embedpipe.heads.saving.write_estimator", Full())
    result = run("fit", folder / "photos.features", "--head", head, "--to", tmp_path / "head")
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    assert ("neighbours.faiss" if head == "knn" else "head.skops") in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "head").exists()


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied", "/cache/x"), MemoryError("4 GB")])
@pytest.mark.parametrize("verb", ["fit", "evaluate"])
def test_errors_of_the_machine_are_not_those_of_the_rows(
    folder: Path, monkeypatch: pytest.MonkeyPatch, verb: str, error: Exception
) -> None:
    def fails(*_: Any, **__: Any) -> NoReturn:
        raise error

    place = "heads.fit.measure" if verb == "fit" else "evaluation.comparison.measuring.measure_all"
    monkeypatch.setattr(f"embedpipe.{place}", fails)
    result = run(verb, folder / "photos.features", "--head" if verb == "fit" else "--heads", "centroid")
    assert result.exit_code == 1
    assert "learn from these rows" not in result.stderr
    assert "cannot be fitted" not in result.stderr
    assert FeatureStore.exists(folder / "photos.features")
