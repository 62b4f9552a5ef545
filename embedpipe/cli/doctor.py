"""The verb `doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedpipe.backbones.options import BackboneOptions
from embedpipe.cli import show
from embedpipe.cli.app import app
from embedpipe.cli.options import Json, Quiet, Verbose, exits_cleanly, shows_progress, with_options
from embedpipe.embedding.options import ComputeOptions
from embedpipe.report.drawing.wording import counted
from embedpipe.sources.options import SourceOptions
from embedpipe.statistics.percentages import percent

if TYPE_CHECKING:
    from embedpipe.diagnosis import Diagnosis, TimeEstimate


@app.command(rich_help_panel="Machine")
@exits_cleanly
@with_options(SourceOptions, BackboneOptions, ComputeOptions)
def doctor(
    source: Annotated[
        str | None,
        typer.Argument(metavar="SOURCE", help="The data to embed; by default photographs or texts of scikit-learn."),
    ] = None,
    *,
    backbone: Annotated[
        list[str] | None,
        typer.Option("--backbone", help="A backbone to measure, as PROVIDER/NAME; may be given several times."),
    ] = None,
    items: Annotated[int | None, typer.Option("--items", help="The size of the job whose hours are estimated.")] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", help="Approximate seconds to measure each backbone; 0 measures none.")
    ] = 10.0,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> int:
    """Check this machine, and measure how long a job takes.

    `doctor` lists what this machine has for embedding and what slows it down. It takes the options of `embed`, and runs
    `embed` on a sample for about ten seconds. The exit code is 1 if a check or a measurement failed.

    Examples: `embedpipe doctor`, `embedpipe doctor photos --backbone timm/resnet50 --items 1000000`
    """
    from embedpipe.diagnosis.doctor import doctor

    diagnosis = doctor(
        source,
        backbones=backbone or (),
        items=items,
        seconds=seconds,
        progress=shows_progress(quiet, as_json),
        **options,
    )
    if as_json:
        show.json_value(diagnosis.to_dict())
    elif not quiet or not diagnosis.ok:
        print_diagnosis(diagnosis)
    return 0 if diagnosis.ok else 1


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Print the result of `doctor`."""
    rows = [
        (finding.name if finding.ok else f"{finding.name} (FAILED)", finding.detail) for finding in diagnosis.findings
    ]
    rows += [("warning", warning) for warning in diagnosis.warnings]
    show.print_table(show.pairs(rows))
    for estimate in diagnosis.estimates:
        print()
        show.print_table(show.pairs(_rows_of(estimate)))
    for name, reason in diagnosis.not_measured.items():
        print(f"\n{name} could not be measured: {reason}")


def _rows_of(estimate: TimeEstimate) -> list[tuple[str, str]]:
    decode = f", {estimate.decode} decoding" if estimate.decode else ""
    rate = f"{estimate.rate:,.1f} items a second"
    shares = [f"{name} {percent(share, 0)}" for name, share in estimate.shares.items() if share >= 0.005]
    rows = [
        (estimate.backbone, f"{rate}, {estimate.precision}{decode}, on {estimate.device} by {estimate.engine}"),
        ("measured on", f"{counted(estimate.items, 'item')} in {estimate.seconds:.1f} s: {estimate.source}"),
        ("time spent on", ", ".join(shares)),
        ("advice", estimate.advice),
    ]
    rows += [(f"{counted(count, 'item')}", _duration(hours)) for count, hours in estimate.hours.items()]
    if estimate.failed:
        rows.append(("failed", f"{estimate.failed:,} of the sample; run `embedpipe embed` to see why"))
    return [*rows, *(("note", note) for note in estimate.notes)]


def _duration(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes" if hours >= 1 / 60 else "under a minute"
