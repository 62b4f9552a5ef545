"""`view`: serve a store as a page in the browser."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from embedpipe._utils.importing import import_extra
from embedpipe._utils.option_names import option
from embedpipe._utils.options import build_options, takes_options
from embedpipe.backbones.options import ReloadOptions
from embedpipe.embedding.options import ComputeOptions
from embedpipe.errors import UsageError
from embedpipe.heads import Head, load_head
from embedpipe.serving.guard import LOCAL
from embedpipe.serving.options import ViewOptions
from embedpipe.store import FeatureStore

if TYPE_CHECKING:
    from embedpipe._utils.parameters import ViewParameters

OPTIONS = (ViewOptions, ReloadOptions, ComputeOptions)
#: The port where none is given, and how many after it are tried.
PORT, TRIED = 8700, 100


@takes_options(*OPTIONS)
def view(
    store: FeatureStore | str | Path, head: Head | str | Path | None = None, **options: Unpack[ViewParameters]
) -> None:
    """Show a store as a page in the browser: its items, search by a click, a picture or words.

    The address is printed, and the function returns when it is interrupted. The page loads nothing from elsewhere.
    Without ``edit`` nothing can be changed. With it, or on another address than this machine's own, the address holds
    a token without which nothing is answered; the connection is not encrypted.

    Parameters
    ----------
    store : FeatureStore or path
    head : Head or path, optional
        A head that was fitted on vectors of this backbone. Its predictions are shown, the most confidently wrong and
        the least certain first.

    Raises
    ------
    MissingExtraError
        If the extra ``view`` is not installed.
    UsageError
        If the store is empty, or the address cannot be listened on.

    Examples
    --------
    >>> embedpipe.view("photos.features", edit=True)  # doctest: +SKIP
    photos.features: 24 items at http://127.0.0.1:8700/?token=... (Ctrl-C ends)
    """
    view_options, reload_options, compute = build_options(OPTIONS, options)
    uvicorn = import_extra("uvicorn", "view")
    import_extra("fastapi", "view")
    from embedpipe.serving.app import create_app
    from embedpipe.serving.searching import Searcher
    from embedpipe.serving.viewer import Viewer

    opened = store if isinstance(store, FeatureStore) else FeatureStore(store)
    opened.select_layers(view_options.layer)
    fitted = head if head is None or isinstance(head, Head) else load_head(head, trust=reload_options.trust)
    viewer = Viewer(opened, Searcher(view_options.layer, reload_options, compute), view_options.edit, fitted)
    listening = listen(view_options.host, view_options.port)
    elsewhere = view_options.host not in LOCAL
    token = secrets.token_urlsafe(24) if view_options.edit or elsewhere else None
    app = create_app(viewer, hosts_of(view_options.host), token)
    address = address_of(view_options.host, listening) + (f"?token={token}" if token else "")
    print(f"{viewer.name}: {len(opened):,} items at {address} (Ctrl-C ends)", flush=True)
    viewer.start()
    if not view_options.no_browser and has_desktop():
        webbrowser.open(address)
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
    with contextlib.suppress(KeyboardInterrupt), listening:
        uvicorn.Server(config).run(sockets=[listening])


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
    """Return the address of the page."""
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    return f"http://{f'[{name}]' if ':' in name else name}:{listening.getsockname()[1]}/"


def has_desktop() -> bool:
    """Return whether there is a desktop with a browser: one in the terminal would hide the address."""
    if not sys.stdout.isatty():
        return False
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
