"""The verbs that push stores and heads to the hub and pull them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from embedpipe.cli import show
from embedpipe.cli.app import app
from embedpipe.cli.options import Json, Quiet, Verbose, exits_cleanly, shows_progress, with_options
from embedpipe.sharing.options import PushOptions


@app.command(rich_help_panel="Store")
@exits_cleanly
@with_options(PushOptions)
def push(
    source: Annotated[str, typer.Argument(metavar="STORE|HEAD", help="A feature store, or the folder of a head.")],
    to: Annotated[
        str, typer.Argument(metavar="ADDRESS", help="hf://datasets/ORG/NAME for a store, hf://ORG/NAME for a head.")
    ],
    *,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> None:
    """Push a store or head to the Hugging Face hub, with a card of what is known of it.

    Paths of this machine are left out, and so are old versions and failures. The token is that of `hf auth login` or
    HF_TOKEN.

    Examples: `embedpipe push photos.features hf://datasets/lab/photos --license cc-by-4.0`,
    `embedpipe push photos.head hf://lab/photos-head --private`
    """
    from embedpipe.sharing import push as run

    report = run(source, to, progress=shows_progress(quiet, as_json), **options)
    if as_json:
        show.json_value(report.to_dict())
    elif not quiet:
        pushed = f": {report.files:,} files, {report.bytes / 1e6:,.1f} MB" if report.files else ""
        print(f"{report.repository}{pushed}")
        print(report.url)
        for note in report.notes:
            print(f"note: {note}")


@app.command(rich_help_panel="Store")
@exits_cleanly
def pull(
    source: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS",
            help="hf://datasets/ORG/NAME for a store, hf://ORG/NAME for a head; @REVISION may follow.",
        ),
    ],
    to: Annotated[str, typer.Argument(metavar="TO", help="A new or empty folder.")],
    *,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Pull a store or head from the Hugging Face hub, check every byte of it, and open it. Nothing in it is run.

    Examples: `embedpipe pull hf://datasets/lab/photos photos.features`,
    `embedpipe pull hf://lab/photos-head@v1 photos.head`
    """
    from embedpipe.sharing import pull as run

    pulled = run(source, to, progress=shows_progress(quiet, as_json))
    if as_json:
        show.json_value({"path": to, "kind": "store" if source.startswith("hf://datasets/") else "head"})
    elif not quiet:
        print(f"{to}: {pulled!r}")
