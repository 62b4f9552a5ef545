"""The verb clusters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pyarrow.compute as pc
import typer
from rich.table import Table

from embedpipe.backbones.options import ReloadOptions
from embedpipe.cli import show, tables
from embedpipe.cli.app import Store, app
from embedpipe.cli.options import Json, Quiet, Verbose, exits_cleanly, reads_stored_places, shows_progress, with_options
from embedpipe.clustering.options import ClustersOptions
from embedpipe.report.drawing.wording import counted
from embedpipe.statistics.percentages import percent

if TYPE_CHECKING:
    from embedpipe.clustering import Clusters

#: Clusters that are printed.
SHOWN = 20


@app.command(rich_help_panel="Clean")
@exits_cleanly
@reads_stored_places
@with_options(ClustersOptions, ReloadOptions)
def clusters(
    store: Store,
    *,
    to: Annotated[
        Path | None, typer.Option("--to", help="Write the cluster of each row as a table: .csv, .xlsx, .parquet.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--page", help="Write a page with the most typical items: .html.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> None:
    """Group the rows that are near one another, with words and the most typical items. Nothing is changed.

    The number of clusters follows from the data; a larger resolution gives more.

    Examples: `embedpipe clusters photos.features --page clusters.html`,
    `embedpipe clusters messages.features --to clusters.csv`,
    `embedpipe label messages.features clusters.csv --label cluster --into cluster`
    """
    from embedpipe.clustering.clusters import clusters as run
    from embedpipe.report.page import check_page

    if to is not None:
        tables.check_table_beside_page(to)
    if page is not None:
        check_page(page)
    found = run(store, progress=shows_progress(quiet, as_json), **options)
    if to is not None:
        tables.print_notes(to, found.save(to))
    if page is not None:
        found.to_html(page)
    if as_json:
        show.json_value(found.to_dict())
        return
    if quiet:
        return
    print_clusters(found, verbose)
    for path in (to, page):
        if path is not None:
            print(path)


def print_clusters(found: Clusters, verbose: bool) -> None:
    """Print the largest clusters, their agreement with the labels, and notes."""
    between = pc.sum(found.groups["between"]).as_py()
    print(f"{counted(len(found), 'cluster')} of {counted(len(found.table), 'row')}, {found.seconds:,.0f} s")
    print(f"between clusters: {counted(between, 'row')} ({percent(between / len(found.table))})\n")
    table = Table("cluster", "rows", "mostly", "most typical", box=None)
    for row in found.groups.slice(0, None if verbose else SHOWN).to_pylist():
        mostly = "" if row["label"] is None else f"{row['label']} ({percent(row['label_share'], 0)})"
        table.add_row(*map(show.plain, (row["cluster"], f"{row['rows']:,}", mostly, row["representatives"][0])))
    show.print_table(table)
    if len(found) > SHOWN and not verbose:
        print(f"and {counted(len(found) - SHOWN, 'smaller cluster')} (--verbose)")
    if found.agreement:
        print(f"agreement with the labels: NMI {found.agreement['nmi']:.2f}, ARI {found.agreement['ari']:.2f}")
    for note in found.notes:
        print(f"note: {note}")
