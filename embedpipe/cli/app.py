"""The ``embedpipe`` command: parse, call, print.

Exit codes: 0 done, 1 failed (or `verify` found something), 2 bad usage, 3 finished with some rows failed,
130 interrupted.
"""

from __future__ import annotations

import io
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from embedpipe._utils.precision import Precision
from embedpipe._utils.version import __version__
from embedpipe.backbones.options import BackboneOptions
from embedpipe.cli import show
from embedpipe.cli.options import Json, Quiet, Verbose, exits_cleanly, with_options
from embedpipe.decoding.recipe import Decode
from embedpipe.embedding.options import RunOptions
from embedpipe.errors import UsageError, nearest
from embedpipe.sources.options import SourceOptions

PARTLY_FAILED = 3

#: The order of the groups in `embedpipe --help`.
VERB_GROUPS = ("Store", "Learn", "Compare", "Fine-tune", "Machine")


class _GroupedVerbs(TyperGroup):
    """Lists the verbs by group, whatever the order in which their modules are imported."""

    def list_commands(self, ctx: Any) -> list[str]:
        verbs: dict[str, Any] = dict(self.commands)
        return sorted(verbs, key=lambda name: VERB_GROUPS.index(verbs[name].rich_help_panel))


app = typer.Typer(
    cls=_GroupedVerbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Embed a dataset once with a frozen backbone into a feature store.\n\n"
    "Exit codes: 0 done, 1 failed, 2 bad usage, 3 finished with some rows failed, 130 interrupted.",
)

Store = Annotated[str, typer.Argument(metavar="STORE", help="Folder or URL of a feature store.")]


@app.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    # A scheduler's polite stop is treated as Ctrl-C: commit what is done, then go.
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    if version:
        print(__version__)
        raise typer.Exit


@app.command(rich_help_panel="Store")
@exits_cleanly
@with_options(SourceOptions, BackboneOptions, RunOptions)
def embed(
    source: Annotated[
        str, typer.Argument(help="Folder of images or texts, file list, table or tar shards; a path or URL.")
    ],
    *,
    to: Annotated[str, typer.Option("--to", help="The feature store; made if it is not there.")],
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> int:
    """Embed what is new or changed in SOURCE into a feature store.

    Examples: `embedpipe embed photos --to photos.features`,
    `embedpipe embed messages.csv --text body --label category --to messages.features`
    """
    from embedpipe.embedding import embed as run

    store = run(source, to, progress=not quiet, verbose=verbose, **options)
    summary = store.summary
    if as_json:
        show.json_value(summary.to_dict())
    elif not quiet:
        show.summary(summary, verbose)
    if summary.failed and not as_json:
        show.failures(store, limit=3, file=sys.stderr)
    return PARTLY_FAILED if summary.failed else 0


@app.command(rich_help_panel="Store")
@exits_cleanly
def info(
    store: Store,
    *,
    version: Annotated[int | None, typer.Option("--version", help="Look at an earlier table version.")] = None,
    failures: Annotated[bool, typer.Option("--failures", help="List the failed items and why.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show what a store holds: rows, labels, splits, spec, versions, failures, size.

    Example: `embedpipe info photos.features`
    """
    from embedpipe.store import FeatureStore

    opened = FeatureStore(store, version)
    if quiet:
        return
    if failures:
        show.failures(opened, as_json=as_json)
    else:
        show.store(opened, as_json, verbose)


@app.command(rich_help_panel="Store")
@exits_cleanly
def verify(
    store: Store,
    *,
    sample: Annotated[
        int | None,
        typer.Option("--sample", help="How many items to embed again: 32, or 500 to measure a drift."),
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option("--precision", help="How far would this precision move the vectors?")
    ] = None,
    decode: Annotated[
        Decode | None, typer.Option("--decode", help="How far would this decoding of pictures move the vectors?")
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", help="Column of labels to compare heads on; 'label' where there is one.")
    ] = None,
    weights: Annotated[str, typer.Option("--weights", help="Weights file, for a store made with one.")] = "default",
    device: Annotated[str | None, typer.Option("--device", help="Where to embed.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Run the code that a python: backbone names.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Check a store's files, ids and vectors, and embed a sample again to compare. Exit code 1 if anything is wrong.

    Of a cheaper precision or decoding, the store's own or one that is asked for, it says what that costs: how far
    vectors move from fp32 and full decoding, whether neighbours stay, and how good a head is on either.

    Examples: `embedpipe verify photos.features --sample 100`,
    `embedpipe verify photos.features --precision bf16 --decode scaled`
    """
    from embedpipe.cli.checks import checks
    from embedpipe.embedding import verify as run

    report = run(
        store,
        sample=sample,
        precision=precision,
        decode=decode,
        label=label,
        weights=weights,
        device=device,
        trust=trust,
        progress=not quiet,
    )
    if as_json:
        show.json_value(report.to_dict())
    elif not quiet or not report.ok:
        checks(report)
    return 0 if report.ok else 1


@app.command(rich_help_panel="Machine")
@exits_cleanly
@with_options(BackboneOptions)
def backbones(
    name: Annotated[str, typer.Argument(help="A backbone, or a part of names to list.")] = "",
    *,
    layers: Annotated[
        bool, typer.Option("--layers", help="List the stages that --layer and --drop-last take.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> None:
    """List the backbones there are, or the layers of one.

    Example: `embedpipe backbones timm/resnet50 --layers --weights none`
    """
    from embedpipe.backbones import list_backbones
    from embedpipe.backbones.load import describe_layers

    if layers:
        named = {"backbone": name} if name else {}
        stages = describe_layers(**{**options, **named})
        if not quiet:
            show.layers(stages, as_json)
        return
    found = list_backbones(name)
    if not found:
        raise UsageError(f"no backbone's name has {name!r} in it{nearest(name, list_backbones())}")
    if not quiet:
        show.names(found, as_json)


@app.command(rich_help_panel="Store")
@exits_cleanly
def label(
    store: Store,
    table: Annotated[str, typer.Argument(help="CSV, TSV, Parquet or JSONL table with ids and labels.")],
    *,
    id_column: Annotated[str, typer.Option("--id", help="The table's column with ids.")] = "id",
    label_column: Annotated[str, typer.Option("--label", help="The table's column with labels.")] = "label",
    into: Annotated[str, typer.Option("--into", help="Column of the store to write.")] = "label",
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Set labels (or any other column) from a table, without embedding again.

    A source that gives labels of its own, such as class folders, sets them again on the next `embed`.

    Example: `embedpipe label photos.features labels.csv --id file --label species`
    """
    from embedpipe.sources import read_table
    from embedpipe.store import FeatureStore

    labels = read_table(table, text=(id_column,))
    change = FeatureStore(store).label(labels, id=id_column, label=label_column, into=into)
    found = change.replaced + change.unchanged
    counts = {
        "labelled": change.replaced,
        "unchanged": change.unchanged,
        "unknown_ids": labels.num_rows - found,
    }
    if as_json:
        show.json_value(counts)
    elif not quiet:
        print(", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items()))


@app.command(rich_help_panel="Store")
@exits_cleanly
def compact(store: Store, *, as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Merge the small files that many short runs leave; ids and vectors stay as they are.

    Example: `embedpipe compact photos.features`
    """
    from embedpipe.store import FeatureStore

    opened = FeatureStore(store)
    merged = opened.compact()
    if as_json:
        show.json_value({"merged": merged, "files": len(opened.table.files), "version": opened.version})
    elif not quiet:
        print(f"{merged:,} files merged; the store has {len(opened.table.files):,} now")


@app.command(rich_help_panel="Store")
@exits_cleanly
def vacuum(
    store: Store,
    *,
    older_than: Annotated[int, typer.Option("--older-than", help="Keep versions younger than this many hours.")] = 168,
    keep_version: Annotated[list[int] | None, typer.Option("--keep-version", help="Keep this version too.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Delete files that only old versions of the store refer to.

    Example: `embedpipe vacuum photos.features --older-than 24 --keep-version 7`
    """
    from embedpipe.store import FeatureStore

    deleted = FeatureStore(store).vacuum(older_than_hours=older_than, keep_versions=keep_version or [])
    if as_json:
        show.json_value({"deleted": deleted})
    elif not quiet:
        print(f"{len(deleted):,} files deleted")


@app.command("map", rich_help_panel="Store")
@exits_cleanly
def map_(
    store: Store,
    *,
    to: Annotated[Path, typer.Option("--to", help="The PNG to write.")],
    label: Annotated[str, typer.Option("--label", help="The column to colour by.")] = "label",
    layer: Annotated[
        str | None,
        typer.Option("--layer", help="The layer to draw, where the store has several; a+b joins two end to end."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw a 2-D map of a store as a picture, coloured by label, with thumbnails.

    Example: `embedpipe map photos.features --to map.png`
    """
    from embedpipe.report.pictures.map import map as draw

    written = draw(store, to, label=label, layer=layer, progress=not quiet)
    if as_json:
        show.json_value({"map": str(written)})
    elif not quiet:
        print(written)


def main() -> None:
    """Run the command line."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started it
            setattr(sys, name, io.StringIO())
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app()
