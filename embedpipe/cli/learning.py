"""The verbs that work on stored features: fit, predict, search."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from embedpipe.backbones.options import ReloadOptions
from embedpipe.cli import show
from embedpipe.cli.app import PARTLY_FAILED, Store, app
from embedpipe.cli.options import Json, Quiet, Verbose, exits_cleanly, with_options
from embedpipe.cli.tables import check_table_name, write_table
from embedpipe.embedding.options import ComputeOptions
from embedpipe.errors import UsageError
from embedpipe.heads.options import FitOptions
from embedpipe.querying.options import SearchOptions
from embedpipe.sources.options import SourceOptions

Picture = Annotated[Path | None, typer.Option("--picture", metavar="PNG", help="Draw the result, too.")]


@app.command(rich_help_panel="Learn")
@exits_cleanly
@with_options(FitOptions)
def fit(
    store: Store,
    *,
    to: Annotated[Path | None, typer.Option("--to", help="The head's folder; replaces a head.")] = None,
    head: Annotated[
        str | None,
        typer.Option(
            "--head",
            help="logreg (default), ridge (default for numbers), lda, centroid, knn, knn-approx; or auto, "
            "which picks layer, normalisation and head by itself.",
        ),
    ] = None,
    estimator: Annotated[
        str | None, typer.Option("--estimator", metavar="MODULE:CLASS", help="Your own scikit-learn estimator instead.")
    ] = None,
    picture: Picture = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> None:
    """Fit a head on a store's labels, and say what it is worth on rows that it has not seen.

    Example: `embedpipe fit photos.features --head logreg --to photos.head --picture confusion.png`
    """
    from embedpipe.heads.fit import fit as run
    from embedpipe.heads.registry import load_estimator

    if estimator and head:
        raise UsageError(f"--head {head} and --estimator {estimator} both choose the head: give one of them")
    _check_picture(picture)
    made = run(store, load_estimator(estimator) if estimator else head, to=to, progress=not quiet, **options)
    if as_json:
        about = {"head": made.name, "label": made.label, "store": made.store, "folder": str(to) if to else None}
        show.json_value({**about, **made.report.to_dict()})
    elif not quiet:
        show.fit_report(made, to, verbose)
    if picture is not None:
        _draw_confusion(made, picture)


@app.command(rich_help_panel="Learn")
@exits_cleanly
@with_options(SourceOptions, ReloadOptions, ComputeOptions)
def predict(
    head: Annotated[str, typer.Argument(metavar="HEAD", help="Folder of a head.")],
    source: Annotated[
        list[str], typer.Argument(help="Images or texts, as `embed` takes them, or a feature store; or several files.")
    ],
    *,
    to: Annotated[Path, typer.Option("--to", help="The .csv or .parquet file to write.")],
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> int:
    """Predict for every item of SOURCE: one row an item, those that failed included, with the reason.

    Example: `embedpipe predict photos.head new_photos --to predictions.csv`
    """
    from embedpipe.heads import load_head
    from embedpipe.store import FeatureStore

    check_table_name(to)
    loaded = load_head(head, trust=options["trust"])
    # Several are files, by path or URL; a string in a list of texts would be a text.
    given: Any = source[0] if len(source) == 1 else [one if "://" in one else Path(one) for one in source]
    if isinstance(given, str) and FeatureStore.exists(given):
        given = FeatureStore(given)
    table = loaded.predict(given, progress=not quiet, **options)
    write_table(table, to)
    own = isinstance(given, FeatureStore) and given.table_id == loaded.store_id
    summary = show.prediction_summary(loaded, table, to, own)
    if as_json:
        show.json_value(summary)
    elif not quiet:
        show.predictions(summary)
    if summary["failed"] and not as_json:
        show.failed_rows(table, to, file=sys.stderr)
    return PARTLY_FAILED if summary["failed"] else 0


@app.command(rich_help_panel="Learn")
@exits_cleanly
@with_options(SearchOptions, ReloadOptions, ComputeOptions)
def search(
    store: Store,
    query: Annotated[
        list[str],
        typer.Argument(help="An id of the store, an image, text file or folder, a .npy of vectors, or words."),
    ],
    *,
    k: Annotated[int, typer.Option("-k", "--k", help="How many neighbours of each query.")] = SearchOptions().k,
    to: Annotated[Path | None, typer.Option("--to", help="A .csv or .parquet file to write, too.")] = None,
    picture: Picture = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> int:
    """Find what in a store is most like each QUERY, by cosine; exact.

    Words are a query of a store of texts, and of one of photos whose backbone has a tower of texts (open_clip/).

    Examples: `embedpipe search photos.features new.jpg -k 5 --picture similar.png`,
    `embedpipe search messages.features "win a prize"`
    """
    from embedpipe.querying.search import search

    _check_picture(picture)
    if to is not None:
        check_table_name(to)
    found = search(store, list(query), progress=not quiet, k=k, **options)
    if to is not None:
        write_table(found.table, to)
    if picture is not None and len(found.failed) < len(found):
        from embedpipe.report.pictures.neighbours import draw_neighbours

        draw_neighbours(found, picture)
    if as_json:
        show.json_value(found.to_pylist())
    elif not quiet:
        show.neighbours(found)
    for name, reason in found.failed:
        print(f"embedpipe: {name}: {reason}", file=sys.stderr)
    return PARTLY_FAILED if found.failed else 0


def _check_picture(picture: Path | None) -> None:
    """Refuse a wrong name before the work, not after it."""
    if picture is not None:
        from embedpipe.report.drawing.canvas import check_png

        check_png(picture, "a picture")


def _draw_confusion(made: Any, picture: Path) -> None:
    from embedpipe.report.pictures.confusion import draw_confusion

    report = made.report
    if not report.confusion:
        why = "nothing was measured" if report.task == "classification" else f"this is {report.task}"
        print(f"embedpipe: {picture} is not drawn: there is no confusion matrix, as {why}", file=sys.stderr)
        return
    classes = [str(name) for name in report.classes]
    draw_confusion(report.confusion, classes, picture, title=f"{made.name}: {made.label}", subtitle=report.protocol)
