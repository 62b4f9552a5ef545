"""`view` and `serve`: a store as a page in the browser, and a head as a service."""

from __future__ import annotations

import secrets
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from embedpipe._utils.importing import import_extra
from embedpipe._utils.messages.counting import counted
from embedpipe._utils.messages.masking import show_secret
from embedpipe._utils.options import build_options, takes_options
from embedpipe.backbones.options import ReloadOptions
from embedpipe.embedding.options import ComputeOptions
from embedpipe.serving.guard import LOCAL
from embedpipe.serving.listening import address_of, has_desktop, hosts_of, listen, run_server
from embedpipe.serving.options import ServeOptions, ViewOptions
from embedpipe.store import FeatureStore
from embedpipe.store.opening import open_store

if TYPE_CHECKING:
    from embedpipe._utils.parameters import ServeParameters, ViewParameters
    from embedpipe.cleaning import Findings
    from embedpipe.heads import Head

OPTIONS = (ViewOptions, ReloadOptions, ComputeOptions)
SERVE_OPTIONS = (ServeOptions, ReloadOptions, ComputeOptions)
#: So many items are worth the choice of the fastest engine.
MANY = 1_000_000


@takes_options(*OPTIONS)
def view(
    store: FeatureStore | str | Path,
    head: Head | str | Path | None = None,
    *,
    findings: Findings | str | Path | None = None,
    **options: Unpack[ViewParameters],
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
    findings : Findings or path, optional
        What `embedpipe.clean` found, or a table that it wrote: shown with their items side by side. With ``edit``, a
        key accepts the proposed label, or excludes an item.

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
    import_extra("fastapi", "view")
    _check_device(compute)
    from embedpipe.serving.app import create_app
    from embedpipe.serving.viewing.findings import FoundRows
    from embedpipe.serving.viewing.searching import Searcher
    from embedpipe.serving.viewing.viewer import Viewer

    opened = open_store(store)
    opened.select_layers(view_options.layer)
    fitted = _open_head(head, reload_options) if isinstance(head, str | Path) else head
    found = None if findings is None else FoundRows(findings)
    viewer = Viewer(opened, Searcher(view_options.layer, reload_options, compute), view_options.edit, fitted, found)
    if found is not None:
        found.require_some(viewer.collection)
    listening = listen(view_options.host, view_options.port)
    elsewhere = view_options.host not in LOCAL
    token = show_secret(secrets.token_urlsafe(24)) if view_options.edit or elsewhere else None
    app = create_app(viewer, hosts_of(view_options.host), token)
    address = address_of(view_options.host, listening) + (f"?token={token}" if token else "")
    print(f"{viewer.name}: {counted(len(opened), 'item')} at {address} (Ctrl-C ends)", flush=True)
    viewer.start()
    if not view_options.no_browser and has_desktop():
        webbrowser.open(address)
    run_server(app, listening)


@takes_options(*SERVE_OPTIONS)
def serve(head: Head | str | Path, **options: Unpack[ServeParameters]) -> None:
    """Serve the predictions of a head: a picture or text is posted, its prediction comes back.

    ``POST /api/predict`` takes a picture as the body, or ``{"text": ...}`` for a head of texts. Concurrent requests go
    through the backbone together. ``/`` is a page to try it by hand and to read about the API, which
    ``/api/openapi.json`` describes for programs; ``/health`` says that the server answers. The function returns when
    it is interrupted. On another address than this machine's own, a token is needed.

    Parameters
    ----------
    head : Head or path

    Raises
    ------
    MissingExtraError
        If the extra ``view`` is not installed.
    UsageError
        If the address cannot be listened on.

    Examples
    --------
    >>> embedpipe.serve("photos.head")  # doctest: +SKIP
    logreg of 'label' at http://127.0.0.1:8700/api/predict (Ctrl-C ends)
    """
    serve_options, reload_options, compute = build_options(SERVE_OPTIONS, options)
    import_extra("fastapi", "view")
    _check_device(compute)
    from embedpipe.backbones import reload_backbone
    from embedpipe.heads.columns.table_columns import refuse_columns
    from embedpipe.serving.head_app import HeadService, create_head_app

    fitted = _open_head(head, reload_options) if isinstance(head, str | Path) else head
    refuse_columns(fitted.columns, "a request holds one picture or text")
    listening = listen(serve_options.host, serve_options.port)
    backbone = reload_backbone(fitted.spec, reload_options, compute.device, "the head")
    if compute.engine == "auto":
        backbone = backbone.accelerated(MANY)
    token = None if serve_options.host in LOCAL else secrets.token_urlsafe(24)
    app = create_head_app(HeadService(fitted, backbone), hosts_of(serve_options.host), token)
    needs = f"; send the header Authorization: Bearer {token}" if token else ""
    address = address_of(serve_options.host, listening)
    print(f"{fitted.name} of {fitted.label!r} at {address}api/predict (Ctrl-C ends){needs}", flush=True)
    run_server(app, listening)


def _check_device(compute: ComputeOptions) -> None:
    """Raise UsageError for a device that cannot be used, before the first query needs it."""
    if compute.device is not None:
        from embedpipe._utils.device import choose_device  # loads torch, which a page without queries does not need

        choose_device(compute.device)


def _open_head(head: str | Path, options: ReloadOptions) -> Head:
    from embedpipe.heads import load_head  # loads scikit-learn, which a page without a head does not need

    return load_head(head, trust=options.trust)
