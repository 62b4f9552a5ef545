"""The ``embedpipe`` command and the verbs of stores: parse, call, print.

Exit codes: 0 done, 1 failed (for `verify`: a check failed), 2 bad usage, 3 finished with some rows failed, 75 try again
later, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedpipe._utils.options import Precision
from embedpipe._utils.version import __version__
from embedpipe.backbones.options import BackboneOptions
from embedpipe.cli import show
from embedpipe.cli.options import (
    BROKEN_PIPE,
    Json,
    MaxFailed,
    Quiet,
    Verbose,
    exits_cleanly,
    reader_is_gone,
    reads_stored_places,
    shows_progress,
    with_options,
)
from embedpipe.cli.running.own_store import own_store
from embedpipe.cli.running.plain_text import plain_output
from embedpipe.cli.running.process_age import process_age
from embedpipe.cli.running.verbs import START, Verbs
from embedpipe.decoding.recipe import Decode
from embedpipe.embedding.failure_limit import FailureLimit
from embedpipe.embedding.options import RunOptions
from embedpipe.errors import ExitCode
from embedpipe.report.drawing.wording import counted
from embedpipe.sources.options import SourceOptions

if TYPE_CHECKING:
    from embedpipe.embedding import EmbedSummary

PARTLY_FAILED = ExitCode.PARTLY_FAILED

app = typer.Typer(
    cls=Verbs,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Embed a dataset once with a frozen backbone into a feature store.\n\n"
    "Every option may be set in the environment too: --batch-size by EMBEDPIPE_BATCH_SIZE.\n\n"
    "Exit codes: 0 done, 1 failed, 2 bad usage, 3 finished with some rows failed, 75 try again later, 130 interrupted.",
)

Store = Annotated[str, typer.Argument(metavar="STORE", help="Folder or URL of a feature store.")]


@app.callback(invoke_without_command=True)
def _top(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    # A stop by a scheduler acts as Ctrl-C: finished rows are committed.
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    if version:
        print(__version__)
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        print(START)


@app.command(rich_help_panel="Store")
@exits_cleanly
@with_options(SourceOptions, BackboneOptions, RunOptions)
def embed(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Path or URL of a folder, file list, table or tar shards; with --add-layer, of a store.",
        ),
    ],
    *,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="Folder or URL of the store, created if it does not exist. Default: photos.features here, for photos.",
        ),
    ] = None,
    max_failed: MaxFailed = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> int:
    """Embed the new and changed items of SOURCE into a feature store.

    Examples: `embedpipe embed photos --to photos.features`,
    `embedpipe embed messages.csv --text body --label category --to messages.features`,
    `embedpipe embed photos.features --add-layer layer3`
    """
    from embedpipe.embedding import embed as run

    limit = None if max_failed is None else FailureLimit.parse(max_failed)
    if to is None and not options["add_layer"]:
        to = own_store(source)
    store = run(source, to, progress=shows_progress(quiet, as_json), verbose=verbose, **options)
    summary: EmbedSummary = store.summary
    summary.seconds = process_age()
    if as_json:
        show.json_value(summary.to_dict())
    else:
        if not quiet:
            show.summary(summary, verbose)
        show.new_failures(summary)
        if summary.exit_code(limit) is ExitCode.PARTLY_FAILED and not summary.failed_new:
            show.old_failures(summary)
    return summary.exit_code(limit)


@app.command(rich_help_panel="Store")
@exits_cleanly
def info(
    store: Store,
    *,
    version: Annotated[int | None, typer.Option("--version", help="Show this version of the table.")] = None,
    failures: Annotated[bool, typer.Option("--failures", help="List the failed items with the reasons.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show the rows, labels, splits, spec, versions, failures and size of a store.

    Example: `embedpipe info photos.features`
    """
    from embedpipe.store import FeatureStore

    opened = FeatureStore(store, version)
    if quiet and not as_json:
        return
    if failures:
        show.failures(opened, as_json=as_json)
    else:
        show.store(opened, as_json, verbose)


@app.command(rich_help_panel="Store")
@exits_cleanly
@reads_stored_places
def verify(
    store: Store,
    *,
    sample: Annotated[
        int | None,
        typer.Option("--sample", help="Number of items to embed again. Default: 32, or 500 to measure a drift."),
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option("--precision", help="Measure the drift of the vectors in this precision.")
    ] = None,
    decode: Annotated[
        Decode | None, typer.Option("--decode", help="Measure the drift of the vectors with this decoding of images.")
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", help="Column of labels to compare heads on. Default: label.")
    ] = None,
    weights: Annotated[
        str, typer.Option("--weights", help="Weights file, if the store was made with one.")
    ] = "default",
    device: Annotated[str | None, typer.Option("--device", help="Device to embed on.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Run the code of a python: backbone.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Check the files, ids and vectors of a store, and embed a sample again. Exit code 1 if a check fails.

    With a cheaper precision or decoding, given or of the store, the drift from fp32 and full decoding is measured: how
    far vectors move, which neighbours stay, and how the score of a head changes.

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
        progress=shows_progress(quiet, as_json),
    )
    if as_json:
        show.json_value(report.to_dict())
    elif not quiet or not report.ok:
        checks(report)
    return 0 if report.ok else 1


@app.command(rich_help_panel="Store")
@exits_cleanly
def compact(store: Store, *, as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Merge the small files of many short runs. Ids and vectors do not change.

    Example: `embedpipe compact photos.features`
    """
    from embedpipe.store import FeatureStore

    opened = FeatureStore(store)
    merged = opened.compact()
    if as_json:
        show.json_value({"merged": merged, "files": len(opened.table.files), "version": opened.version})
    elif not quiet:
        print(f"{counted(merged, 'file')} merged; the store now has {counted(len(opened.table.files), 'file')}")


@app.command(rich_help_panel="Store")
@exits_cleanly
def repair(store: Store, *, as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Go back to what is whole in a store that a power cut, a disk or another program damaged.

    Run it while nothing else writes to the store. What was lost is embedded again by the next `embed`.

    Example: `embedpipe repair photos.features`
    """
    from embedpipe.cli.checks import print_repair
    from embedpipe.store import repair as run

    report = run(store, progress=shows_progress(quiet, as_json))
    if as_json:
        show.json_value(asdict(report))
    elif not quiet:
        print_repair(report)


@app.command(rich_help_panel="Store")
@exits_cleanly
def vacuum(
    store: Store,
    *,
    older_than: Annotated[int, typer.Option("--older-than", help="Keep versions younger than this many hours.")] = 168,
    keep_version: Annotated[list[int] | None, typer.Option("--keep-version", help="Also keep this version.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Delete files that only old versions of the store use.

    Example: `embedpipe vacuum photos.features --older-than 24 --keep-version 7`
    """
    from embedpipe.store import FeatureStore

    deleted = FeatureStore(store).vacuum(older_than_hours=older_than, keep_versions=keep_version or [])
    if as_json:
        show.json_value({"deleted": deleted})
    elif not quiet:
        print(f"{counted(len(deleted), 'file')} deleted")


def main() -> None:
    """Run the command line."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the parent process
            setattr(sys, name, io.StringIO())
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = lambda message, *_: print(f"embedpipe: warning: {message}", file=sys.stderr)
    # Messages on arguments are printed before a verb begins. On a terminal, the help has colours of its own.
    plain = not (sys.stdout.isatty() or sys.stderr.isatty() or os.environ.get("FORCE_COLOR"))
    out = sys.stdout
    try:
        with plain_output() if plain else contextlib.nullcontext():
            app(prog_name="embedpipe")
    except SystemExit as ended:
        # If the reader of the output is gone, typer replaces it, and rich, which prints the help, ends with code 1.
        noticed = sys.stdout is not out or isinstance(ended.__context__, BrokenPipeError)
        sys.stdout = out
        if reader_is_gone() or noticed:
            sys.exit(BROKEN_PIPE)
        raise ended
