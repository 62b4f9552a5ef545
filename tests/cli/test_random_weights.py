"""Every verb that uses vectors of random weights says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import run
from conftest import TINY, write_photo

NOTE = "RANDOM weights (--weights none), which have learned nothing: timm/test_resnet"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, a store of random weights and a head on it."""
    folder = tmp_path_factory.mktemp("random")
    for i in range(30):
        write_photo(folder / "photos" / ("cat", "dog")[i % 2] / f"{i:04d}.jpg", seed=i)
    shown = run(
        "embed", folder / "photos", "--to", folder / "store", "--backbone", "timm/test_resnet", "--weights", "none"
    )
    assert NOTE in shown.output
    assert NOTE in run("fit", folder / "store", "--head", "centroid", "--to", folder / "head").output
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "head", "store", "--to", "a.csv"),
        ("predict", "head", "photos/cat/0000.jpg", "--to", "b.csv"),
        ("search", "store", "cat/0000.jpg"),
        ("verify", "store", "--sample", "2"),
        ("map", "store", "--to", "map.png"),
        ("evaluate", "store", "--heads", "centroid", "--repeats", "1"),
        ("evaluate", "store", "--protocol", "dino-knn"),
        ("rank", "store", "--sample", "20"),
        ("info", "store"),
        pytest.param(("advise", "store"), marks=pytest.mark.long),
        ("finetune", "store", "--to", "run", "--epochs", "1"),
    ],
    ids=" ".join,
)
def test_random_weights_are_reported(folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    monkeypatch.chdir(folder)
    shown = run(*arguments)
    assert shown.exit_code == 0, shown.output
    assert (
        "timm/test_resnet.r160_in1k (random weights)" in shown.output
        if arguments[0] == "info"
        else NOTE in shown.output
    )


def test_pretrained_weights_are_not_called_random(photos: Path, tmp_path: Path) -> None:
    assert "RANDOM" not in run("embed", photos, "--to", tmp_path / "store", "--backbone", TINY).output
