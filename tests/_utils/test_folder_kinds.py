"""Names that no file can have, and what a folder is instead of a new one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from stored import clusters, make_store

from embedpipe import FeatureStore, evaluate, fit, import_vectors, pull, repair
from embedpipe._utils.folder_kinds import check_replaceable
from embedpipe.errors import StoreNotFoundError, UsageError

VERBS: dict[str, Callable[[FeatureStore, Path], object]] = {
    "fit": lambda store, path: fit(store, "centroid", folds=0, to=path),
    "import": lambda store, path: import_vectors(store.to_numpy(), path, ids=store.ids()),
    "splits": lambda store, path: evaluate(store, heads="centroid", splits=path),
    "repair": lambda store, path: repair(path),
    "pull": lambda store, path: pull("hf://datasets/lab/photos", path),
}


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    X, y = clusters(30)
    return make_store(tmp_path / "s.features", X, label=y)


@pytest.mark.parametrize("verb", VERBS)
def test_names_of_300_letters_are_refused(store: FeatureStore, tmp_path: Path, verb: str) -> None:
    with pytest.raises(UsageError, match=r"xx.* cannot be the name of a file or folder: .*too long"):
        VERBS[verb](store, tmp_path / ("x" * 270))


def test_a_text_in_place_of_a_path_is_no_store(store: FeatureStore) -> None:
    assert not FeatureStore.exists("win a prize " * 30)
    with pytest.raises(StoreNotFoundError):
        FeatureStore("win a prize " * 30)


def test_what_is_in_place_of_a_new_folder_is_said(store: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a new or empty folder, or a head, and is a feature store: give another"):
        check_replaceable(Path(store.path), "a head")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="a new or empty folder, or a head, and is below a file: give another"):
        check_replaceable(tmp_path / "file" / "head", "a head")
    with pytest.raises(UsageError, match=r"pull needs a new or empty folder, and '.*' is a feature store"):
        pull("hf://datasets/lab/photos", store.path)
