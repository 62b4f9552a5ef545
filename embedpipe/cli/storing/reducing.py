"""The verb that adds a layer of shorter vectors."""

from __future__ import annotations

from typing import Any

from embedpipe.cli import show
from embedpipe.cli.app import Store, app
from embedpipe.cli.options import Json, Quiet, Verbose, exits_cleanly, shows_progress, with_options
from embedpipe.embedding.layers.options import ReduceOptions


@app.command(rich_help_panel="Store")
@exits_cleanly
@with_options(ReduceOptions)
def reduce(
    store: Store, *, as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False, **options: Any
) -> None:
    """Add a layer of shorter vectors to STORE, the principal components of one of its layers, and say what it costs.

    The projection is learned without the rows of the split test, and kept with the store: new items, `predict` and
    `search` by picture go through it.

    Examples: `embedpipe reduce photos.features --dimensions 128`,
    `embedpipe reduce photos.features --dimensions 64 --whiten`
    """
    from embedpipe.cli.checks import print_reduction
    from embedpipe.embedding import reduce as run

    report = run(store, progress=shows_progress(quiet, as_json), **options)
    if as_json:
        show.json_value(report.to_dict())
    elif not quiet:
        print_reduction(report)
