"""The verb finetune, and the arguments that it shares with benchmark and advise."""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from embedpipe._utils.messages.events import current_log
from embedpipe.backbones.options import ReloadOptions
from embedpipe.cli import show
from embedpipe.cli.app import PARTLY_FAILED, app
from embedpipe.cli.options import Json, Quiet, Verbose, exits_cleanly, reads_stored_places, shows_progress, with_options
from embedpipe.cli.running.plain_text import escaped
from embedpipe.finetuning.options import FineTuneOptions, LedgerOptions, Method, SplitOptions
from embedpipe.report.drawing.wording import counted
from embedpipe.statistics.percentages import percent

if TYPE_CHECKING:
    from embedpipe.finetuning import FineTuneResult

Source = Annotated[str, typer.Argument(metavar="STORE|DATA", help="A feature store, or images or texts with labels.")]
Label = Annotated[str, typer.Option("--label", help="The column to learn.")]
Backbone = Annotated[str, typer.Option("--backbone", help="PROVIDER/NAME, for items that are in no store yet.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1; chosen if not given.")]


def default_folder(source: str, suffix: str) -> Path:
    """Return the folder of a run that nobody named: the same command finds it again, and continues."""
    from embedpipe.sources.locations import absolute, split_location

    name = PurePosixPath(split_location(absolute(source))[1])
    return Path(f"{name.stem if name.suffix == '.features' else name.name}{suffix}")


@app.command(rich_help_panel="Fine-tune")
@exits_cleanly
@reads_stored_places
@with_options(FineTuneOptions, SplitOptions, ReloadOptions, LedgerOptions)
def finetune(
    source: Source,
    *,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", help="Folder of the run: new, or that of one to continue. Default: DATA.tuned in this folder."
        ),
    ] = None,
    head: Annotated[
        Path | None, typer.Option("--head", help="Folder of a linear head; by default a calibrated logreg is fitted.")
    ] = None,
    method: Annotated[
        Method, typer.Option("--method", help="lp-ft, or contrastive: bring texts of a class together, for few labels.")
    ] = "lp-ft",
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
    """Fine-tune the backbone of a store, starting from a linear head on its features (LP-FT), or contrastively.

    The head becomes the last layer of the network; then all weights are trained. The weights of the latest epoch whose
    validation accuracy is within one standard error of the best are kept, or those of the linear probe if it is better.
    The test rows are read once, at the end. The same command continues a run that was interrupted. The result is a
    backbone, for images `embed --backbone checkpoint/TO/backbone.safetensors`, and a head on its features.

    Example: `embedpipe finetune photos.features --head photos.head --to photos.tuned`
    """
    from embedpipe.finetuning.finetune import finetune as run
    from embedpipe.finetuning.training.launcher import is_first_process, launched_processes
    from embedpipe.store import FeatureStore

    to = default_folder(source, ".tuned") if to is None else to
    on_epoch = None
    if page is not None:
        from embedpipe.finetuning.training.page import page_writer

        on_epoch = page_writer(page, options["epochs"], to.resolve().name)
    arguments: dict[str, Any] = {"to": to, "method": method, "label": label, "backbone": backbone, **options}
    result = run(source, head, device=device, progress=shows_progress(quiet, as_json), on_epoch=on_epoch, **arguments)
    if not is_first_process():
        return 0
    if page is not None:
        result.to_html(page)
    if as_json:
        show.json_value(result.to_dict())
    elif not quiet:
        print_finetune(result, source if FeatureStore.exists(source) else str(to / "features"), verbose)
    print_left_out(result)
    # A launcher takes any exit code but 0 for a crash.
    return PARTLY_FAILED if result.failed and launched_processes() == 1 else 0


def print_left_out(result: FineTuneResult, limit: int = 3) -> None:
    """Print the first items that were left out on standard error; in a log of events each is one."""
    for number, (id, reason) in enumerate(result.failed.items()):
        if log := current_log():
            log.event("item_failed", id=id, message=reason)
        elif number < limit:
            print(f"embedpipe: left out: {escaped(id)}: {escaped(reason)}", file=sys.stderr)
    if len(result.failed) > limit and not current_log():
        file = show.plain(str(Path(result.folder, "result.json")))
        print(f"... and {len(result.failed) - limit:,} more: 'failed' in {file}", file=sys.stderr)


def print_finetune(result: FineTuneResult, store: str, verbose: bool) -> None:
    """Print the result of `embedpipe.finetune`; ``store`` holds the features of the backbone before training."""
    check, test = result.initial_check, result.test
    print(
        f"trained on {counted(result.train_rows, result.modality)}, validated on {result.validation_rows:,}, in "
        f"{result.seconds:,.0f} s on {result.device} in {result.precision}, augmentation {result.augmentation}"
    )
    for note in result.notes:
        print(f"note: {note}")
    print(
        f"initial check on {check.rows:,} validation rows: the head's logits on stored features and the network's on "
        f"{result.modality}s differ by at most {check.largest_logit_difference:.1g}"
    )
    table = Table("epoch", "training loss", "validation accuracy", "validation log-loss", "s", box=None)
    for epoch in result.epochs:
        table.add_row(
            f"{epoch.number}{' *' * (epoch.number == result.best_epoch)}",
            "" if epoch.training_loss is None else f"{epoch.training_loss:.4f}",
            f"{percent(epoch.validation_accuracy)}",
            f"{epoch.validation_log_loss:.4f}",
            f"{epoch.seconds:,.1f}",
        )
    show.print_table(table)
    if result.best_epoch:
        print("* kept: the latest epoch that is not worse than the best by more than a standard error")
        print(
            f"\n{test.rows:,} test rows, read once: linear probe {percent(test.linear_probe)}, fine-tuned "
            f"{percent(test.finetuned)}, a difference of {100 * test.difference:+z.1f} points (95 % interval "
            f"{100 * test.low:+z.1f} to {100 * test.high:+z.1f})"
        )
    else:
        print(f"\n{test.rows:,} test rows, read once: linear probe {percent(test.linear_probe)}")
        print("the linear probe was kept, because no epoch was better on the validation rows")
    weights, head = show.argument(result.backbone), show.argument(result.head)
    splits = show.argument(str(Path(result.folder, "splits.parquet")))
    checkpoint = show.argument(result.backbone_name)
    print(f"to embed with it: embedpipe embed DATA --backbone {checkpoint} --to NEW.features")
    print(f"to predict with it: embedpipe predict {head} DATA --weights {weights} --to predictions.csv")
    print(f"to compare on its test rows: embedpipe evaluate {show.argument(store)} NEW.features --splits {splits}")
    if verbose:
        print(f"splits {result.splits_id}")
