"""The verbs that train the network itself, or say whether that pays: finetune, benchmark, advise."""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from embedpipe.backbones.options import ReloadOptions
from embedpipe.cli import show
from embedpipe.cli.app import PARTLY_FAILED, app
from embedpipe.cli.options import Json, Quiet, Verbose, exits_cleanly, with_options
from embedpipe.finetuning.advice.options import AdviseOptions
from embedpipe.finetuning.benchmark.options import BenchmarkOptions
from embedpipe.finetuning.options import FineTuneOptions, SplitOptions

if TYPE_CHECKING:
    from embedpipe.finetuning import Advice, Benchmark, FineTuneResult
    from embedpipe.statistics import Estimate

Source = Annotated[str, typer.Argument(metavar="STORE|DATA", help="A feature store of images, or images with labels.")]
Label = Annotated[str, typer.Option("--label", help="The column to learn.")]
Backbone = Annotated[str, typer.Option("--backbone", help="PROVIDER/NAME, for images that are in no store yet.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1; chosen if not given.")]


@app.command(rich_help_panel="Fine-tune")
@exits_cleanly
@with_options(FineTuneOptions, SplitOptions, ReloadOptions)
def finetune(
    source: Source,
    *,
    to: Annotated[Path, typer.Option("--to", help="Folder of the run: new, or that of a run to continue.")],
    head: Annotated[
        Path | None, typer.Option("--head", help="Folder of a linear head; by default a calibrated logreg is fitted.")
    ] = None,
    label: Label = "label",
    backbone: Backbone = "",
    page: Annotated[
        Path | None, typer.Option("--page", help="Write the learning curves to this .html file after each epoch.")
    ] = None,
    device: Device = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> int:
    """Fine-tune the backbone of a store, starting from a linear head on its features (LP-FT).

    The head becomes the last layer of the network; then all weights are trained. The weights of the latest epoch whose
    validation accuracy is within one standard error of the best are kept, or those of the linear probe if it is better.
    The test rows are read once, at the end. The same command continues a run that was interrupted. The result is a
    backbone, `embed --backbone checkpoint/TO/backbone.safetensors`, and a head on its features.

    Example: `embedpipe finetune photos.features --head photos.head --to photos.tuned`
    """
    from embedpipe.finetuning.finetune import finetune as run
    from embedpipe.finetuning.training.launcher import is_first_process, launched_processes
    from embedpipe.store import FeatureStore

    on_epoch = None
    if page is not None:
        from embedpipe.finetuning.training.page import page_writer

        on_epoch = page_writer(page, options["epochs"], to.resolve().name)
    arguments: dict[str, Any] = {"to": to, "label": label, "backbone": backbone, "device": device, **options}
    result = run(source, head, progress=not quiet, on_epoch=on_epoch, **arguments)
    if not is_first_process():
        return 0
    if page is not None:
        result.to_html(page)
    if as_json:
        show.json_value(result.to_dict())
    elif not quiet:
        print_finetune(result, source if FeatureStore.exists(source) else str(to / "features"), verbose)
    for id, reason in result.failed.items():
        print(f"embedpipe: left out: {id}: {reason}", file=sys.stderr)
    # A launcher takes any exit code but 0 for a crash.
    return PARTLY_FAILED if result.failed and launched_processes() == 1 else 0


def print_finetune(result: FineTuneResult, store: str, verbose: bool) -> None:
    """Print the result of `embedpipe.finetune`; ``store`` holds the features of the backbone before training."""
    check, test = result.initial_check, result.test
    print(
        f"trained on {result.train_rows:,} images, validated on {result.validation_rows:,}, in "
        f"{result.seconds:,.0f} s on {result.device} in {result.precision}, augmentation {result.augmentation}"
    )
    for note in result.notes:
        print(f"note: {note}")
    print(
        f"initial check on {check.rows:,} validation rows: head on stored features {check.head_accuracy:.2%}, network "
        f"on images {check.network_accuracy:.2%}, logits differ by at most {check.largest_logit_difference:.1g}"
    )
    table = Table("epoch", "training loss", "validation accuracy", "validation log-loss", "s", box=None)
    for epoch in result.epochs:
        table.add_row(
            f"{epoch.number}{' *' * (epoch.number == result.best_epoch)}",
            "" if epoch.training_loss is None else f"{epoch.training_loss:.4f}",
            f"{epoch.validation_accuracy:.2%}",
            f"{epoch.validation_log_loss:.4f}",
            f"{epoch.seconds:,.1f}",
        )
    show.print_table(table)
    if result.best_epoch:
        print(
            f"\n{test.rows:,} test rows, read once: linear probe {test.linear_probe:.2%}, fine-tuned "
            f"{test.finetuned:.2%}, a difference of {100 * test.difference:+.2f} points (95 % interval "
            f"{100 * test.low:+.2f} to {100 * test.high:+.2f})"
        )
    else:
        print(f"\n{test.rows:,} test rows, read once: linear probe {test.linear_probe:.2%}")
        print("the linear probe was kept, because no epoch was better on the validation rows")
    weights, head = show.plain(result.backbone), show.plain(result.head)
    splits = show.plain(str(Path(result.folder, "splits.parquet")))
    print(f"to embed with it: embedpipe embed DATA --backbone checkpoint/{weights} --to NEW.features")
    print(f"to predict with it: embedpipe predict {head} DATA --weights {weights} --to predictions.csv")
    print(f"to compare on its test rows: embedpipe evaluate {show.plain(store)} NEW.features --splits {splits}")
    if verbose:
        print(f"splits {result.splits_id}")


@app.command(rich_help_panel="Fine-tune")
@exits_cleanly
@with_options(BenchmarkOptions, FineTuneOptions, SplitOptions, ReloadOptions)
def benchmark(
    source: Source,
    *,
    to: Annotated[Path, typer.Option("--to", help="The runs' folder: new, or that of a benchmark to go on with.")],
    learners: Annotated[
        str, typer.Option("--learners", help="Some of linear-probe, lp-ft, finetune and scratch, separated by commas.")
    ] = "linear-probe,lp-ft,finetune,scratch",
    label: Label = "label",
    backbone: Backbone = "",
    page: Annotated[Path | None, typer.Option("--page", help="An .html file to write: all of it, with plots.")] = None,
    device: Device = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> None:
    """Measure what transfer gives: learning curves of a frozen backbone's head, and of networks trained three ways.

    probe: a linear head on frozen features. hand-off: the network, beginning with that head. plain: with a random
    head. scratch: with random weights. All learn from the same draws of labels and are measured on the same test rows,
    as they are and corrupted. Cells that are done stay done: the same command goes on.

    Examples: `embedpipe benchmark photos.features --to bench --page bench.html`,
    `embedpipe benchmark photos --backbone timm/resnet18 --time-budget 10min --to bench`
    """
    from embedpipe.finetuning.benchmark.benchmark import benchmark as run

    if page is not None:
        from embedpipe.report.page import check_page

        check_page(page)
    names: Any = tuple(name.strip() for name in learners.split(",") if name.strip())
    given: dict[str, Any] = {"learners": names, "label": label, "backbone": backbone, "device": device}
    found = run(source, to=to, progress=not quiet, **given, **options)
    if page is not None:
        from embedpipe.finetuning.benchmark.page import write_benchmark

        write_benchmark(found, page)
    if as_json:
        show.json_value(found.to_dict())
    elif not quiet:
        print_benchmark(found, verbose)


def print_benchmark(found: Benchmark, verbose: bool) -> None:
    """Print what `embedpipe.benchmark` found."""
    print(
        f"{found.label!r} of {show.plain(found.data)}, {len(found.classes):,} classes, {found.backbone} on "
        f"{found.device}: {found.test_rows:,} test rows, {len(found.seeds)} draws of labels, "
        f"{found.seconds:,.0f} s of training and measuring"
    )
    for note in found.notes:
        print(f"note: {note}")
    table = Table("labels", *found.learners, box=None)
    for labels in found.label_counts:
        cells = [[cell.accuracy for cell in found.cells_of(learner, labels)] for learner in found.learners]
        table.add_row(f"{labels:,}", *(f"{mean(values):.1%}" if values else "" for values in cells))
    show.print_table(table)
    print("\naccuracy on the test rows, mean over the draws; differences with their 95 % intervals, in points:")
    print(f"{found.caution}\n" if found.caution else "")
    table = Table("labels", "learner", "less", "accuracy", "before training", "after one epoch", "corrupted", box=None)
    for one in found.differences:
        figures = (one.accuracy, one.initial_accuracy, one.after_one_epoch, one.shifted_accuracy)
        table.add_row(f"{one.labels:,}", one.learner, one.reference, *map(_points, figures))
    show.print_table(table)
    for saved in found.savings:
        if saved.known and saved.labels is not None:
            print(
                f"{saved.learner} needs {_times(saved.labels)} of the labels of {saved.reference}"
                + (f" and {_times(saved.seconds)} of its training time" if saved.seconds else "")
                + f" for {saved.accuracy:.1%}"
            )
    if verbose:
        for cell in found.cells:
            print(
                f"{cell.learner} {cell.labels:,} seed {cell.seed}: {cell.accuracy:.2%}, log-loss {cell.log_loss:.4f}, "
                f"epoch {cell.best_epoch}, {cell.seconds:,.1f} s"
            )
        print(f"splits {found.splits_id}")


@app.command(rich_help_panel="Fine-tune")
@exits_cleanly
@with_options(AdviseOptions, FineTuneOptions, SplitOptions, ReloadOptions)
def advise(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="STORE|DATA", help="A feature store of images, or images; further stores are other backbones'."
        ),
    ],
    *,
    to: Annotated[Path | None, typer.Option("--to", help="The folder of a pilot's runs.")] = None,
    pilot: Annotated[bool, typer.Option("--pilot", help="Pay for a pilot: train on an eighth and a quarter.")] = False,
    label: Label = "label",
    backbone: Backbone = "",
    device: Device = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> None:
    """Say whether fine-tuning is worth it: worth it, not worth it, or can't tell yet; and why.

    First all that is cheap is tried on frozen features: layers, joined ones, other stores, heads. What the best of them
    gets wrong is all that there is to gain. With --pilot or --time-budget, networks are trained on a part of the
    labels, and the gain that they show is judged with its interval.

    Examples: `embedpipe advise photos.features`, `embedpipe advise photos.features --time-budget 30min --to pilot`
    """
    from embedpipe.finetuning import advise as run

    given: Any = source[0] if len(source) == 1 else source
    found = run(given, to=to, label=label, backbone=backbone, pilot=pilot, device=device, progress=not quiet, **options)
    if as_json:
        show.json_value(found.to_dict())
    elif not quiet:
        print_advice(found, verbose)


def print_advice(found: Advice, verbose: bool) -> None:
    """Print what `embedpipe.advise` says."""
    from embedpipe.finetuning.advice.verdict import rough_duration

    verdict = found.verdict
    print(f"fine-tuning: {verdict.decision.upper()}\n")
    for sentence in verdict.evidence:
        print(f"- {sentence}")
    for note in found.notes:
        print(f"note: {note}")
    table = Table("on frozen features", "accuracy, %", "less plain logreg, points", "", box=None)
    options = found.frozen_baselines.options if verbose else found.frozen_baselines.options[:5]
    for one in options:
        word = "" if one.verdict == "reference" else one.verdict
        table.add_row(show.plain(one.name), show.interval(one.accuracy, True), _points(one.difference), word)
    rows, protocol = found.frozen_baselines.rows, found.frozen_baselines.protocol
    print(f"\n{rows:,} rows, {protocol}; {found.test_rows:,} test rows kept for a pilot:\n")
    show.print_table(table)
    if len(found.frozen_baselines.options) > len(options):
        print(f"and {len(found.frozen_baselines.options) - len(options)} more (--verbose)")
    if found.would_change:
        print("\nwhat would change this:")
        for sentence in found.would_change:
            print(f"- {sentence}")
    if found.next_step is not None:
        step = found.next_step
        takes = "in a time that could not be measured" if step.minutes is None else rough_duration(step.minutes)
        print(f"\nmost likely to decide it: {step.description}, {takes}:\n{step.command}")


def _points(found: Estimate | None) -> str:
    return "" if found is None else show.interval(found, True, "+")


def _times(found: Estimate) -> str:
    if not found.low:  # its smallest number of labels already does
        return f"at most {found.high:.2f}"
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"
