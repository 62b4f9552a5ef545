"""The verb that compares heads, layers and backbones: evaluate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from embedpipe.cli import show
from embedpipe.cli.app import PARTLY_FAILED, app
from embedpipe.cli.options import Json, Quiet, Verbose, exits_cleanly, with_options
from embedpipe.cli.tables import check_table_name, write_table
from embedpipe.errors import UsageError
from embedpipe.evaluation.comparison.options import EvaluateOptions

if TYPE_CHECKING:
    from embedpipe.evaluation import Evaluation
    from embedpipe.evaluation.comparison.result import CandidateResult
    from embedpipe.evaluation.protocols.measure import LayerProtocol


@app.command(rich_help_panel="Compare")
@exits_cleanly
@with_options(EvaluateOptions)
def evaluate(
    store: Annotated[list[str], typer.Argument(help="Feature stores of the same items, by path or URL.")],
    *,
    heads: Annotated[
        str | None,
        typer.Option(
            "--heads",
            help="What `fit --head` takes, several separated by commas. By default logreg,lda,ridge,knn; for numbers "
            "ridge,knn.",
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", help="A published protocol instead: clip-lp, dino-knn, mteb-cls, few-shot."),
    ] = None,
    page: Annotated[Path | None, typer.Option("--page", help="An .html file to write: all of it, with plots.")] = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="A .parquet file to write: every single prediction.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> int:
    """Compare heads, layers and backbones on the same rows and splits: which is best, and is that more than chance?

    A store whose split column names train and test is measured there, any other by repeated cross-validation;
    near-duplicates stay on one side. What was measured before is kept in the cache folder.

    Examples: `embedpipe evaluate photos.features --page report.html`,
    `embedpipe evaluate small.features large.features --heads logreg,auto`
    """
    names = [name.strip() for name in (heads or "").split(",") if name.strip()]
    if protocol is not None:
        if names or page or predictions:
            raise UsageError(f"--protocol {protocol} has its own heads and figures: leave --heads, --page and "
                             "--predictions out")  # fmt: skip
        _measure_protocol(store, protocol, as_json, quiet, verbose, options)
        return 0
    from embedpipe.evaluation import evaluate as run

    if page is not None:
        from embedpipe.report.page import check_page

        check_page(page)
    if predictions is not None:
        check_table_name(predictions, (".parquet",))
    found = run(store, heads=names, progress=not quiet, **options)
    if predictions is not None:
        write_table(found.predictions, predictions)
    if page is not None:
        from embedpipe.evaluation.comparison.page import write_evaluation

        write_evaluation(found, page)
    if as_json:
        show.json_value(found.to_dict())
    elif not quiet:
        print_evaluation(found, verbose)
        if page is not None:
            print(f"the whole of it: {page}")
    for name, why in found.failed.items():
        print(f"embedpipe: {name}: {why}", file=sys.stderr)
    return PARTLY_FAILED if found.failed else 0


def print_evaluation(found: Evaluation, verbose: bool) -> None:
    """Print what `embedpipe.evaluate` found."""
    classes = f", {len(found.classes):,} classes" if found.classes else ""
    print(f"{found.label!r} of {found.rows:,} rows{classes}: {found.protocol}, {found.seconds:.1f} s")
    for why, count in found.left_out.items():
        print(f"left out: {count:,} rows {why}")
    for note in found.notes:
        print(f"note: {note}")
    shares = found.metric in ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc")
    known = dict.fromkeys(name for one in found.candidates for name in one.estimates)
    others = [name for name in known if name != found.metric and (verbose or name in ("log_loss", "mae"))]
    errors = ["ECE", "calibrated"] if classes else []
    table = Table("candidate", found.metric.replace("_", " "), "less the best", "verdict", box=None)
    for name in [*(name.replace("_", " ") for name in others), *errors, "fit", "predict 1,000"]:
        table.add_column(name, justify="right")
    for one in found.candidates:
        table.add_row(*_cells(one, found.metric, shares, others))
    table.add_row("always the commonest class" if classes else "always the mean",
                  show.figure(found.baseline[found.metric], shares))  # fmt: skip
    print()
    show.print_table(table)
    print(f"\n{conclusion(found, shares)}")
    if verbose:
        print(f"splits {found.splits_id}")
        for one in found.candidates:
            if one.difference is not None:
                d = one.difference
                print(f"{one.name}: p = {d.p:.4f}, {d.adjusted:.4f} by Holm ({d.test}); within {found.margin:g} of the "
                      f"best with probability {d.equal:.3f}")  # fmt: skip
            for name, values in one.chosen.items():
                print(f"{one.name}: {name} {', '.join(dict.fromkeys(map(str, values)))}")


def _cells(one: CandidateResult, metric: str, shares: bool, others: list[str]) -> list[str | Text]:
    figures = [show.figure(one.estimates[name].value, False) if name in one.estimates else "" for name in others]
    errors = [f"{one_of.ece_debiased:.1%}" if one_of else "" for one_of in (one.calibration, one.calibrated)]
    return [
        show.plain(one.name),
        show.interval(one.estimates[metric], shares),
        "" if one.difference is None else show.interval(one.difference.estimate, shares, "+"),
        "best" if one.difference is None else one.difference.verdict,
        *figures,
        *(errors if one.per_class else []),
        f"{one.fit_seconds:.2f} s",
        f"{one.predict_seconds * 1000:.1f} ms",
    ]


def conclusion(found: Evaluation, shares: bool) -> str:
    """Say in a sentence what the order is worth."""
    said = f"{found.best.name} is first with {show.interval(found.best.estimates[found.metric], shares)}"
    if len(found.candidates) == 1:
        return f"{said}; it was compared with nothing"
    rest: dict[str, list[str]] = {}
    for one in found.candidates[1:]:
        if one.difference is not None:
            rest.setdefault(one.difference.verdict, []).append(one.name)
    for verdict, words in (("equivalent", "practically as good"), ("undecided", "not told apart from it")):
        if verdict in rest:
            said += f"; {words}: {', '.join(rest[verdict])}"
    if set(rest) == {"worse"}:
        said += "; all others are worse, beyond what chance does (95 %, corrected for several tests)"
    return said


def _measure_protocol(
    stores: list[str], protocol: str, as_json: bool, quiet: bool, verbose: bool, options: dict[str, Any]
) -> None:
    from dataclasses import asdict

    from embedpipe.evaluation.protocols.measure import measure_protocol

    found = measure_protocol(stores, protocol, progress=not quiet, **options)
    if as_json:
        show.json_value([{**asdict(one), "figures": one.figures} for one in found])
    elif not quiet:
        _print_protocol(found, verbose)


def _print_protocol(found: list[LayerProtocol], verbose: bool) -> None:
    print(f"{found[0].results[0].protocol} on {found[0].splits}")
    # Of one architecture, backbones do not tell stores apart.
    kind = "store" if len({one.store for one in found}) > len({one.backbone for one in found}) else "backbone"
    names: list[str] = [getattr(one, kind) for one in found]
    table = Table(kind, "layer", *found[0].figures, box=None)
    for name, one in zip(names, found, strict=True):
        table.add_row(
            show.plain(name),
            show.plain("+".join(one.layers)),
            *(f"{value:.4g}" for value in one.figures.values()),
        )
    show.print_table(table)
    if verbose:
        for name, value in found[0].results[0].settings.items():
            print(f"{name}: {value}")
        for name, one in zip(names, found, strict=True):
            for row in one.results[0].details:
                print(f"{name} {'+'.join(one.layers)}: {row}")
