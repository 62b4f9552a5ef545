"""A backbone that asks a remote embedding API: copy this file, and change what your provider does differently.

    export EMBEDDING_URL=https://api.openai.com/v1/embeddings EMBEDDING_MODEL=text-embedding-3-small EMBEDDING_KEY=...
    embedpipe embed messages.csv --backbone python:remote_embeddings.make --to messages.features

Any server with OpenAI's interface answers: ``{"model": ..., "input": [texts]}`` is posted, and ``data`` holds an
``index`` and an ``embedding`` for each text. ``EMBEDDING_BATCH`` texts go into a request (64), at most
``EMBEDDING_RATE`` requests a minute (no limit). Answers 429 and 5xx, and lost connections, are asked for again, up to
8 times with growing pauses, or after the time that the server names (Retry-After), at most ten minutes; by urllib3. A
request that is refused for its texts (400, 413, 422) is divided until the text is found, which becomes a failed item.

Texts are paid for once: embedpipe keeps the vectors of each commit, so a run that stopped goes on where it was, and
equal texts are sent once. Loading sends one request, for the length of the vectors. URL and model are part of the
spec of the store; the key is not, and no message shows it.
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
from embedpipe.errors import BackboneError, ForwardError, UnreachableError, UsageError

#: Most seconds that a server may ask to wait.
LONGEST_PAUSE = 600
#: What is asked for again.
BUSY = (429, 500, 502, 503, 504)
#: Refusals that are about the texts: too long, too many.
REFUSED = (400, 413, 422)


class Pauses(urllib3.Retry):
    """Reads Retry-After as some servers write it, with fractions of a second, and waits no day."""

    def parse_retry_after(self, retry_after: str) -> float:
        """Return seconds to wait for a number of seconds or a date."""
        try:
            seconds = float(retry_after)
        except ValueError:
            seconds = super().parse_retry_after(retry_after)
        return max(0.0, min(seconds, LONGEST_PAUSE))


#: Pauses of 1, 2, 4, ... seconds, at most two minutes; a POST changes nothing here, so it may be sent again.
RETRIES = Pauses(total=8, backoff_factor=1, status_forcelist=BUSY, allowed_methods=None, raise_on_status=False)
#: Seconds to connect, and to wait for an answer.
TIMEOUT = urllib3.Timeout(connect=10, read=120)


class RemoteEmbeddings(nn.Module):
    """Sends texts to an API, ``batch`` of them in a request and at most ``rate`` requests a minute (0: no limit).

    ``key`` is sent as a bearer token, if it is not empty.
    """

    def __init__(self, url: str, model: str, key: str, batch: int, rate: float) -> None:
        super().__init__()
        self.url, self.model, self.batch = url, model, batch
        self._key, self._length = key, 0
        self._pause, self._next = 60 / rate if rate else 0.0, 0.0
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._pool = urllib3.PoolManager(retries=RETRIES, timeout=TIMEOUT)
        # There are no weights to hash: what decides the vectors is the server and its model.
        identity = hashlib.sha256(f"{model}\n{url}".encode()).digest()
        self.register_buffer("identity", torch.frombuffer(bytearray(identity), dtype=torch.uint8))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the vectors of texts, float32 (n, dim), for their bytes (n, length), padded with zeros."""
        texts = [bytes(row.tolist()).rstrip(b"\0").decode() for row in batch["input_ids"]]
        return torch.cat([self._ask(texts[at : at + self.batch]) for at in range(0, len(texts), self.batch)])

    def _ask(self, texts: Sequence[str]) -> Tensor:
        time.sleep(max(0.0, self._next - time.monotonic()))
        self._next = time.monotonic() + self._pause
        body = json.dumps({"model": self.model, "input": texts})
        try:
            answer = self._pool.request("POST", self.url, body=body, headers=self._headers, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            raise UnreachableError(f"{self.url} cannot be reached: {error}; run the command again to go on") from error
        if answer.status != 200:
            kind = UnreachableError if answer.status in BUSY else BackboneError
            raise (ForwardError if answer.status in REFUSED else kind)(
                f"{self.url} answers {answer.status}: {self._excerpt(answer.data)}"
            )
        try:
            data = answer.json()["data"]
            by_index = {each["index"]: each["embedding"] for each in data}
            vectors = torch.tensor([by_index[number] for number in range(len(texts))], dtype=torch.float32)
            self._length = self._length or vectors[0].numel()
            if len(data) != len(texts) or vectors.shape != (len(texts), self._length):
                raise ValueError(f"{len(data)} embeddings, together {tuple(vectors.shape)}")
        except (ValueError, LookupError, TypeError, RuntimeError) as error:
            raise BackboneError(
                f"{self.url} must answer data with one index and embedding for each of {len(texts)} texts, of "
                f"{self._length or 'equally many'} numbers, got {self._excerpt(answer.data)} ({error!r})"
            ) from error
        return vectors

    def _excerpt(self, answer: bytes) -> str:
        """Return the beginning of an answer without the key, which some servers repeat."""
        text = answer.decode(errors="replace")
        return repr((text.replace(self._key, "***") if self._key else text)[:200])


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
    url, model = os.environ.get("EMBEDDING_URL", ""), os.environ.get("EMBEDDING_MODEL", "")
    if not url.startswith(("https://", "http://")):
        raise UsageError(f"EMBEDDING_URL must be the address of the API, https://..., got {url!r}")
    if not model:
        raise UsageError("EMBEDDING_MODEL must be set: the name of a model of the API")
    key = os.environ.get("EMBEDDING_KEY", "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError("EMBEDDING_KEY must be one line of ASCII characters")
    batch, rate = int(_number("EMBEDDING_BATCH", "64", 1)), _number("EMBEDDING_RATE", "0", 0)
    module = RemoteEmbeddings(url, model, key, batch, rate)
    config = hashlib.sha256(b"bytes").hexdigest()
    return TextNetwork(
        model, module, TextPreprocessing(config), Bytes(), url, True, chunks=False, batch_size=batch, one_thread=True
    )


def _number(name: str, default: str, least: int) -> float:
    given = os.environ.get(name, default)
    try:
        number = float(given)
    except ValueError:
        number = -1
    if not least <= number <= 1e6:
        raise UsageError(f"{name} must be a number from {least} to 1000000, got {given!r}")
    return number
