"""The verb `backbones`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from embedpipe.backbones.options import BackboneOptions
from embedpipe.cli import show
from embedpipe.cli.app import app
from embedpipe.cli.options import Json, Quiet, Verbose, exits_cleanly, with_options
from embedpipe.errors import UsageError, nearest

if TYPE_CHECKING:
    from embedpipe.backbones import BackboneFacts, Stage


@app.command(rich_help_panel="Machine")
@exits_cleanly
@with_options(BackboneOptions)
def backbones(
    backbone: Annotated[str, typer.Argument(metavar="NAME", help="A backbone, or a part of the names to list.")] = "",
    *,
    here: Annotated[bool, typer.Option("--here", help="Only those whose weights are on this machine.")] = False,
    layers: Annotated[
        bool, typer.Option("--layers", help="List the layers that --layer and --drop-last take.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> None:
    """List the available backbones, or the layers of one.

    Sizes of weights that are not on this machine, and dimensions, are given where at most 30 backbones are listed.

    Examples: `embedpipe backbones --here`, `embedpipe backbones "timm/resnet50*"`,
    `embedpipe backbones timm/resnet50 --layers --weights none`
    """
    from embedpipe.backbones import describe_backbones, list_backbones
    from embedpipe.backbones.load import describe_layers

    if layers:
        stages = describe_layers(backbone or None, **options)
        if as_json or not quiet:
            print_layers(stages, as_json)
        return
    names = list_backbones(backbone)
    if not names:
        raise UsageError(f"no name of a backbone contains {backbone!r}{nearest(backbone, list_backbones())}")
    rows = describe_backbones(names, here)
    if not rows:
        raise UsageError(f"no weights of the {len(names):,} backbones {backbone!r} are on this machine: omit --here")
    if as_json or not quiet:
        print_backbones(rows, as_json)


def print_layers(stages: Sequence[Stage], as_json: bool) -> None:
    """Print the stages of a backbone."""
    if as_json:
        show.json_value({"layers": [asdict(stage) for stage in stages]})
        return
    table = Table("--drop-last", "--layer", "output shape", "dim", "parameters", box=None)
    for dropped, stage in zip(reversed(range(len(stages))), stages, strict=True):
        table.add_row(str(dropped), stage.tap, str(stage.shape), str(stage.dim), f"{stage.parameters:,}")
    show.print_table(table)


def print_backbones(rows: Sequence[BackboneFacts], as_json: bool) -> None:
    """Print what is known of backbones, one a line."""
    if as_json:
        show.json_value({"backbones": [asdict(row) for row in rows]})
        return
    table = Table("backbone", "weights", box=None)
    for name in ("MB", "dimensions", "input", "ImageNet, %"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            show.plain(row.name),
            row.weights,
            "" if row.megabytes is None else f"{row.megabytes:,.0f}" if row.megabytes >= 10 else f"{row.megabytes:.1f}",
            "" if row.dim is None else f"{row.dim:,}",
            "" if row.input_size is None else str(row.input_size),
            "" if row.imagenet_accuracy is None else f"{100 * row.imagenet_accuracy:.1f}",
        )
    show.print_table(table)
