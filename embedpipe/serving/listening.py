"""Where a server listens, by which names it is called, and how it runs until it is interrupted."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from typing import Any

from embedpipe._utils.importing import import_extra
from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError
from embedpipe.serving.guard import LOCAL

#: The port where none is given, and how many after it are tried.
PORT, TRIED = 8700, 100


def listen(host: str, port: int | None) -> socket.socket:
    """Return a socket that listens on a port, or on the first free one from `PORT`. Raises UsageError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in [port] if port is not None else range(PORT, PORT + TRIED):
        try:
            return socket.create_server((host, number), family=family)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or port is not None:
                raise UsageError(
                    f"cannot listen on {host}:{number}: {error.strerror or error}; choose another {option('port')} or "
                    f"{option('host')}"
                ) from error
    raise UsageError(f"ports {PORT} to {PORT + TRIED - 1} are in use: choose another with {option('port')}")


def hosts_of(host: str) -> tuple[str, ...]:
    """Return the names by which a server that listens on ``host`` may be called."""
    return LOCAL if host in LOCAL else (*LOCAL, host, socket.gethostname(), socket.getfqdn(), "*")


def address_of(host: str, listening: socket.socket) -> str:
    """Return the address of the server."""
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    return f"http://{f'[{name}]' if ':' in name else name}:{listening.getsockname()[1]}/"


def has_desktop() -> bool:
    """Return whether there is a desktop with a browser: one in the terminal would hide the address."""
    if not sys.stdout.isatty():
        return False
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def run_server(app: Any, listening: socket.socket) -> None:
    """Serve an application until the process is interrupted."""
    uvicorn = import_extra("uvicorn", "view")
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
    with contextlib.suppress(KeyboardInterrupt), listening:
        uvicorn.Server(config).run(sockets=[listening])
