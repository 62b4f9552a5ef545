"""A store of small pictures, its application, and a real server of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from conftest import TINY, write_photo
from starlette.testclient import TestClient

import embedpipe
from embedpipe.backbones.options import ReloadOptions
from embedpipe.embedding.options import ComputeOptions
from embedpipe.serving.app import create_app
from embedpipe.serving.listening import listen
from embedpipe.serving.viewing.findings import FoundRows
from embedpipe.serving.viewing.searching import Searcher
from embedpipe.serving.viewing.viewer import Viewer

CLASSES = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> embedpipe.FeatureStore:
    """Thirty pictures of three classes, of which one has lost its file."""
    folder = tmp_path_factory.mktemp("seen")
    for i in range(30):
        write_photo(folder / "photos" / CLASSES[i % 3] / f"{i:02d}.jpg", seed=i % 3 * 100 + i // 3, size=(60, 48))
    made = embedpipe.embed(folder / "photos", folder / "photos.features", backbone=TINY, progress=False)
    (folder / "photos" / "owl" / "29.jpg").unlink()
    return made


def make_viewer(store: Any, edit: bool = False, findings: Path | None = None) -> Viewer:
    """Return what the server shows of a store."""
    searcher = Searcher(None, ReloadOptions(trust=True), ComputeOptions())
    found = None if findings is None else FoundRows(findings)
    return Viewer(embedpipe.FeatureStore(store), searcher, edit, findings=found)


class Api:
    """Asks an application in this process, as a page does."""

    def __init__(self, app: Any) -> None:
        self.client = TestClient(app, base_url="http://127.0.0.1:8700")
        self.key = self.client.get("/api/store").json().get("key", "")

    def get(self, path: str, **values: Any) -> Any:
        return self.client.get(f"/api/{path}", params={"key": self.key, **values})

    def json(self, path: str, **values: Any) -> Any:
        answer = self.get(path, **values)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, method: str = "POST", **content: Any) -> Any:
        return self.client.request(method, f"/api/{path}", params={"key": self.key}, **content)


@pytest.fixture(scope="module")
def api(store: embedpipe.FeatureStore) -> Api:
    return Api(create_app(make_viewer(store.path)))


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve an application in a thread; yield its address."""
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listening.close()


@pytest.fixture
def copied(store: embedpipe.FeatureStore, tmp_path: Path) -> Callable[[], Path]:
    """Return a function that copies the store, for tests that change it."""
    import shutil

    return lambda: Path(shutil.copytree(store.path, tmp_path / "photos.features"))
