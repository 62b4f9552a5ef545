"""A small head that was exported once."""

from __future__ import annotations

import pytest
from conftest import TINY, write_photo
from exported_script import Exported

import embedpipe


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("exported")
    for i in range(24):
        part = "test" if i % 3 == 0 else "train"
        write_photo(folder / "photos" / part / ("cat", "dog")[i % 2] / f"{i:02d}.jpg", seed=i)
    store = embedpipe.embed(folder / "photos", to=folder / "photos.features", backbone=TINY)
    head = embedpipe.fit(store, "logreg", to=folder / "photos.head")
    return Exported(folder / "photos", head, embedpipe.export(head, folder / "photos.model", trust=True))
