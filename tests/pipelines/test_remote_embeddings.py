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
from embedpipe.errors import BackboneError, EmbedpipeError, UnreachableError, UsageError
from pipelines import remote_embeddings

BACKBONE = "python:pipelines.remote_embeddings.make"
ROOT = Path(__file__).parents[2]


def vector_of(text: str) -> list[float]:
    return np.random.default_rng(zlib.crc32(text.encode())).normal(size=8).tolist()


def data_of(*rows: tuple[int, Any]) -> bytes:
    return json.dumps({"data": [{"index": index, "embedding": vector} for index, vector in rows]}).encode()


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
        if "too long" in body["input"]:
            status = 400
        content = f"slow down, {self.headers['Authorization']}".encode()
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
            self.send_header("Retry-After", "0.5")
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


def make(monkeypatch: pytest.MonkeyPatch, retries: int = 0) -> Any:
    monkeypatch.setattr(remote_embeddings, "RETRIES", remote_embeddings.RETRIES.new(total=retries, backoff_factor=0))
    return remote_embeddings.make().module


def batch_of(*texts: str) -> dict[str, Any]:
    codes = remote_embeddings.Bytes()
    return codes.collate([codes.split(text, whole=True).pieces[0] for text in texts])


def embed_texts(tmp_path: Path, texts: list[str] = TEXTS) -> embedpipe.FeatureStore:
    return embedpipe.embed(texts, tmp_path / "api.features", backbone=BACKBONE, modality="text")


def test_vectors_are_the_servers_in_batches(api: Api, tmp_path: Path) -> None:
    store = embed_texts(tmp_path)
    X = store.to_numpy()
    np.testing.assert_array_equal(X, np.array([vector_of(text) for text in TEXTS], np.float32))
    assert [len(each["input"]) for each in api.asked[-3:]] == [4, 4, 2]
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
    with pytest.raises(EmbedpipeError, match=r"answers 401: .slow down, Bearer \*\*\*"):
        embed_texts(tmp_path)


def test_refused_text_is_a_failed_item_and_the_others_are_kept(api: Api, tmp_path: Path) -> None:
    store = embed_texts(tmp_path, [*TEXTS, "too long"])
    assert (store.summary.embedded, store.summary.failed) == (len(TEXTS), 1)
    (failure,) = store.failures().to_pylist()
    assert "answers 400" in failure["message"]
    assert "secret-key" not in failure["message"]


def test_busy_server_is_a_temporary_error(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = make(monkeypatch, retries=1)
    api.answers = [503, 503]
    with pytest.raises(UnreachableError, match="answers 503"):
        module(batch_of("a"))
    api.answers = [None, None]
    with pytest.raises(UnreachableError, match="cannot be reached"):
        module(batch_of("a"))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"<html>", "one index and embedding for each of 2 texts, of 8 numbers, got '<html>'"),
        (b'{"error": "no credit"}', "no credit.*KeyError"),
        (b'{"data": [1]}', "TypeError"),
        (data_of((0, [1.0, None]), (1, [1.0, 2.0])), "TypeError"),
        (data_of((0, [1.0]), (1, [1.0, 2.0])), "expected sequence of length"),
        (data_of((0, "AAAA"), (1, "AAAA")), "ValueError|TypeError"),
        (data_of((0, [1.0])), r"KeyError\(1\)"),
        (data_of((0, [1.0]), (0, [2.0])), r"KeyError\(1\)"),
        (data_of((0, [1.0]), (1, [2.0])), r"2 embeddings, together \(2, 1\)"),
        (data_of((0, [1.0] * 8), (1, [2.0] * 8), (1, [3.0] * 8)), r"3 embeddings, together \(2, 8\)"),
    ],
)
def test_answer_of_another_kind_is_shown(
    api: Api, monkeypatch: pytest.MonkeyPatch, answer: bytes, message: str
) -> None:
    module = make(monkeypatch)
    assert module(batch_of("a", "b")).shape == (2, 8)
    api.answers = [answer]
    with pytest.raises(BackboneError, match=message):
        module(batch_of("a", "b"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EMBEDDING_URL", "api.org/v1"),
        ("EMBEDDING_MODEL", ""),
        ("EMBEDDING_KEY", "two\nlines-secret"),
        ("EMBEDDING_BATCH", "0"),
        ("EMBEDDING_RATE", "fast"),
    ],
)
def test_settings_are_checked(api: Api, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"{name} must be") as error:
        remote_embeddings.make()
    assert "secret" not in str(error.value)
