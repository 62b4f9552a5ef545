"""The verbs of heads: fit, predict, export."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from embedpipe._utils.folder_kinds import EXPORTED, folder_kind
from embedpipe._utils.option_names import option
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
from embedpipe.cli.running.process_age import process_age
from embedpipe.cli.tables import FORMATS
from embedpipe.embedding.failure_limit import FailureLimit
from embedpipe.embedding.options import ComputeOptions
from embedpipe.errors import UsageError
from embedpipe.exporting.options import ExportOptions
from embedpipe.heads.options import FitOptions
from embedpipe.sources.options import SourceOptions

#: The table of `predict` where no name is given.
PREDICTIONS = "predictions.csv"


@app.command(rich_help_panel="Learn")
@exits_cleanly
@with_options(FitOptions, ReloadOptions)
def fit(
    store: Store,
    *,
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder to save the head in; an existing head is replaced.")
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            "--head",
            help="logreg (default), ridge (default for numbers), lda, centroid, knn or knn-approx; auto chooses layer, "
            "normalisation and head by cross-validation; zero-shot and text-prior start from the names of the classes.",
        ),
    ] = None,
    estimator: Annotated[
        str | None, typer.Option("--estimator", metavar="MODULE:CLASS", help="Your own scikit-learn estimator instead.")
    ] = None,
    picture: Picture = None,
    mistakes: Annotated[
        Path | None,
        typer.Option(
            "--mistakes",
            help="Also write the held-out rows that the head gets wrong: a .html page with pictures or texts, linked "
            f"to the files, or a table: {FORMATS}.",
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> None:
    """Fit a head on a store's labels, and measure it on rows that it was not fitted on.

    Examples: `embedpipe fit photos.features --to photos.head --mistakes mistakes.html`,
    `embedpipe fit photos.features --head ridge --picture confusion.png`
    """
    from embedpipe.heads.fit import fit as run
    from embedpipe.heads.registry import load_estimator
    from embedpipe.report.tables import is_page

    if estimator and head:
        raise UsageError(f"--head and --estimator exclude each other, got {head} and {estimator}: give one of them")
    check_picture(picture)
    if mistakes is not None:
        is_page(mistakes)
    fitted = run(
        store,
        load_estimator(estimator) if estimator else head,
        to=to,
        progress=shows_progress(quiet, as_json),
        **options,
    )
    fitted.report.seconds = process_age()
    if as_json:
        facts = {"head": fitted.name, "label": fitted.label, "store": fitted.store, "folder": str(to) if to else None}
        show.json_value({**facts, **fitted.report.to_dict()})
    elif not quiet:
        show.fit_report(fitted, to, verbose)
    if picture is not None:
        drawn = _draw_confusion(fitted, picture)
        if drawn and not quiet and not as_json:
            print(f"confusion matrix: {picture}")
    if mistakes is not None:
        wrong = fitted.mistakes()
        tables.print_notes(mistakes, wrong.save(mistakes))
        if as_json:
            show.json_value({"mistakes": {"rows": len(wrong), "held_out": wrong.rows, "to": str(mistakes)}})
        if not quiet and not as_json:
            kind = "errors" if wrong.task == "regression" else "mistakes"
            print(f"{len(wrong):,} {kind} on {wrong.rows:,} held-out rows: {mistakes}")


@app.command(rich_help_panel="Learn")
@exits_cleanly
@with_options(SourceOptions, ReloadOptions, ComputeOptions)
def predict(
    head: Annotated[str, typer.Argument(metavar="HEAD", help="Folder of a head, or of an exported model.")],
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE", help="Images or texts, as `embed` takes them; a feature store; or several files."
        ),
    ],
    *,
    to: Annotated[
        Path | None,
        typer.Option("--to", help=f"The table to write: {FORMATS}. Default: a new file {PREDICTIONS}."),
    ] = None,
    least_confident_first: Annotated[
        bool,
        typer.Option("--least-confident-first", help="Sort the table: what a person should look at first comes first."),
    ] = False,
    max_failed: Annotated[
        str | None,
        typer.Option("--max-failed", metavar="N|N%", help="Exit code 3 only if more items failed. Default: 0."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> int:
    """Predict every item of SOURCE. The table has one row per item; items that failed have the reason.

    Example: `embedpipe predict photos.head new_photos --to predictions.xlsx`
    """
    from embedpipe.store import FeatureStore

    tables.check_table(to or Path(PREDICTIONS))
    limit = FailureLimit.parse(max_failed or "0")
    loaded, options = _load(head, options)
    to = to or tables.new_file(PREDICTIONS)
    # Several arguments are files, by path or URL; as strings, a head of texts would take them for texts.
    items: Any = source[0] if len(source) == 1 else [path if "://" in path else Path(path) for path in source]
    if isinstance(items, str) and FeatureStore.exists(items):
        items = FeatureStore(items)
    table = loaded.predict(
        items, least_confident_first=least_confident_first, progress=shows_progress(quiet, as_json), **options
    )
    tables.write_table(table, to)
    summary = show.prediction_summary(loaded, table, to)
    if as_json:
        show.json_value(summary)
    elif not quiet:
        show.predictions(summary, loaded)
    if summary["failed"] and not as_json:
        show.failed_rows(table, to, file=sys.stderr)
    return PARTLY_FAILED if limit.is_exceeded(summary["failed"], summary["rows"]) else 0


@app.command(rich_help_panel="Learn")
@exits_cleanly
@reads_stored_places
@with_options(ExportOptions, ReloadOptions)
def export(
    head: Annotated[str, typer.Argument(metavar="HEAD", help="Folder of a head.")],
    *,
    to: Annotated[
        Path, typer.Option("--to", help="A new folder for the model; that of an exported model is replaced.")
    ],
    store: Annotated[
        str | None,
        typer.Option(
            "--store", help="The store with the rows to compare on. Default: the one that the head was fitted on."
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> None:
    """Write a head and its network as one ONNX graph, in a folder with a predict.py that needs no embedpipe.

    Before the folder is put in place, the model is compared with the head on rows that the head was not fitted on.

    Example: `embedpipe export photos.head --to photos.model`
    """
    from embedpipe.exporting.export import export as run

    done = run(head, to, store=store, progress=shows_progress(quiet, as_json), **options)
    if as_json:
        show.json_value(done.to_dict())
    elif not quiet:
        print(f"{done.format}, {done.precision}, {sum(done.files.values()) / 1e6:,.1f} MB in {to}")
        print(done.comparison.words)
        print(f"python {show.argument(str(to / 'predict.py'))} NEW --to predictions.csv")


def _load(head: str, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return a head or an exported model, and the options of its ``predict``."""
    folder = Path(head).parent if head.endswith((".onnx", ".xml")) else Path(head)
    if folder_kind(folder) != EXPORTED:
        from embedpipe.heads import load_head

        return load_head(head, trust=options["trust"]), options
    from embedpipe.exporting import load_exported

    for cls in (ReloadOptions, ComputeOptions):
        for field in dataclasses.fields(cls):
            if options[field.name] != field.default:
                raise UsageError(
                    f"{option(field.name)} is for the network of a head, and {head!r} is an exported model: leave it "
                    "out"
                )
    return load_exported(folder), {field.name: options[field.name] for field in dataclasses.fields(SourceOptions)}


def _draw_confusion(head: Any, picture: Path) -> bool:
    """Draw the confusion matrix of a head, and return whether there is one."""
    import numpy as np

    from embedpipe.report.drawing.wording import natural_key
    from embedpipe.report.pictures.confusion import draw_confusion

    report = head.report
    if not report.confusion:
        reason = "the head was not measured" if report.task == "classification" else f"the task is {report.task}"
        print(f"embedpipe: {picture} was not drawn: there is no confusion matrix, as {reason}", file=sys.stderr)
        return False
    classes = [str(name) for name in report.classes]
    order = sorted(range(len(classes)), key=lambda i: natural_key(classes[i]))
    draw_confusion(
        np.array(report.confusion)[np.ix_(order, order)],
        [classes[i] for i in order],
        picture,
        title=f"{head.name}: {head.label}",
        subtitle=report.protocol,
        mistakes=head.mistakes().table,
    )
    return True
