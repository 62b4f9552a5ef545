"""The connection to a Ray cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from embedpipe._utils.importing import import_extra
from embedpipe._utils.progress import Progress
from embedpipe.errors import UnreachableError, UsageError

#: Variable of Ray with the address of the cluster.
VARIABLE = "RAY_ADDRESS"

#: Ray reports usage to its makers, and its parts write to standard error, unless told otherwise before they start.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_LOG_LEVEL": "ERROR", "RAY_BACKEND_LOG_LEVEL": "fatal"}

#: Seconds in which the server of a cluster must answer.
SECONDS = 10.0

#: With what a client of HTTP/2 begins: its preface, and a frame of settings (type 4) without any; RFC 9113, 3.4.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS = 4


def connect(progress: Progress, address: str | None) -> Any:
    """Return the module of Ray, connected to the user's cluster, or to one of this machine that ends with it.

    Raises
    ------
    MissingExtraError
        Ray is not installed.
    UnreachableError
        There is no cluster at the address.
    UsageError
        The address is not one of a Ray cluster.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    ray = import_extra("ray", "ray")
    if not ray.is_initialized():
        with progress.step("connecting to Ray"):
            if address is None:
                check_answers(os.environ.get(VARIABLE, ""))
            with _standard_error_closed(), _signals_kept():
                try:
                    ray.init(address, log_to_driver=False, logging_level="error")
                except Exception as error:  # a node that does not start in time is a plain one
                    raise UnreachableError(f"cannot reach a Ray cluster: {error}") from error
    return ray


def check_answers(address: str, seconds: float = SECONDS) -> None:
    """Refuse an address at which no server speaks HTTP/2, as a head of Ray does.

    Ray itself tries for a quarter of an hour, in code in C++ that neither Ctrl-C nor SIGTERM ends. Names that Ray
    resolves itself pass: none, ``auto`` and ``local``.

    Raises
    ------
    UnreachableError
        There is no answer within the seconds, or one of something else.
    UsageError
        The address is not a host and a port.
    """
    if address in ("", "auto", "local"):
        return
    try:
        host, port = urlsplit(f"//{address}").hostname, urlsplit(f"//{address}").port
    except ValueError:
        host = port = None
    if host is None or port is None or "/" in address:
        raise UsageError(f"{VARIABLE} must be HOST:PORT, such as head.example.org:6379, auto or local, got {address!r}")
    try:
        with socket.create_connection((host, port), timeout=seconds) as server:
            if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
                return
            server.sendall(_HELLO)
            answer = server.recv(9)  # the head of a frame: a length of 3 bytes, a type...
    except OSError as error:
        raise UnreachableError(
            f"no Ray cluster answers at {address} ({error}): is it running, and is {VARIABLE} right?"
        ) from error
    if answer[3:4] != bytes([_SETTINGS]):
        raise UnreachableError(
            f"{address} does not answer as a Ray cluster: {VARIABLE} must be HOST:PORT of its head, which has port "
            "6379 if none was given"
        )


@contextlib.contextmanager
def _standard_error_closed() -> Iterator[None]:
    """Discard what the parts of Ray in C++ write while they start: that they were told to be quiet."""
    with open(os.devnull, "wb") as nothing:  # noqa: PTH123
        before = os.dup(2)
        os.dup2(nothing.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Give SIGTERM back to who had it: Ray takes it, prints its stack, and ends the process with code 15."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
