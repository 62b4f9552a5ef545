"""The data that the README and the pages of `docs/` work on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from skimage import data

import embedpipe

#: What pages start with, and how it is made in the folder of the examples.
MAKERS: dict[str, Callable[[Path], object]] = {
    "photos.features": lambda to: embedpipe.embed("photos", to=to),
    "photos.head": lambda to: embedpipe.fit(to.with_name("photos.features"), "logreg", to=to),
    "messages.features": lambda to: embedpipe.embed("messages.csv", to=to, text="body", label="category"),
}


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all pages and examples, as their reader has."""
    return tmp_path_factory.mktemp("cache-of-docs")


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDPIPE_CACHE", str(cache))


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos of two classes, tiles of two photographs, and messages of two kinds."""
    folder = tmp_path_factory.mktemp("examples")
    for name, photo in (("cat", data.chelsea()), ("coffee", data.coffee())):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(12):
            top, left = 20 * (i // 4), 40 * (i % 4)
            tile = Image.fromarray(photo[top : top + 240, left : left + 300])
            tile.save(folder / "photos" / name / f"{i:02d}.jpg")
    (folder / "new_photos").mkdir()
    for i, photo in enumerate((data.chelsea(), data.coffee())):
        Image.fromarray(photo[30:270, 50:350]).save(folder / "new_photos" / f"{i}.jpg")
    prizes = [f"You have won prize number {i}, call now to claim {10 * i} pounds!" for i in range(12)]
    chats = [f"Are you coming home at {i} tonight? I will cook for us." for i in range(12)]
    frame = pd.DataFrame({"body": prizes + chats, "category": ["spam"] * 12 + ["ham"] * 12})
    frame.assign(length=frame["body"].str.len()).to_csv(folder / "messages.csv", index=False)
    new = pd.DataFrame({"body": ["Claim your free prize now, call us!", "I am home, come and eat with us"]})
    new.to_csv(folder / "new_messages.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the stores that pages start with, each made when it is first asked for."""
    return tmp_path_factory.mktemp("earlier")


@pytest.fixture
def open_folder(
    tmp_path_factory: pytest.TempPathFactory, examples: Path, earlier: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[list[str]], Path]:
    """Return a function that makes the working folder of a page, with the stores that the page starts with.

    It is the same place for every page, as a store knows the folder that its photos came from.
    """

    def make(stores: list[str]) -> Path:
        folder = tmp_path_factory.getbasetemp() / "page"
        if folder.exists():
            shutil.rmtree(folder)
        shutil.copytree(examples, folder, copy_function=shutil.copy2)
        monkeypatch.chdir(folder)
        for name in stores:
            if not (earlier / name).exists():
                MAKERS[name](earlier / name)
            shutil.copytree(earlier / name, folder / name)
        return folder

    return make
