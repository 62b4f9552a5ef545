"""The verb `evaluate`: compare heads, layers and backbones."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from embedpipe._utils.option_names import is_set_by_variable
from embedpipe._utils.options import split_names
from embedpipe.backbones.options import BackboneOptions
from embedpipe.cli import show, tables
from embedpipe.cli.app import PARTLY_FAILED, app
from embedpipe.cli.comparing.protocols import print_protocol
from embedpipe.cli.options import Json, Quiet, Verbose, exits_cleanly, reads_stored_places, shows_progress, with_options
from embedpipe.embedding.options import ComputeOptions
from embedpipe.errors import UsageError
from embedpipe.evaluation.comparison.options import EvaluateOptions
from embedpipe.report.drawing.wording import SHARES, counted
from embedpipe.sources.options import SourceOptions
from embedpipe.statistics.percentages import percent

if TYPE_CHECKING:
    from embedpipe.evaluation import CandidateResult, Evaluation, EvaluationGrid, ProtocolEvaluation
    from embedpipe.evaluation.comparison.candidate_result import Reliability

#: The first class that has an option of a name is the one that is shown.
OPTIONS = (EvaluateOptions, SourceOptions, BackboneOptions, ComputeOptions)


@app.command(rich_help_panel="Compare")
@exits_cleanly
@reads_stored_places
@with_options(*OPTIONS)
def evaluate(
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA",
            help="Feature stores, paths or URLs; those of the same items are one dataset. With --backbones: labelled "
            "images or texts as in `embed`. Or .json files of results, to write them again.",
        ),
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
    backbone: Annotated[
        list[str] | None,
        typer.Option(
            "--backbones",
            help="Backbones PROVIDER/NAME that embed all of DATA, separated by commas; the vectors are cached.",
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
            help="Measure by a published protocol instead: clip-lp, dino-knn, mteb-cls or few-shot; or retrieval, the "
            "recall@k, mAP and NDCG@k of a labelled store.",
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="A .json file to write, with all results: `load_evaluation` reads it.")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            "--table", help=f"A table for a paper to write: .tex (booktabs) or .md; as data {tables.FORMATS}."
        ),
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--page", help="An .html file to write, with all results and charts.")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", help=f"A table to write, {tables.FORMATS}, with every prediction."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> int:
    """Compare heads, layers and backbones on the same rows and splits, with tests of the differences.

    A dataset with a test split is measured there, any other by repeated cross-validation. Near-duplicates and
    groups stay on one side. Results are cached in the cache folder.

    Examples: `embedpipe evaluate photos.features --page report.html`,
    `embedpipe evaluate small.features large.features --heads logreg,auto`,
    `embedpipe evaluate photos.features --protocol retrieval`,
    `embedpipe evaluate photos drawings --backbones timm/resnet50,torchvision/resnet18 --table results.tex`
    """
    from embedpipe.evaluation import Evaluation

    _check_files(to, table, page, predictions)
    names = list(split_names("heads", [] if heads is None else [heads]))
    backbones = list(split_names("backbones", backbone or ()))
    progress = shows_progress(quiet, as_json)
    result: Evaluation | EvaluationGrid | ProtocolEvaluation
    if all(Path(path).suffix.lower() == ".json" for path in data):
        changed = [name for name, value in _usual().items() if options[name] != value and not is_set_by_variable(name)]
        if names or backbones or splits or protocol or changed:
            raise UsageError("saved results are measured already: only --to, --table, --page and --predictions apply")
        result = _loaded(data)
    elif protocol is not None:
        result = _by_protocol(data, protocol, names, backbones, splits, progress, options)
    else:
        from embedpipe.evaluation import evaluate_datasets

        grid = evaluate_datasets(data, backbones=backbones, heads=names, splits=splits, progress=progress, **options)
        result = grid if len(grid.datasets) > 1 else next(iter(grid.datasets.values()))
        if grid.failed and isinstance(result, Evaluation):
            result.failed = {**result.failed, **grid.failed}
    return _report(result, to, table, page, predictions, as_json, quiet, verbose)


def _check_files(to: Path | None, table: Path | None, page: Path | None, predictions: Path | None) -> None:
    """Refuse names of files before anything is measured."""
    if to is not None:
        from embedpipe.evaluation.saving import check_results

        check_results(to)
    if table is not None:
        from embedpipe.evaluation.paper_table import SUFFIXES

        tables.check_table_beside_page(table, SUFFIXES)
    if page is not None:
        from embedpipe.report.page import check_page

        check_page(page)
    if predictions is not None:
        tables.check_table_beside_page(predictions)


def _usual() -> dict[str, Any]:
    """Return the options that no measurement has been asked for."""
    classes: tuple[Any, ...] = OPTIONS[::-1]
    return {name: value for cls in classes for name, value in dataclasses.asdict(cls()).items() if name != "backbone"}


def _loaded(paths: Sequence[str]) -> Evaluation | EvaluationGrid | ProtocolEvaluation:
    """Return saved results; several evaluations become one of several datasets, named after their files."""
    from embedpipe.evaluation import Evaluation, EvaluationGrid, load_evaluation

    results = {Path(path).stem: load_evaluation(path) for path in paths}
    if len(paths) == 1:
        return next(iter(results.values()))
    if len(results) < len(paths):
        raise UsageError(
            f"the names of files of results must differ, as they name the datasets, got {', '.join(paths)}"
        )
    datasets: dict[str, Evaluation] = {}
    failed: dict[str, str] = {}
    for name, result in results.items():
        if not isinstance(result, Evaluation | EvaluationGrid):
            raise UsageError(f"results of protocols are of one dataset and cannot be joined, got {name}.json")
        added = result.datasets if isinstance(result, EvaluationGrid) else {name: result}
        if both := datasets.keys() & added:
            raise UsageError(
                f"the names of datasets must differ between files, and {min(both)!r} of {name}.json is in another too"
            )
        datasets |= added
        failed |= result.failed
    return EvaluationGrid(datasets, failed)


def _by_protocol(
    data: Sequence[str],
    protocol: str,
    heads: Sequence[str],
    backbones: Sequence[str],
    splits: str | None,
    progress: bool | None,
    options: dict[str, Any],
) -> ProtocolEvaluation:
    from embedpipe.evaluation import evaluate as run

    if heads or backbones:
        raise UsageError(f"--heads and --backbones must be left out with --protocol {protocol}, which measures stores")
    fields = {field.name for field in dataclasses.fields(EvaluateOptions)}
    own = {name: value for name, value in options.items() if name in fields}
    return run(data, protocol=protocol, splits=splits, progress=progress, **own)


def _report(
    result: Evaluation | EvaluationGrid | ProtocolEvaluation,
    to: Path | None,
    table: Path | None,
    page: Path | None,
    predictions: Path | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Write the files that were asked for, print, and return the exit code."""
    notes: list[tuple[Path, str]] = []
    if to is not None:
        notes += [(to, note) for note in result.save(to)]
    if table is not None:
        notes += [(table, note) for note in result.to_table(table)]
    if predictions is not None:
        tables.write_table(result.predictions, predictions)
    if page is not None:
        result.to_html(page)
    if as_json:
        show.json_value(result.to_dict())
    elif not quiet:
        print_result(result, verbose)
        for name, file in (("results", to), ("table", table), ("page", page), ("predictions", predictions)):
            if file is not None:
                print(f"{name}: {file}")
    for file, note in notes:
        print(f"embedpipe: {file}: {note}", file=sys.stderr)
    failed: dict[str, str] = getattr(result, "failed", {})
    for name, reason in failed.items():
        print(f"embedpipe: {name}: {reason}", file=sys.stderr)
    return PARTLY_FAILED if failed else 0


def print_result(result: Evaluation | EvaluationGrid | ProtocolEvaluation, verbose: bool) -> None:
    """Print results of any kind."""
    from embedpipe.evaluation import Evaluation, EvaluationGrid

    if isinstance(result, Evaluation):
        print_evaluation(result, verbose)
    elif isinstance(result, EvaluationGrid):
        print_grid(result, verbose)
    else:
        print_protocol(result, verbose)


def print_grid(grid: EvaluationGrid, verbose: bool) -> None:
    """Print an `EvaluationGrid` as one table; verbosely, also each dataset."""
    from embedpipe.report.drawing.wording import metric_name

    for name, evaluation in grid.datasets.items():
        classes = f", {len(evaluation.classes):,} classes" if evaluation.classes else ""
        print(f"{name}: {evaluation.label!r}, {evaluation.rows:,} rows{classes}: {evaluation.resampling}")
        for note in evaluation.notes:
            print(f"{name}: note: {note}")
    paper = grid.table()
    shown = Table(*paper.names, box=None)
    for column in paper.columns:
        shown.add_column(
            f"{column.title}, {metric_name(column.metric)}" if column.metric else column.title, justify="right"
        )
    for texts, cells in paper.rows:
        row: list[str | Text] = [show.plain(text) for text in texts]
        for column, cell in zip(paper.columns, cells, strict=True):
            value, interval = ("", "") if cell is None else column.shown(cell)
            row.append(f"{value}{'*' * (cell is not None and cell.bold)}" + (f" ({interval})" if interval else ""))
        shown.add_row(*row)
    print()
    show.print_table(shown)
    print("\n* the best of a dataset, and those that are not significantly worse (95 %, corrected for all pairs)")
    if verbose:
        for name, evaluation in grid.datasets.items():
            print(f"\n{name}")
            print_evaluation(evaluation, verbose)


def print_evaluation(evaluation: Evaluation, verbose: bool) -> None:
    """Print an `Evaluation` as a table, with a conclusion."""
    metric = evaluation.metric
    classes = f", {len(evaluation.classes):,} classes" if evaluation.classes else ""
    print(
        f"{evaluation.label!r}, {evaluation.rows:,} rows{classes}: {evaluation.resampling}, {evaluation.seconds:.1f} s"
    )
    for reason, count in evaluation.left_out.items():
        print(f"left out: {counted(count, 'row')} {reason}")
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


def _cells(candidate: CandidateResult, metric: str, is_share: bool, others: list[str]) -> list[str | Text]:
    estimates = candidate.estimates
    values = [show.metric_value(estimates[name].value, name in SHARES) if name in estimates else "" for name in others]
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
    return f"<{percent(least)}" if calibration.ece_debiased < least else f"{percent(calibration.ece_debiased)}"


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
