"""`serve`: predictions of posted items, in batches."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving.conftest import serving
from starlette.testclient import TestClient

import embedpipe
from embedpipe.backbones import reload_backbone
from embedpipe.backbones.options import ReloadOptions
from embedpipe.serving.batching import Batcher
from embedpipe.serving.guard import LOCAL
from embedpipe.serving.head_app import HeadService, Prediction, create_head_app


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
    health = client.get("/health").json()
    assert (health["status"], health["output"]) == ("ok", "probabilities")
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


def test_an_item_that_fails_does_not_fail_those_that_wait_with_it() -> None:
    started, release = threading.Event(), threading.Event()

    def run(items: list[int]) -> list[int]:
        started.set()
        release.wait(10)
        if -1 in items or len(items) > 3:  # as where a batch is too large for the memory
            raise ValueError(f"cannot run {items}")
        return items

    batches = Batcher(run, most=8)
    with ThreadPoolExecutor(10) as pool:
        first = pool.submit(batches, 0)
        started.wait(10)
        others = [pool.submit(batches, item) for item in (1, 2, -1, 4, 5, 6, 7)]
        while batches._waiting.qsize() < 7:
            pass
        release.set()
        done = {other.result() for other in others if not other.exception()}
    assert (first.result(), done) == (0, {1, 2, 4, 5, 6, 7})


def test_the_server_says_that_it_is_well_while_all_its_threads_wait(head: embedpipe.Head, store: Any) -> None:
    release, waiting = threading.Event(), []

    class Slow(HeadService):
        def predict(self, payload: Any) -> Prediction:
            waiting.append(payload)
            release.wait(30)
            return Prediction(prediction="cat")

    backbone = reload_backbone(head.spec, ReloadOptions(trust=True), "cpu", "the head")
    picture = Path(store.to_arrow(["uri"])["uri"][0].as_py()).read_bytes()
    with serving(create_head_app(Slow(head, backbone), LOCAL)) as address, ThreadPoolExecutor(60) as pool:
        post = urllib.request.Request(f"{address}api/predict", picture, {"content-type": "application/octet-stream"})
        posts = [pool.submit(urllib.request.urlopen, post, timeout=30) for _ in range(60)]
        while len(waiting) < 40:  # the threads of Starlette
            time.sleep(0.01)
        with urllib.request.urlopen(f"{address}health", timeout=5) as answer:
            assert json.load(answer)["status"] == "ok"
        release.set()
        assert {json.load(each.result())["prediction"] for each in posts} == {"cat"}
