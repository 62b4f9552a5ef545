"""Fixtures that several test files share."""

from __future__ import annotations

import gc
import importlib
import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from page import Browser, open_browser
from PIL import Image

# The same examples in each run: what is drawn anew is drawn with --hypothesis-profile=random.
# How fast examples are drawn depends on what else the machine does.
QUIET = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("random", derandomize=False, deadline=None, suppress_health_check=QUIET)
hypothesis.settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=QUIET)
hypothesis.settings.load_profile("same")

# Processes that tests start import the same embedpipe as this one, and the modules of the tests.
_package = find_spec("embedpipe")
assert _package
assert _package.origin
_places = (str(Path(__file__).parent), str(Path(_package.origin).parents[1]), os.environ.get("PYTHONPATH"))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, _places))

#: What the tests import anyway. A worker imports it before coverage starts, as tracing makes it three times as long.
LIBRARIES = (
    "deltalake",
    "faiss",
    "gensim.models",
    "matplotlib.pyplot",
    "nncf",
    "open_clip",
    "openvino",
    "pandas",
    "peft",
    "polars",
    "scipy.stats",
    "sentence_transformers",
    "skimage",
    "sklearn.ensemble",
    "sklearn.manifold",
    "sklearn.utils.estimator_checks",
    "skops.io",
    "timm",
    "torchvision",
    "transformers",
)
if "PYTEST_XDIST_WORKER" in os.environ:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for library in LIBRARIES:
            with suppress(ImportError):  # an extra that is not installed
                importlib.import_module(library)
    gc.disable()  # until all tests are collected

TINY = "python:tiny_backbone.make"
#: The longest first, so that all workers end at about the same time.
LONGEST = ("test_blocks.py", "test_interruptions.py", "test_embed_texts.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the files that take longest at the front."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_collection_finish() -> None:
    """Spare the garbage collector the millions of objects of modules and tests, which live until the end."""
    gc.enable()
    gc.freeze()


def write_photo(path: Path, seed: int, size: tuple[int, int] = (40, 36)) -> Path:
    """Write a small smooth random picture, the same for the same seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(path, quality=92)
    return path


@pytest.fixture
def make_photos(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes a class-folder data set and returns its folder."""

    def make(count: int = 12, classes: tuple[str, ...] = ("cat", "dog", "owl"), name: str = "photos") -> Path:
        root = tmp_path / name
        for i in range(count):
            write_photo(root / classes[i % len(classes)] / f"{i:04d}.jpg", seed=i)
        return root

    return make


@pytest.fixture
def photos(make_photos: Callable[..., Path]) -> Path:
    """Twelve pictures in three class folders."""
    return make_photos()


@pytest.fixture(scope="session")
def cache_paths(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Paths where nothing is yet. `mktemp` would list the folders of all tests before for each new one."""
    folder = tmp_path_factory.mktemp("caches")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture(scope="session", autouse=True)
def _cache_of_wide_fixtures(cache_paths: Iterator[Path]) -> Iterator[None]:
    """Keep what fixtures of a module or session make out of the user's cache folder, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBEDPIPE_CACHE", str(next(cache_paths)))
        yield


@pytest.fixture(autouse=True)
def _own_cache(cache_paths: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tests out of the user's cache folder, and apart from each other."""
    monkeypatch.setenv("EMBEDPIPE_CACHE", str(next(cache_paths)))


@pytest.fixture(autouse=True)
def _no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk: thousands of small files are written, and the power does not fail."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """Headless Chromium; without it the test is skipped."""
    with open_browser(tmp_path / "profile") as opened:
        yield opened
