"""The verbs that draw a map of a store, and write its rows with the points of the map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from embedpipe.cli.app import Store, app
from embedpipe.cli.options import Json, Quiet, Verbose, exits_cleanly, reads_stored_places, shows_progress
from embedpipe.cli.show import json_value
from embedpipe.cli.tables import new_file

Layer = Annotated[
    str | None,
    typer.Option("--layer", help="The layer to draw, where the store has several; a+b joins two end to end."),
]


@app.command("map", rich_help_panel="Search")
@exits_cleanly
@reads_stored_places
def map_(
    store: Store,
    *,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", help="The .png or .html file to write; the page shows items on hover. Default: a new file map.html."
        ),
    ] = None,
    label: Annotated[str, typer.Option("--label", help="Column to colour by.")] = "label",
    layer: Layer = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw a 2-D map of a store, coloured by label, as a picture or as a page; likely wrong labels are ringed.

    Examples: `embedpipe map photos.features`, `embedpipe map photos.features --to map.png`
    """
    from embedpipe.report.pictures.map import map as draw

    to = new_file("map.html") if to is None else to
    written = draw(store, to, label=label, layer=layer, progress=shows_progress(quiet, as_json))
    if as_json:
        json_value({"map": str(written)})
    elif not quiet:
        print(written)


@app.command("export-table", rich_help_panel="Search")
@exits_cleanly
@reads_stored_places
def export_table(
    store: Store,
    *,
    to: Annotated[Path, typer.Option("--to", help="The .parquet, .csv, .tsv, .jsonl or .xlsx file to write.")],
    layer: Layer = None,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Add small pictures, in a .parquet file of photos.")
    ] = True,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write the rows of a store as a table, with the points of its map and small pictures.

    Embedding Atlas shows it: `embedding-atlas atlas.parquet --x projection_x --y projection_y --image image`.

    Example: `embedpipe export-table photos.features --to atlas.parquet`
    """
    from embedpipe.report.export_table import export_table as write

    written = write(store, to, layer=layer, pictures=pictures, progress=shows_progress(quiet, as_json))
    if as_json:
        json_value({"table": str(written)})
    elif not quiet:
        print(written)
