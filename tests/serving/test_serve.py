"""`serve`: predictions of posted items, in batches."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import embedpipe
from embedpipe.backbones import reload_backbone
from embedpipe.backbones.options import ReloadOptions
from embedpipe.serving.batching import Batcher
from embedpipe.serving.guard import LOCAL
from embedpipe.serving.head_app import HeadService, create_head_app


@pytest.fixture(scope="module")
def head(store: Any) -> embedpipe.Head:
    return embedpipe.fit(store, "lda", progress=False)


@pytest.fixture(scope="module")
def client(head: embedpipe.Head) -> TestClient:
    backbone = reload_backbone(head.spec, ReloadOptions(trust=True), "cpu", "the head")
    return TestClient(create_head_app(HeadService(head, backbone), LOCAL), base_url="http://127.0.0.1:8700")


def test_predictions_are_those_of_predict(client: TestClient, head: embedpipe.Head, store: Any) -> None:
    uris = store.to_arrow(["uri"])["uri"].to_pylist()[:12]
    expected = head.predict(store, progress=False)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda uri: client.post("/api/predict", content=Path(uri).read_bytes()).json(), uris))
    assert [answer["prediction"] for answer in answers] == expected.column(2).to_pylist()[:12]
    assert np.allclose([answer["confidence"] for answer in answers], expected["confidence"].to_numpy()[:12], atol=1e-5)
    assert {*answers[0]["probabilities"]} == {"cat", "dog", "owl"}


def test_health_and_refusals(client: TestClient) -> None:
    assert client.get("/health").json()["status"] == "ok"
    for data in (b"", b"no picture"):
        answer = client.post("/api/predict", content=data)
        assert (answer.status_code, bool(answer.json()["error"])) == (400, True)
    assert client.get("/health", headers={"host": "evil.example"}).status_code == 400


def test_the_page_is_served_and_nothing_of_the_other_page(client: TestClient) -> None:
    page = client.get("/").text
    assert re.findall(r'(?:src|href)="([^"]+)"', page) == [
        "icon.svg", "style.css", "serve.js", "routes.js", "api/openapi.json",
    ]  # fmt: skip
    for name in ("icon.svg", "style.css", "serve.js", "routes.js", "dom.js", "api/openapi.json"):
        assert client.get(f"/{name}").status_code == 200
    assert client.get("/index.html").status_code == client.get("/main.js").status_code == 404
    assert "/" not in client.get("/api/openapi.json").json()["paths"]


def test_what_waits_goes_together_and_errors_reach_those_who_wait() -> None:
    sizes: list[int] = []
    release = threading.Event()

    def run(items: list[int]) -> list[int]:
        sizes.append(len(items))
        release.wait(10)
        if -1 in items:
            raise ValueError("minus one")
        return [2 * item for item in items]

    batches = Batcher(run, most=4)
    with ThreadPoolExecutor(10) as pool:
        first = pool.submit(batches, 0)
        while not sizes:
            pass
        others = [pool.submit(batches, item) for item in range(1, 8)]
        while batches._waiting.qsize() < 7:
            pass
        release.set()
        assert [first.result(), *(other.result() for other in others)] == [0, 2, 4, 6, 8, 10, 12, 14]
        assert sizes == [1, 4, 3]
        with pytest.raises(ValueError, match="minus one"):
            batches(-1)
