"""A backbone that asks a remote embedding API: copy this file, and change what your provider does differently.

    export EMBEDDING_URL=https://api.openai.com/v1/embeddings EMBEDDING_MODEL=text-embedding-3-small EMBEDDING_KEY=...
    embedpipe embed messages.csv --backbone python:remote_embeddings.make --to messages.features

Any server with OpenAI's interface answers: ``{"model": ..., "input": [texts]}`` is posted, and ``data`` holds an
``index`` and an ``embedding`` for each text. ``EMBEDDING_BATCH`` texts go into a request (64), at most
``EMBEDDING_RATE`` requests a minute (no limit). Answers 429 and 5xx, and lost connections, are asked for again, up to
8 times with growing pauses, or after the time that the server names (Retry-After); by urllib3.

Texts are paid for once: embedpipe keeps the vectors of each commit, so a run that stopped goes on where it was, and
equal texts are sent once. Loading sends one short text, for the length of the vectors. URL and model are part of the
spec of the store; the key is not.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence

import torch
import urllib3
from torch import Tensor, nn

from embedpipe.backbones import TextNetwork, TextPreprocessing, Tokens
from embedpipe.errors import BackboneError, UsageError

#: Pauses of 1, 2, 4, ... seconds, at most two minutes; a POST changes nothing here, so it may be sent again.
RETRIES = urllib3.Retry(
    total=8, backoff_factor=1, status_forcelist=(429, 500, 502, 503, 504), allowed_methods=None, raise_on_status=False
)
#: Seconds to connect, and to wait for an answer.
TIMEOUT = urllib3.Timeout(connect=10, read=120)


class RemoteEmbeddings(nn.Module):
    """Sends texts to an API.

    Parameters
    ----------
    url, model : str
    key : str
        Sent as a bearer token; empty: none is sent.
    batch : int
        Most texts in a request.
    rate : float
        Most requests a minute; 0: no limit.
    """

    def __init__(self, url: str, model: str, key: str, batch: int, rate: float) -> None:
        super().__init__()
        self.url, self.model, self.batch = url, model, batch
        self._pause, self._next = 60 / rate if rate else 0.0, 0.0
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._pool = urllib3.PoolManager(retries=RETRIES, timeout=TIMEOUT)
        # There are no weights to hash: what decides the vectors is the server and its model.
        identity = hashlib.sha256(f"{model}\n{url}".encode()).digest()
        self.register_buffer("identity", torch.frombuffer(bytearray(identity), dtype=torch.uint8))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the vectors of texts, float32 (n, dim), for their bytes (n, length), padded with zeros."""
        texts = [bytes(row.tolist()).rstrip(b"\0").decode() for row in batch["input_ids"]]
        parts = [texts[start : start + self.batch] for start in range(0, len(texts), self.batch)]
        return torch.tensor([vector for part in parts for vector in self._ask(part)], dtype=torch.float32)

    def _ask(self, texts: Sequence[str]) -> list[list[float]]:
        time.sleep(max(0.0, self._next - time.monotonic()))
        self._next = time.monotonic() + self._pause
        body = json.dumps({"model": self.model, "input": texts})
        try:
            answer = self._pool.request("POST", self.url, body=body, headers=self._headers, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            raise BackboneError(f"{self.url} cannot be reached: {error}; run the command again to go on") from error
        if answer.status != 200:
            reason = answer.data[:300].decode(errors="replace")
            raise BackboneError(f"{self.url} answers {answer.status}: {reason}; run the command again to go on")
        try:
            data = sorted(answer.json()["data"], key=lambda each: each["index"])
            vectors = [each["embedding"] for each in data]
        except (ValueError, LookupError, TypeError) as error:
            raise BackboneError(
                f"{self.url} must answer data with index and embedding, got {answer.data[:300]!r}"
            ) from error
        if len(vectors) != len(texts):
            raise BackboneError(f"{self.url} must answer a vector for each text, got {len(vectors)} for {len(texts)}")
        return vectors


class Bytes:
    """A text is its bytes: the API splits it into tokens, and cuts or refuses what is too long for its model."""

    def split(self, text: str, whole: bool) -> Tokens:
        """Return the bytes of a text without null characters."""
        data = text.replace("\0", " ").encode()
        return Tokens((data,), (len(data),))

    def collate(self, pieces: Sequence[bytes]) -> dict[str, Tensor]:
        """Return the bytes of texts as uint8 (n, length), padded with zeros."""
        ids = torch.zeros(len(pieces), max(map(len, pieces)), dtype=torch.uint8)
        for row, piece in zip(ids, pieces, strict=True):
            row[: len(piece)] = torch.frombuffer(bytearray(piece), dtype=torch.uint8)
        return {"input_ids": ids}


def make() -> TextNetwork:
    """Return the backbone that the environment describes."""
    try:
        url, model = os.environ["EMBEDDING_URL"], os.environ["EMBEDDING_MODEL"]
    except KeyError as error:
        raise UsageError(f"{error.args[0]} must be set: EMBEDDING_URL and EMBEDDING_MODEL name the API") from None
    batch, rate = int(os.environ.get("EMBEDDING_BATCH", "64")), float(os.environ.get("EMBEDDING_RATE", "0"))
    module = RemoteEmbeddings(url, model, os.environ.get("EMBEDDING_KEY", ""), batch, rate)
    config = hashlib.sha256(b"bytes").hexdigest()
    return TextNetwork(
        model, module, TextPreprocessing(config), Bytes(), url, True, chunks=False, batch_size=batch, one_thread=True
    )
