"""The verbs that serve a store as a page, and a head as a service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from embedpipe.backbones.options import ReloadOptions
from embedpipe.cli.app import Store, app
from embedpipe.cli.options import Quiet, Verbose, exits_cleanly, reads_stored_places, with_options
from embedpipe.embedding.options import ComputeOptions
from embedpipe.serving.options import ServeOptions, ViewOptions


@app.command(rich_help_panel="Search")
@exits_cleanly
@reads_stored_places
@with_options(ViewOptions, ReloadOptions, ComputeOptions)
def view(
    store: Store,
    *,
    head: Annotated[
        str | None, typer.Option("--head", metavar="HEAD", help="A saved head whose predictions are shown.")
    ] = None,
    findings: Annotated[
        Path | None, typer.Option("--findings", help="A table that `clean` wrote: its findings are shown side by side.")
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> None:
    """Show a store as a page in the browser: its items, and search by a click, a picture or words.

    Only this machine can open the page, unless --host says otherwise. Nothing can be changed without --edit.

    Examples: `embedpipe view photos.features`, `embedpipe view photos.features --head photos.head --edit`,
    `embedpipe view photos.features --findings findings.csv --edit`
    """
    from embedpipe.serving.run import view as show

    show(store, head, findings=findings, **options)


@app.command(rich_help_panel="Learn")
@exits_cleanly
@with_options(ServeOptions, ReloadOptions, ComputeOptions)
def serve(
    head: Annotated[str, typer.Argument(metavar="HEAD", help="Folder of a saved head.")],
    *,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> None:
    """Serve the predictions of a head: POST a picture or a text, and its prediction comes back.

    Concurrent requests go through the backbone together. /health says that the server answers.

    Example: `embedpipe serve photos.head`, then `curl --data-binary @new.jpg http://127.0.0.1:8700/api/predict`
    """
    from embedpipe.serving.run import serve as run

    run(head, **options)
