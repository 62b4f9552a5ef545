"""S3 servers on loopback, in a process of their own, that can go away and come back with their data."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pafs

#: Reads commands: ``up``, ``down``, ``busy N``, which answers 503 after N more photos were read, and ``shaky``: every
#: twentieth request is answered 503, cut off, or answered late, in turns.
SERVER = """
import contextlib, itertools, socket, sys, threading, time
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

application, left, server, requests = DomainDispatcherApplication(create_backend_app), None, None, None
BODY = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate</Message></Error>"
alone = threading.Lock()  # a conditional write is one step, which moto's is not among threads

def answer(environ, start):
    global left
    number = 1 if requests is None else next(requests)
    if number % 60 == 20:
        start("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(BODY)))])
        return [BODY]
    if number % 60 == 40:
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return []
    if number % 60 == 0:
        time.sleep(0.5)
    if left is not None:
        left -= environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].endswith(".jpg")
        if left < 0:
            start("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(BODY)))])
            return [BODY]
    with alone if environ["REQUEST_METHOD"] == "PUT" else contextlib.nullcontext():
        return application(environ, start)

for line in sys.stdin:
    command, _, number = line.strip().partition(" ")
    if server is not None and command == "down":
        server.shutdown()
        server.server_close()
        server = None
    elif command == "up":
        left = requests = None
        if server is None:
            server = make_server("127.0.0.1", int(sys.argv[1]), answer, threaded=True)
            threading.Thread(target=server.serve_forever, daemon=True).start()
    elif command == "busy":
        left = int(number)
    elif command == "shaky":
        requests = itertools.count(1)
    print("ok", flush=True)
"""

#: Keys that servers know, with their secrets. Moto asks for none.
KEYS = {"id": "secret", "archivist": "50%secret"}


class ObjectServer:
    """A running server.

    Attributes
    ----------
    environment : dict of str to str
        What a user sets to use it.
    files : pyarrow.fs.S3FileSystem
        Its files.
    """

    def __init__(self, port: int) -> None:
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }
        self.say("up")
        self.files = pafs.S3FileSystem(
            endpoint_override=f"127.0.0.1:{port}",
            scheme="http",
            access_key="id",
            secret_key="secret",
            region="us-east-1",
            allow_bucket_creation=True,
        )

    def say(self, command: str) -> None:
        """Give a command and wait until it is done."""
        raise NotImplementedError

    def put(self, key: str, payload: bytes) -> None:
        """Write an object."""
        with self.files.open_output_stream(key) as stream:
            stream.write(payload)


class MotoServer(ObjectServer):
    """A server of moto, which keeps objects in memory and does not check signatures."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
        super().__init__(port)

    def say(self, command: str) -> None:
        """Give a command of `SERVER`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(command, file=self._process.stdin, flush=True)
        assert self._process.stdout.readline() == "ok\n"


class WeedServer(ObjectServer):
    """A server of SeaweedFS, which keeps objects on disk and checks signatures. It can go up and down."""

    def __init__(self, folder: Path) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._folder, self._port, *others = folder, *free_ports(8)
        keys = [{"accessKey": key, "secretKey": secret} for key, secret in KEYS.items()]
        users = [{"name": key["accessKey"], "credentials": [key], "actions": ["Admin"]} for key in keys]
        (folder / "users.json").write_text(json.dumps({"identities": users}))
        roles = [f"{role}.port{kind}" for role in ("master", "volume", "filer") for kind in ("", ".grpc")]
        ports = {"s3.port": self._port, **dict(zip([*roles, "s3.port.grpc"], others, strict=True))}
        self._command = ["weed", "server", "-s3", "-filer", f"-dir={folder}", f"-s3.config={folder}/users.json"]
        self._command += ["-ip=127.0.0.1", "-master.volumeSizeLimitMB=64", "-volume.max=100"]
        ports |= {"s3.port.iceberg": 0, "s3.port.lance": 0}  # not started
        self._command += [f"-{name}={port}" for name, port in ports.items()]
        super().__init__(self._port)

    def say(self, command: str) -> None:
        """Start or end the process."""
        if command == "down" and self._process is not None:
            self._process.kill()  # it takes half a minute to end by itself
            self._process.wait(30)
            self._process = None
        elif command == "up" and self._process is None:
            with (self._folder / "log").open("ab") as log:
                self._process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
            for _ in range(300):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
                    return
                time.sleep(0.1)
            raise AssertionError((self._folder / "log").read_text()[-2000:])


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody uses."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def object_server() -> Iterator[ObjectServer]:
    """Run a server of moto for the block."""
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            yield MotoServer(process, port)
        finally:
            process.kill()


@contextlib.contextmanager
def weed_server(folder: Path) -> Iterator[ObjectServer]:
    """Run a server of SeaweedFS for the block, with its data in a folder."""
    server = WeedServer(folder)
    try:
        yield server
    finally:
        server.say("down")
