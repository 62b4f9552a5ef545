"""The verb `evaluate`: compare heads, layers and backbones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from embedpipe.cli import show, tables
from embedpipe.cli.app import PARTLY_FAILED, app
from embedpipe.cli.options import Json, Quiet, Verbose, exits_cleanly, shows_progress, with_options
from embedpipe.errors import UsageError
from embedpipe.evaluation.comparison.options import EvaluateOptions

if TYPE_CHECKING:
    from embedpipe.evaluation import CandidateResult, Evaluation, ProtocolEvaluation
    from embedpipe.evaluation.comparison.candidate_result import Reliability

#: Metrics that are printed in percent.
SHARES = ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc")


@app.command(rich_help_panel="Compare")
@exits_cleanly
@with_options(EvaluateOptions)
def evaluate(
    store: Annotated[
        list[str], typer.Argument(metavar="STORE", help="Feature stores of the same items, paths or URLs.")
    ],
    *,
    heads: Annotated[
        str | None,
        typer.Option(
            "--heads",
            help="Heads as in `fit --head`, separated by commas. By default logreg,lda,ridge,knn; for regression "
            "ridge,knn.",
        ),
    ] = None,
    splits: Annotated[
        str | None,
        typer.Option("--splits", help="A .parquet file of splits to use; a file that does not exist is written."),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol",
            help="Measure by a published protocol instead: clip-lp, dino-knn, mteb-cls or few-shot.",
        ),
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--page", help="An .html file to write, with all results and charts.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help=f"A table to write, with every prediction: {tables.FORMATS}.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> int:
    """Compare heads, layers and backbones on the same rows and splits, with tests of the differences.

    A store with a test split is measured there, any other store by repeated cross-validation. Near-duplicates and
    groups stay on one side. Results are cached in the cache folder.

    Examples: `embedpipe evaluate photos.features --page report.html`,
    `embedpipe evaluate small.features large.features --heads logreg,auto`
    """
    from embedpipe.evaluation import evaluate as run

    names = [name.strip() for name in (heads or "").split(",") if name.strip()]
    if protocol is not None:
        if names or page or predictions:
            raise UsageError(f"--heads, --page and --predictions must be left out with --protocol {protocol}")
        result = run(store, protocol=protocol, splits=splits, progress=shows_progress(quiet, as_json), **options)
        if as_json:
            show.json_value(result.to_dict())
        elif not quiet:
            print_protocol(result, verbose)
        return 0
    if page is not None:
        from embedpipe.report.page import check_page

        check_page(page)
    if predictions is not None:
        tables.check_table(predictions)
    evaluation = run(store, heads=names, splits=splits, progress=shows_progress(quiet, as_json), **options)
    if predictions is not None:
        tables.write_table(evaluation.predictions, predictions)
    if page is not None:
        evaluation.to_html(page)
    if as_json:
        show.json_value(evaluation.to_dict())
    elif not quiet:
        print_evaluation(evaluation, verbose)
        if page is not None:
            print(f"page: {page}")
    for name, reason in evaluation.failed.items():
        print(f"embedpipe: {name}: {reason}", file=sys.stderr)
    return PARTLY_FAILED if evaluation.failed else 0


def print_evaluation(evaluation: Evaluation, verbose: bool) -> None:
    """Print an `Evaluation` as a table, with a conclusion."""
    metric = evaluation.metric
    classes = f", {len(evaluation.classes):,} classes" if evaluation.classes else ""
    print(
        f"{evaluation.label!r}, {evaluation.rows:,} rows{classes}: {evaluation.resampling}, {evaluation.seconds:.1f} s"
    )
    for reason, count in evaluation.left_out.items():
        print(f"left out: {count:,} rows {reason}")
    for note in evaluation.notes:
        print(f"note: {note}")
    is_share = metric in SHARES
    known = dict.fromkeys(name for candidate in evaluation.candidates for name in candidate.estimates)
    others = [name for name in known if name != metric and (verbose or name in ("log_loss", "mae"))]
    errors = ["ECE", "calibrated ECE"] if classes else []
    table = Table("candidate", metric.replace("_", " "), "difference", "verdict", box=None)
    for name in [*(name.replace("_", " ") for name in others), *errors, "fit", "predict 1,000"]:
        table.add_column(name, justify="right")
    for candidate in evaluation.candidates:
        table.add_row(*_cells(candidate, metric, is_share, others))
    table.add_row(
        "baseline: most frequent class" if classes else "baseline: mean",
        show.metric_value(evaluation.baseline[metric], is_share),
    )
    print()
    show.print_table(table)
    print(f"\n{conclusion(evaluation, is_share)}")
    if verbose:
        _print_tests(evaluation)


def conclusion(evaluation: Evaluation, is_share: bool) -> str:
    """Return one sentence on the best candidate and the verdicts on the others."""
    best = evaluation.best
    text = f"best: {best.name} with {show.interval(best.estimates[evaluation.metric], is_share)}"
    if len(evaluation.candidates) == 1:
        return f"{text}; no other candidate"
    names: dict[str, list[str]] = {}
    for candidate in evaluation.candidates[1:]:
        names.setdefault(candidate.verdict, []).append(candidate.name)
    for verdict, words in (("equivalent", "practically equivalent"), ("undecided", "not distinguishable from it")):
        if verdict in names:
            text += f"; {words}: {', '.join(names[verdict])}"
    if set(names) == {"worse"}:
        text += "; all others are significantly worse (95 %, corrected for all pairs)"
    return text


def print_protocol(result: ProtocolEvaluation, verbose: bool) -> None:
    """Print a `ProtocolEvaluation` as a table."""
    print(f"{result.protocol}, {result.label!r}: {result.resampling}")
    for reason, count in result.left_out.items():
        print(f"left out: {count:,} rows {reason}")
    for note in result.notes:
        print(f"note: {note}")
    # Stores of one backbone are named by their paths.
    backbones, stores = ({getattr(each, kind) for each in result.layers} for kind in ("backbone", "store"))
    kind = "store" if len(stores) > len(backbones) else "backbone"
    metrics = list(result.layers[0].metrics)
    table = Table(kind, "layer", *metrics, box=None)
    for record in result.records():
        values = (f"{record[name]:.4g}" if name in record else "" for name in metrics)
        table.add_row(show.plain(record[kind]), show.plain(record["layer"]), *values)
    show.print_table(table)
    if verbose:
        for name, value in result.layers[0].results[0].settings.items():
            print(f"{name}: {value}")
        for record, layer in zip(result.records(), result.layers, strict=True):
            for row in layer.results[0].details:
                print(f"{record[kind]} {record['layer']}: {row}")


def _cells(candidate: CandidateResult, metric: str, is_share: bool, others: list[str]) -> list[str | Text]:
    estimates = candidate.estimates
    values = [show.metric_value(estimates[name].value, False) if name in estimates else "" for name in others]
    errors = [_calibration_error(each) if each else "" for each in (candidate.calibration, candidate.calibrated)]
    difference = candidate.difference
    return [
        show.plain(candidate.name),
        show.interval(estimates[metric], is_share),
        "" if difference is None else show.interval(difference.estimate, is_share, "+"),
        candidate.verdict,
        *values,
        *(errors if candidate.per_class else []),
        f"{candidate.fit_seconds:.2f} s",
        f"{candidate.predict_seconds * 1000:.1f} ms",
    ]


def _calibration_error(calibration: Reliability) -> str:
    """Return the debiased error in percent, or the smallest one that so many rows can show."""
    least = calibration.smallest_error
    return f"< {least:.1%}" if calibration.ece_debiased < least else f"{calibration.ece_debiased:.1%}"


def _print_tests(evaluation: Evaluation) -> None:
    print(f"splits {evaluation.splits_id}")
    for candidate in evaluation.candidates:
        if (difference := candidate.difference) is not None:
            print(
                f"{candidate.name}: p = {difference.p:.4f}, corrected {difference.adjusted:.4f} ({difference.test}, "
                f"Holm); within {evaluation.margin:g} of the best with probability {difference.equal:.3f}"
            )
        for name, values in candidate.chosen.items():
            print(f"{candidate.name}: {name} {', '.join(dict.fromkeys(map(str, values)))}")
