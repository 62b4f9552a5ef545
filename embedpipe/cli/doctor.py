"""The verb that looks at the machine: doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedpipe.backbones.options import BackboneOptions
from embedpipe.cli import show
from embedpipe.cli.app import app
from embedpipe.cli.options import Json, Quiet, Verbose, exits_cleanly, with_options
from embedpipe.embedding.options import ComputeOptions
from embedpipe.sources.options import SourceOptions

if TYPE_CHECKING:
    from embedpipe.diagnosis import Diagnosis, TimeEstimate


@app.command(rich_help_panel="Machine")
@exits_cleanly
@with_options(SourceOptions, BackboneOptions, ComputeOptions)
def doctor(
    source: Annotated[
        str | None, typer.Argument(help="What would be embedded; photographs or texts at hand where not given.")
    ] = None,
    *,
    backbone: Annotated[
        list[str] | None,
        typer.Option("--backbone", help="Which to measure, as PROVIDER/NAME: may be given several times."),
    ] = None,
    items: Annotated[int | None, typer.Option("--items", help="How many items the job has.")] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", help="About how long to measure each backbone; 0 measures none.")
    ] = 10.0,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> int:
    """Say what this machine has for embedding, what holds it back, and how long a job would take: measured.

    It takes the options of `embed`, and runs that on a sample for about ten seconds. Exit code 1 if something could
    not be looked at or measured.

    Examples: `embedpipe doctor`, `embedpipe doctor photos --backbone timm/resnet50 --items 1000000`
    """
    from embedpipe.diagnosis.doctor import doctor

    found = doctor(source, backbones=backbone or (), items=items, seconds=seconds, progress=not quiet, **options)
    if as_json:
        show.json_value(found.to_dict())
    elif not quiet or not found.ok:
        print_diagnosis(found)
    return 0 if found.ok else 1


def print_diagnosis(found: Diagnosis) -> None:
    """Print what `doctor` found."""
    rows = [(finding.name if finding.ok else f"{finding.name} (BROKEN)", finding.detail) for finding in found.findings]
    rows += [("warning", warning) for warning in found.warnings]
    show.print_table(show.pairs(rows))
    for measured in found.estimates:
        print()
        show.print_table(show.pairs(_estimate(measured)))
    for name, why in found.not_measured.items():
        print(f"\n{name} could not be measured: {why}")


def _estimate(measured: TimeEstimate) -> list[tuple[str, str]]:
    decode = f", {measured.decode} decoding" if measured.decode else ""
    rate = f"{measured.rate:,.1f} items a second"
    rows = [
        (measured.backbone, f"{rate}, {measured.precision}{decode}, on {measured.device} by {measured.engine}"),
        ("measured on", f"{measured.items:,} items in {measured.seconds:.1f} s: {measured.source}"),
        ("time went to", ", ".join(f"{name} {share:.0%}" for name, share in measured.shares.items() if share >= 0.005)),
        ("what helps", measured.advice),
    ]
    rows += [(f"{count:,} items", _duration(hours)) for count, hours in measured.hours.items()]
    if measured.failed:
        rows.append(("failed", f"{measured.failed:,} of the sample: `embedpipe embed` lists why"))
    return [*rows, *(("note", note) for note in measured.notes)]


def _duration(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes" if hours >= 1 / 60 else "under a minute"
