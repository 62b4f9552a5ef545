"""The verb ``index``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedpipe.cli import show
from embedpipe.cli.app import Store, app
from embedpipe.cli.options import Json, Quiet, Verbose, exits_cleanly, shows_progress, with_options
from embedpipe.querying.options import IndexOptions

if TYPE_CHECKING:
    from embedpipe.querying.saved_index import Manifest

#: Milliseconds in which an exact search is as good as instant.
INSTANT_MS = 50


@app.command(rich_help_panel="Search")
@exits_cleanly
@with_options(IndexOptions)
def index(
    store: Store,
    *,
    layer: Annotated[
        str | None, typer.Option("--layer", help="The layer to search by, where the store has several.")
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build it anew, also where it can be updated.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> None:
    """Make searches of a large store fast: build its index, in STORE.index, or take changes of the store into it.

    Below 1 GB of vectors, exact search is fast enough, and needs no index. The recall is measured on rows that had no
    part in building the index; `search --exact` always compares all rows.

    Examples: `embedpipe index photos.features`, `embedpipe index photos.features --recall 0.99 --memory 2GB`
    """
    from embedpipe.querying import SimilarityIndex

    progress = shows_progress(quiet, as_json)
    result = SimilarityIndex.build(store, layer, rebuild=rebuild, progress=progress, **options)
    assert result.saved is not None
    if as_json:
        show.json_value(result.saved.manifest.to_dict())
    elif not quiet:
        _print_manifest(str(result.saved.folder), result.saved.manifest)


def _print_manifest(folder: str, manifest: Manifest) -> None:
    """Print what an index holds and how good it is."""
    recall, figures = manifest.recall, manifest.figures
    bound = f"at least {recall.at_least:.3f} (95 % confidence, {recall.rows:,} rows)"
    probes, a_vector = manifest.tuning.probes[0], manifest.size / manifest.rows
    rows = [
        ("index", f"{folder}, layer {manifest.layer}, version {manifest.version} of the store"),
        ("rows", f"{manifest.rows:,} in {manifest.cells:,} cells, of which a search reads {probes:,}"),
        (
            f"recall@{recall.k}",
            f"{recall.mean:.3f}, {bound}",
        ),
        ("latency", f"{figures.latency_ms:.2g} ms a query; exact search {figures.exact_latency_ms:.2g} ms"),
        ("throughput", f"{figures.queries_per_second:,.0f} queries a second"),
        ("built in", f"{figures.build_seconds:.1f} s"),
        (
            "size",
            f"{manifest.size:,} bytes, {a_vector:,.0f} a vector ({manifest.bits} bits a value)",
        ),
    ]
    if figures.exact_latency_ms < INSTANT_MS:
        rows.append(("note", f"exact search takes under {INSTANT_MS} ms a query: this store needs no index"))
    show.print_table(show.pairs(rows))
