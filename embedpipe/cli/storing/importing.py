"""`import-vectors`: vectors that were made elsewhere become a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedpipe.cli import show
from embedpipe.cli.app import app
from embedpipe.cli.options import Json, Quiet, Verbose, exits_cleanly, shows_progress, with_options
from embedpipe.embedding.importing.options import ImportOptions
from embedpipe.report.drawing.wording import counted

if TYPE_CHECKING:
    from embedpipe.store import FeatureStore


@app.command("import-vectors", rich_help_panel="Store")
@exits_cleanly
@with_options(ImportOptions)
def import_vectors(
    vectors: Annotated[
        str, typer.Argument(metavar="VECTORS", help="A .npy, .parquet, .csv or .tsv file with one vector a row.")
    ],
    *,
    to: Annotated[str, typer.Option("--to", help="Folder or URL of the store, created if it does not exist.")],
    ids: Annotated[
        str | None,
        typer.Option(
            "--ids",
            metavar="FILE|COLUMN",
            help="Column of the table with unique ids, or a table, .npy or .txt file with one row for each vector. "
            "Default: the column id.",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", metavar="FILE|COLUMN", help="The same for labels. Default: the column label."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> None:
    """Import vectors that were made elsewhere, such as by an API, into a feature store.

    Examples: `embedpipe import-vectors vectors.npy --ids items.csv --name openai/text-embedding-3-large
    --to items.features`, `embedpipe import-vectors vectors.parquet --ids sku --labels category --to items.features`
    """
    from embedpipe.embedding import import_vectors as run

    store = run(vectors, to, ids=ids, labels=labels, progress=shows_progress(quiet, as_json), **options)
    if as_json:
        show.json_value(store.summary.to_dict())
    elif not quiet:
        print_import(store)


def print_import(store: FeatureStore) -> None:
    """Print what an import did."""
    summary = store.summary
    print(
        f"{counted(summary.rows, 'vector')} of {summary.dim:,} values: {summary.added:,} added, "
        f"{summary.updated:,} updated, {summary.unchanged:,} unchanged, in {summary.seconds:.1f} s"
    )
    print(f"{store.path}, version {summary.version}, {counted(len(store), 'row')}")
    for note in summary.notes:
        print(f"note: {note}")
