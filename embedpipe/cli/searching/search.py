"""The verb ``search``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from embedpipe.backbones.options import ReloadOptions
from embedpipe.cli import show, tables
from embedpipe.cli.app import PARTLY_FAILED, Store, app
from embedpipe.cli.options import (
    Json,
    Picture,
    Quiet,
    Verbose,
    check_picture,
    exits_cleanly,
    reads_stored_places,
    shows_progress,
    with_options,
)
from embedpipe.cli.running.plain_text import escaped
from embedpipe.cli.tables import FORMATS
from embedpipe.embedding.options import ComputeOptions
from embedpipe.querying.options import SearchOptions
from embedpipe.report.drawing.wording import counted

if TYPE_CHECKING:
    from embedpipe.querying import Neighbours

#: Characters of a text that a table shows.
LONGEST = 80


@app.command(rich_help_panel="Search")
@exits_cleanly
@reads_stored_places
@with_options(SearchOptions, ReloadOptions, ComputeOptions)
def search(
    store: Store,
    query: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="QUERY",
            help="An id of the store, an image, a text file, a folder, a .npy file of vectors, or a text.",
        ),
    ] = None,
    *,
    like: Annotated[
        list[str] | None,
        typer.Option("--like", metavar="QUERY", help="Move the queries towards this item. Can be repeated."),
    ] = None,
    unlike: Annotated[
        list[str] | None,
        typer.Option("--unlike", metavar="QUERY", help="Move the queries away from this item. Can be repeated."),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", help="Number of neighbours per query.")] = SearchOptions().k,
    to: Annotated[Path | None, typer.Option("--to", help=f"Also write the neighbours as a table: {FORMATS}.")] = None,
    picture: Picture = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> int:
    """Find the items of a store that are nearest to each QUERY by cosine.

    A text is a query for a store of texts, and for a store of images whose backbone also embeds texts (open_clip/).

    Examples: `embedpipe search photos.features new.jpg -k 5 --picture similar.png`,
    `embedpipe search messages.features "win a prize" --where "label = 'spam'"`,
    `embedpipe search photos.features --like cat/00.jpg --like cat/01.jpg --unlike dog/00.jpg --distinct`
    """
    from embedpipe.querying.search import search

    check_picture(picture)
    if to is not None:
        tables.check_table(to)
    neighbours = search(
        store,
        query or None,
        like=like or None,
        unlike=unlike or None,
        progress=shows_progress(quiet, as_json),
        k=k,
        **options,
    )
    if to is not None:
        tables.write_table(neighbours.table, to)
    if picture is not None:
        _draw(neighbours, picture)
    if as_json:
        how = {**asdict(neighbours.how), "searched": neighbours.searched}
        show.json_value({"how": how, "neighbours": neighbours.to_pylist()})
    elif not quiet:
        _print_neighbours(neighbours)
    for name, reason in neighbours.failed:
        print(f"embedpipe: {escaped(name)}: {escaped(reason)}", file=sys.stderr)
    return PARTLY_FAILED if neighbours.failed else 0


def _draw(result: Neighbours, picture: Path) -> None:
    from embedpipe.report.pictures.neighbours import draw_neighbours

    if len(result.failed) < len(result):
        draw_neighbours(result, picture)
    else:
        print(f"embedpipe: {picture} was not drawn: no query has neighbours", file=sys.stderr)


def _print_neighbours(result: Neighbours) -> None:
    """Print neighbours, by query and rank."""
    columns = [name for name in ("near_duplicates", "label", "text") if name in result.table.column_names]
    headings = [name.replace("_", "-") for name in columns]
    table = Table("query", "rank", "score", "id", *headings, box=None)
    for row in result.to_pylist():
        if not row["error"]:
            cells = [show.plain("" if row[name] is None else _cut(str(row[name]))) for name in columns]
            table.add_row(
                show.plain(_cut(row["query"])), str(row["rank"]), f"{row['score']:.4f}", show.plain(row["id"]), *cells
            )
    show.print_table(table)
    print(f"{result.how}, among {counted(result.searched, 'row')}")


def _cut(text: str) -> str:
    """Return a text on one line; of a long text, the beginning."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."
