"""An S3 server on loopback (moto's, in a process of its own) that can go away, be busy, and come back with its data."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator

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


class ObjectServer:
    """A running server.

    Attributes
    ----------
    environment : dict of str to str
        What a user sets to use it.
    files : pyarrow.fs.S3FileSystem
        Its files.
    """

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
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
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(command, file=self._process.stdin, flush=True)
        assert self._process.stdout.readline() == "ok\n"

    def put(self, key: str, payload: bytes) -> None:
        """Write an object."""
        with self.files.open_output_stream(key) as stream:
            stream.write(payload)


@contextlib.contextmanager
def object_server() -> Iterator[ObjectServer]:
    """Run a server for the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            yield ObjectServer(process, port)
        finally:
            process.kill()
