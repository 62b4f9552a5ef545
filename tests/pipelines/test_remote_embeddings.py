"""The example of a backbone that asks a remote API, against a server on loopback."""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedpipe
from embedpipe.errors import EmbedpipeError

BACKBONE = "python:pipelines.remote_embeddings.make"
ROOT = Path(__file__).parents[2]


def vector_of(text: str) -> list[float]:
    return np.random.default_rng(zlib.crc32(text.encode())).normal(size=8).tolist()


class Api(ThreadingHTTPServer):
    """Answers as OpenAI's does, in any order.

    ``answers`` are given first: a status, or None for a lost connection, or the bytes of an answer.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.answers: list[int | bytes | None] = []


class Handler(BaseHTTPRequestHandler):
    server: Api

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = self.server.answers.pop(0) if self.server.answers else 200
        if status is None:
            self.close_connection = True
            return
        content = b"slow down"
        if isinstance(status, bytes):
            status, content = 200, status
        elif status == 200:
            self.server.asked.append(body)
            self.server.keys.add(self.headers["Authorization"])
            data = [{"index": i, "embedding": vector_of(text)} for i, text in enumerate(body["input"])]
            content = json.dumps({"data": data[::-1]}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if status == 429:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[Api]:
    with Api() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def api(server: Api, monkeypatch: pytest.MonkeyPatch) -> Api:
    monkeypatch.chdir(ROOT)
    for name, value in {
        "EMBEDDING_URL": f"http://127.0.0.1:{server.server_port}/v1/embeddings",
        "EMBEDDING_MODEL": "tiny",
        "EMBEDDING_KEY": "secret-key",
        "EMBEDDING_BATCH": "4",
    }.items():
        monkeypatch.setenv(name, value)
    server.asked.clear()
    server.answers.clear()
    return server


TEXTS = [f"message {i} é" for i in range(10)]


def embed_texts(tmp_path: Path, texts: list[str] = TEXTS) -> embedpipe.FeatureStore:
    return embedpipe.embed(texts, tmp_path / "api.features", backbone=BACKBONE, modality="text")


def test_vectors_are_the_servers_in_batches(api: Api, tmp_path: Path) -> None:
    store = embed_texts(tmp_path)
    X = store.to_numpy()
    np.testing.assert_array_equal(X, np.array([vector_of(text) for text in TEXTS], np.float32))
    assert max(len(each["input"]) for each in api.asked) == 4
    assert api.keys == {"Bearer secret-key"}
    assert "secret-key" not in store.spec.to_json()


def test_busy_server_and_lost_connections_are_asked_again(api: Api, tmp_path: Path) -> None:
    api.answers = [None, 429, 429]
    assert embed_texts(tmp_path).summary.embedded == len(TEXTS)


def test_only_new_texts_are_sent(api: Api, tmp_path: Path) -> None:
    embed_texts(tmp_path)
    api.asked.clear()
    embed_texts(tmp_path, [*TEXTS, "a new one"])
    sent = [text for each in api.asked for text in each["input"]]
    assert sent[-1] == "a new one"
    assert not {*sent} & {*TEXTS}


def test_refusal_names_the_server_and_its_reason(api: Api, tmp_path: Path) -> None:
    api.answers = [401] * 3
    with pytest.raises(EmbedpipeError, match="answers 401: slow down"):
        embed_texts(tmp_path)


@pytest.mark.parametrize("answer", [b"<html>", b'{"error": "no credit"}', b'{"data": [1]}'])
def test_answer_of_another_kind_is_shown(api: Api, tmp_path: Path, answer: bytes) -> None:
    api.answers = [answer] * 3
    with pytest.raises(EmbedpipeError, match="must answer data with index and embedding, got b"):
        embed_texts(tmp_path)
