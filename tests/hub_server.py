"""A server on loopback that answers as the Hugging Face hub does, for repositories that are folders.

A repository of a model is ``ROOT/ORG/NAME``, one of a dataset ``ROOT/datasets/ORG/NAME``. Each has one commit, a hash
of its files, which ``main`` and every tag name. Uploads are those of huggingface_hub without xet: large files go to a
place of their own before the commit that names them.
"""

from __future__ import annotations

import base64
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
    tokens: set[str]
    blobs: dict[str, bytes]
    storage: list[str]

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
        is_api = parts[0] == "api"
        kind = "datasets" if "datasets" in parts[:2] else ""
        if kind and not is_api:
            parts = parts[1:]
        name = "/".join(parts[2:4] if is_api else parts[:2])
        repository = self.root / kind / name
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
        if is_api and parts[4:5] and parts[4].startswith("xet-"):
            return self._send(b"{}", {"X-Xet-Cas-Url": self.storage[0]} if self.storage else {})
        if is_api:
            info = {"id": name, "sha": commit, "siblings": [{"rfilename": file} for file in files]}
            return self._send(json.dumps(info).encode(), {"Content-Type": "application/json"})
        file = files.get("/".join(parts[4:]))
        if file is None:
            return self._fail(404, "EntryNotFound", commit)
        return self._send(file.read_bytes(), {"X-Repo-Commit": commit, "ETag": f'"{_oid(file)}"'})

    def do_PUT(self) -> None:
        content = self._body()
        oid = self.path.rpartition("/")[2]
        self.requests.append(f"PUT {oid}")
        if hashlib.sha256(content).hexdigest() != oid:
            return self._fail(400, "BadHash")
        self.blobs[oid] = content
        return self._send(b"", {})

    def do_POST(self) -> None:
        content = self._body()
        path = unquote(urlsplit(self.path).path).strip("/")
        self.requests.append(f"POST {path}")
        if self.tokens and self.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            return self._fail(401, "")
        if path == "api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path == "api/repos/create":
            return self._create(json.loads(content))
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._json(
                {"transfer": "basic", "objects": [self._upload(o) for o in json.loads(content)["objects"]]}
            )
        _, kind, organisation, name, verb, _ = path.split("/")
        repository = self.root / kind.replace("models", "") / organisation / name
        if verb == "preupload":
            files = json.loads(content)["files"]
            modes = [{"path": f["path"], "uploadMode": _mode(f["path"]), "shouldIgnore": False} for f in files]
            return self._json({"files": modes})
        for line in map(json.loads, content.splitlines()):
            self._apply(repository, line["key"], line["value"])
        commit = commit_of(repository)
        url = f"http://{self.headers['Host']}/{path.removeprefix('api/').replace('/commit/main', '')}/commit/{commit}"
        return self._json({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    def _create(self, asked: dict[str, Any]) -> None:
        kind = "datasets" if asked.get("type") == "dataset" else ""
        repository = self.root / kind / asked["organization"] / asked["name"]
        answer = {"url": f"http://{self.headers['Host']}/{kind}/{asked['organization']}/{asked['name']}"}
        if repository.is_dir():
            return self._json(answer, 409)
        repository.mkdir(parents=True)
        (repository / ".gitattributes").write_text("private" if asked.get("visibility") == "private" else "")
        return self._json(answer)

    def _upload(self, asked: dict[str, Any]) -> dict[str, Any]:
        href = f"http://{self.headers['Host']}/lfs/{asked['oid']}"
        actions = {} if asked["oid"] in self.blobs else {"actions": {"upload": {"href": href, "header": {}}}}
        return {"oid": asked["oid"], "size": asked["size"], **actions}

    def _apply(self, repository: Path, key: str, value: dict[str, Any]) -> None:
        if key == "header":
            return
        file = repository / value["path"]
        if key == "deletedFile":
            file.unlink()
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(value["content"]) if key == "file" else self.blobs[value["oid"]])

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), {"Content-Type": "application/json"}, status)

    def _send(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _fail(self, status: int, code: str, commit: str = "") -> None:
        self.send_response(status)
        for name, value in (("X-Error-Code", code), ("X-Repo-Commit", commit), ("Content-Length", "0")):
            if value:
                self.send_header(name, value)
        self.end_headers()


def _mode(path: str) -> str:
    return "lfs" if path.endswith((".parquet", ".safetensors", ".skops", ".faiss")) else "regular"


def _oid(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


class Hub:
    """The server's address, what was asked of it, the names of gated repositories, and tokens that may write.

    Without tokens, everybody may. ``storage`` is the address of the storage of xet, if there is one.
    """

    def __init__(
        self, root: Path, port: int, requests: list[str], gated: set[str], tokens: set[str], storage: list[str]
    ) -> None:
        self.root, self.address = root, f"http://127.0.0.1:{port}"
        self.requests, self.gated, self.tokens, self.storage = requests, gated, tokens, storage


@contextmanager
def serve_hub(root: Path) -> Iterator[Hub]:
    """Serve the repositories of a folder while the block runs."""
    requests: list[str] = []
    gated: set[str] = set()
    tokens: set[str] = set()
    storage: list[str] = []
    shared = {
        "root": root, "requests": requests, "gated": gated, "tokens": tokens, "blobs": {}, "storage": storage,
    }  # fmt: skip
    handler = type("Handler", (_Handler,), shared)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield Hub(root, server.server_port, requests, gated, tokens, storage)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
