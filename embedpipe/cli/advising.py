"""The verbs benchmark and advise."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from embedpipe._utils.options import split_names
from embedpipe.backbones.options import ReloadOptions
from embedpipe.cli import show
from embedpipe.cli.app import app
from embedpipe.cli.finetuning import Backbone, Device, Label, Source, default_folder
from embedpipe.cli.options import Json, Quiet, Verbose, exits_cleanly, reads_stored_places, shows_progress, with_options
from embedpipe.finetuning.advice.options import AdviseOptions
from embedpipe.finetuning.benchmark.benchmark_data import SEEDS_FOR_INTERVALS
from embedpipe.finetuning.benchmark.options import BenchmarkOptions
from embedpipe.finetuning.options import FineTuneOptions, LedgerOptions, SplitOptions
from embedpipe.report.drawing.wording import counted
from embedpipe.statistics.percentages import percent

if TYPE_CHECKING:
    from embedpipe.finetuning import Advice, Benchmark, FineTuneResult
    from embedpipe.finetuning.advice.forecasting.forecast import Forecast
    from embedpipe.statistics import Estimate

#: Frozen baselines that are printed without --verbose.
SHOWN_BASELINES = 5


@app.command(rich_help_panel="Fine-tune")
@exits_cleanly
@reads_stored_places
@with_options(BenchmarkOptions, FineTuneOptions, SplitOptions, ReloadOptions)
def benchmark(
    source: Source,
    *,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", help="Folder of the run: new, or that of one to continue. Default: DATA.benchmark in this folder."
        ),
    ] = None,
    learners: Annotated[
        str, typer.Option("--learners", help="Some of linear-probe, lp-ft, finetune, scratch and contrastive.")
    ] = "linear-probe,lp-ft,finetune,scratch",
    label: Label = "label",
    backbone: Backbone = "",
    page: Annotated[
        Path | None, typer.Option("--page", help="Write the result with charts to this .html file.")
    ] = None,
    device: Device = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> None:
    """Measure learning curves of a linear probe, fine-tuned networks and a network from scratch.

    linear-probe: a linear head on frozen features. lp-ft: a network that starts from that head. finetune: one that
    starts from a random head. scratch: one that starts from random weights. All learn from the same draws of labels and
    are measured on the same test rows, uncorrupted and corrupted. contrastive, for texts, brings those of a class
    together. The same command continues an interrupted run.

    Examples: `embedpipe benchmark photos.features --to bench --page bench.html`,
    `embedpipe benchmark photos --backbone timm/resnet18 --time-budget 10min --to bench`
    """
    from embedpipe.finetuning.benchmark.benchmark import benchmark as run

    if page is not None:
        from embedpipe.report.page import check_page

        check_page(page)
    to = default_folder(source, ".benchmark") if to is None else to
    names: Any = split_names("learners", [learners])
    arguments: dict[str, Any] = {"learners": names, "label": label, "backbone": backbone, "device": device}
    result = run(source, to=to, progress=shows_progress(quiet, as_json), **arguments, **options)
    if page is not None:
        result.to_html(page)
    if as_json:
        show.json_value(result.to_dict())
    elif not quiet:
        print_benchmark(result, verbose)


def print_benchmark(result: Benchmark, verbose: bool) -> None:
    """Print the result of `embedpipe.benchmark`."""
    print(
        f"{result.label!r} of {show.plain(result.data)}, {counted(len(result.classes), 'class', 'classes')}, "
        f"{result.backbone} on {result.device}: {result.test_rows:,} test rows, {counted(len(result.seeds), 'seed')}, "
        f"{result.seconds:,.0f} s of training and measuring"
    )
    for note in result.notes:
        print(f"note: {note}")
    table = Table("labels", *result.learners, box=None)
    for labels in result.label_counts:
        accuracies = [[cell.accuracy for cell in result.cells_of(learner, labels)] for learner in result.learners]
        table.add_row(f"{labels:,}", *(f"{percent(mean(values))}" if values else "" for values in accuracies))
    show.print_table(table)
    print("\naccuracy on the test rows, mean over seeds")
    if result.seeds_warning:
        print(result.seeds_warning)
    table = Table("labels", "learner", "minus", "accuracy", "before training", "after one epoch", "shifted", box=None)
    enough = len(result.seeds) >= SEEDS_FOR_INTERVALS
    for row in result.differences:
        estimates = (row.accuracy, row.initial_accuracy, row.after_one_epoch, row.shifted_accuracy)
        if any(estimates):
            cells = map(_points if enough else _points_alone, estimates)
            table.add_row(f"{row.labels:,}", row.learner, row.reference, *cells)
    if table.rows:
        print(f"\ndifferences in points{', with 95 % intervals' if enough else ''}:\n")
        show.print_table(table)
    for savings in result.savings:
        if savings.is_informative and savings.labels is not None:
            time = f" and {_fraction(savings.seconds)} of its training time" if savings.seconds else ""
            print(
                f"for the {percent(savings.accuracy)} of {savings.reference}, {savings.learner} needs "
                f"{_fraction(savings.labels)} of its labels{time}"
            )
    if verbose:
        for cell in result.cells:
            print(
                f"{cell.learner} {cell.labels:,} seed {cell.seed}: {percent(cell.accuracy)}, "
                f"log-loss {cell.log_loss:.4f}, epoch {cell.best_epoch}, {cell.seconds:,.1f} s"
            )
        print(f"splits {result.splits_id}")


@app.command(rich_help_panel="Fine-tune")
@exits_cleanly
@reads_stored_places
@with_options(AdviseOptions, FineTuneOptions, SplitOptions, ReloadOptions, LedgerOptions)
def advise(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="STORE|DATA", help="A feature store, or images or texts; then stores of other backbones."
        ),
    ],
    *,
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder for the runs of a time budget; finished ones count.")
    ] = None,
    act: Annotated[
        bool, typer.Option("--act", help="Fine-tune in the folder of --to, if that is recommended or expected to pay.")
    ] = False,
    page: Annotated[
        Path | None, typer.Option("--page", help="Write the forecast with its steps to this .html file.")
    ] = None,
    label: Label = "label",
    backbone: Backbone = "",
    device: Device = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> None:
    """Forecast what fine-tuning gains over the best head on frozen features, and say what to do.

    Fine-tune, stay with the head, or find out first: heads on frozen features are measured, and published results say
    what networks gained over such heads. With --time-budget, networks are trained, the cheapest runs that can decide
    first, until the forecast decides. What is proved at 95 % stands beside the forecast.

    Examples: `embedpipe advise photos.features`, `embedpipe advise photos.features --time-budget 30min --to advice`
    """
    from embedpipe.finetuning import advise as run

    if page is not None:
        from embedpipe.report.page import check_page

        check_page(page)
    sources: Any = source[0] if len(source) == 1 else source
    arguments: dict[str, Any] = {"to": to, "label": label, "backbone": backbone, "act": act, "device": device}
    result = run(sources, progress=shows_progress(quiet, as_json), **arguments, **options)
    if page is not None:
        result.to_html(page)
    if as_json:
        show.json_value(result.to_dict())
    elif not quiet:
        print_advice(result, verbose)


def print_advice(result: Advice, verbose: bool) -> None:
    """Print the result of `embedpipe.advise`."""
    from embedpipe.finetuning.advice.page import chance_of, describe_step
    from embedpipe.report.drawing.wording import rough_duration

    verdict, frozen = result.verdict, result.frozen_baselines
    heading = "recommendation"
    if result.network is not None:  # the outcome is what counts; the recommendation led to it
        print(_outcome(result.network))
        heading += " before"
    print(f"{heading}: {result.recommendation.upper()}\n")
    for sentence in result.sentences():
        print(f"- {sentence}")
    if verbose:
        for sentence in verdict.evidence:
            print(f"- {sentence}")
    if len(result.steps) > 1:
        for step in result.steps:
            print(f"{describe_step(step)}: {_forecast(step.forecast)}")
    for note in result.notes:
        print(f"note: {note}")
    table = Table("on frozen features", "accuracy", f"minus {frozen.reference.name}, points", "", box=None)
    baselines = frozen.baselines if verbose else frozen.baselines[:SHOWN_BASELINES]
    for baseline in baselines:
        accuracy, difference = show.interval(baseline.accuracy, True), _points(baseline.difference)
        table.add_row(show.plain(baseline.name), accuracy, difference, baseline.verdict)
    held_out = f"networks are measured on {result.held_out_rows:,} of them"
    print(f"\n{counted(frozen.rows, 'row')}, {frozen.resampling}; {held_out}:\n")
    show.print_table(table)
    if len(frozen.baselines) > len(baselines):
        print(f"and {len(frozen.baselines) - len(baselines)} more (--verbose)")
    if verbose and result.would_change:
        print("\nwhat would change the strict verdict:")
        for sentence in result.would_change:
            print(f"- {sentence}")
    following = result.next_step
    if following is not None:
        takes = "time unknown" if following.minutes is None else rough_duration(following.minutes)
        details = [following.description, *([] if following.verb == "fit" else [takes])]
        if following.chance is not None:
            details.append(f"{chance_of(result)} with a probability of {following.chance:.2f}")
        print(f"\nnext: {', '.join(details)}:\n{following.command}")


def _outcome(network: FineTuneResult) -> str:
    test, kept = network.test, network.best_epoch > 0
    lines = (
        f"the {'network' if kept else 'head'} is kept, as it is better on the validation rows: "
        f"fine-tuned in {show.plain(network.folder)}\n"
        f"on {test.rows:,} test rows: head {percent(test.linear_probe)}"
    )
    if kept:  # else it is the head that was measured
        lines += (
            f", network {percent(test.finetuned)}, difference {100 * test.difference:+z.1f} points "
            f"({100 * test.low:+z.1f} to {100 * test.high:+z.1f})"
        )
    return f"{lines}\n"


def _forecast(forecast: Forecast) -> str:
    return f"{100 * forecast.gain.value:+z.1f} points, probability {forecast.probability:.2f}"


def _points(difference: Estimate | None) -> str:
    return "" if difference is None else show.interval(difference, True, "+")


def _points_alone(difference: Estimate | None) -> str:
    return "" if difference is None else f"{100 * difference.value:+z.1f}"


def _fraction(estimate: Estimate) -> str:
    if not estimate.low:  # the smallest number of labels was enough
        return f"at most {estimate.high:.2f}"
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"
