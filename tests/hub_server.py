"""A server on loopback that answers as the Hugging Face hub does, for repositories that are folders.

A repository is ``ROOT/ORG/NAME``. Each has one commit, a hash of its files, which ``main`` and every tag name.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


def commit_of(repository: Path) -> str:
    """Return the commit of a repository, 40 hex digits."""
    digest = hashlib.sha1()
    for file in sorted(path for path in repository.rglob("*") if path.is_file()):
        digest.update(file.relative_to(repository).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
    root: Path
    requests: list[str]
    gated: set[str]

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.requests.append(f"{self.command} {path}")
        parts = path.split("/")
        is_api = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if is_api else parts[:2])
        repository = self.root / name
        if name in self.gated:
            return self._fail(403, "GatedRepo")
        if not repository.is_dir():
            return self._fail(404, "RepoNotFound")
        commit = commit_of(repository)
        revision = (["main", *parts[5:6]] if is_api else ["main", *parts[3:4]])[-1]
        if len(revision) == 40 and revision != commit:
            return self._fail(404, "RevisionNotFound")
        files = {path.relative_to(repository).as_posix(): path for path in repository.rglob("*") if path.is_file()}
        if is_api and parts[4:5] == ["tree"]:
            rows = [{"type": "file", "path": n, "size": f.stat().st_size, "oid": _oid(f)} for n, f in files.items()]
            return self._send(json.dumps(rows).encode(), {"Content-Type": "application/json"})
        if is_api:
            info = {"id": name, "sha": commit, "siblings": [{"rfilename": file} for file in files]}
            return self._send(json.dumps(info).encode(), {"Content-Type": "application/json"})
        file = files.get("/".join(parts[4:]))
        if file is None:
            return self._fail(404, "EntryNotFound", commit)
        return self._send(file.read_bytes(), {"X-Repo-Commit": commit, "ETag": f'"{_oid(file)}"'})

    def _send(self, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _fail(self, status: int, code: str, commit: str = "") -> None:
        self.send_response(status)
        for name, value in (("X-Error-Code", code), ("X-Repo-Commit", commit), ("Content-Length", "0")):
            if value:
                self.send_header(name, value)
        self.end_headers()


def _oid(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


class Hub:
    """The server's address, what was asked of it, and the names of gated repositories."""

    def __init__(self, root: Path, port: int, requests: list[str], gated: set[str]) -> None:
        self.root, self.address = root, f"http://127.0.0.1:{port}"
        self.requests, self.gated = requests, gated


@contextmanager
def serve_hub(root: Path) -> Iterator[Hub]:
    """Serve the repositories of a folder while the block runs."""
    requests: list[str] = []
    gated: set[str] = set()
    handler = type("Handler", (_Handler,), {"root": root, "requests": requests, "gated": gated})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield Hub(root, server.server_port, requests, gated)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
