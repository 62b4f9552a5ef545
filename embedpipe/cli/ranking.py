"""The verb that compares source models: rank."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from embedpipe.backbones.options import BackboneOptions
from embedpipe.cli import show
from embedpipe.cli.app import PARTLY_FAILED, app
from embedpipe.cli.options import Json, Quiet, Verbose, exits_cleanly, with_options
from embedpipe.cli.tables import check_table_name, write_table
from embedpipe.embedding.options import ComputeOptions
from embedpipe.evaluation.ranking.options import RankOptions
from embedpipe.sources.options import SourceOptions

if TYPE_CHECKING:
    from embedpipe.evaluation.ranking.result import RankedBackbone, Ranking


@app.command(rich_help_panel="Compare")
@exits_cleanly
@with_options(RankOptions, SourceOptions, BackboneOptions, ComputeOptions)
def rank(
    data: Annotated[
        list[str], typer.Argument(help="Labelled images or texts, as `embed` takes them; or feature stores of them.")
    ],
    *,
    backbone: Annotated[
        list[str] | None,
        typer.Option("--backbones", help="PROVIDER/NAME, several separated by commas: see `embedpipe backbones`."),
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", help="A .csv or .parquet file to write, too.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> int:
    """Say which backbone fits labelled data, on a small sample that each of them embeds.

    Ordered by a linear probe in nested cross-validation on the same items and folds, with each one's difference to
    the best. The sample's vectors are kept in the cache folder. Stores are compared as they are.

    Examples: `embedpipe rank photos --backbones timm/resnet50,timm/tf_efficientnet_lite0`,
    `embedpipe rank small.features large.features`
    """
    from embedpipe.evaluation.ranking.rank import rank as run
    from embedpipe.store import FeatureStore

    if to is not None:
        check_table_name(to)
    names = [name.strip() for given in backbone or () for name in given.split(",") if name.strip()]
    given: Any = data[0] if len(data) == 1 else [FeatureStore(one) for one in data]
    found = run(given, backbones=names, progress=not quiet, **options)
    if to is not None:
        write_ranking(found, to)
    if as_json:
        show.json_value(found.to_dict())
    elif not quiet:
        print_ranking(found, verbose)
    for row in found.failed:
        print(f"embedpipe: {row.name}: {row.failed}", file=sys.stderr)
    return PARTLY_FAILED if found.failed else 0


def write_ranking(found: Ranking, to: Path) -> None:
    """Write one row a backbone as a table."""
    import pyarrow as pa

    write_table(pa.Table.from_pylist(found.records()), to)


def print_ranking(found: Ranking, verbose: bool) -> None:
    """Print what `embedpipe.rank` found."""
    numbers = found.task == "regression"
    what = "R2" if numbers else "accuracy"
    about = "" if numbers else f", {found.classes:,} classes"
    baseline = "" if numbers else f"; always the commonest class: {found.baseline:.1%}"
    print(f"{found.label!r} on {found.sample:,} items{about}: {found.protocol}{baseline}")
    for why, count in found.left_out.items():
        print(f"left out: {count:,} {why}")
    for note in found.notes:
        print(f"note: {note}")
    print()
    several = len({row.layer for row in found.rows if not row.failed}) > 1
    names = ["backbone", *["layer"] * several, f"probe: {what}", "less the best", "verdict", "kNN"]
    hints = [*["H-score"] * (not numbers), "LogME", "ImageNet", "dim", "s per 1,000"]
    table = Table(*names, *hints, box=None)
    for row in found.rows:
        if not row.failed:
            table.add_row(*_cells(row, several, numbers))
    show.print_table(table)
    print(f"\n{conclusion(found)}")
    if verbose:
        _print_details(found)


def _cells(row: RankedBackbone, several: bool, numbers: bool) -> list[str | Text]:
    against = row.difference
    return [
        show.plain(row.name),
        *[row.layer] * several,
        "" if row.probe is None else show.interval(row.probe, not numbers),
        "" if against is None else show.interval(against.estimate, not numbers, "+"),
        "best" if against is None else against.verdict,
        "" if row.knn is None else show.interval(row.knn, not numbers),
        *["" if row.h_score is None else f"{row.h_score:.2f}"] * (not numbers),
        "" if row.log_me is None else f"{row.log_me:.3f}",
        "unknown" if row.prior is None else f"{row.prior.accuracy:.1%}",
        f"{row.dim:,}",
        "unknown" if row.cost is None else f"{row.cost.seconds:,.1f}",
    ]


def conclusion(found: Ranking) -> str:
    """Say in a sentence or two what the order is worth."""
    best = _name(found.best)
    if not [row for row in found.rows[1:] if not row.failed]:
        return f"{best} was compared with nothing: name more backbones"
    rest = [row for row in found.rows[1:] if row.difference is not None and row.difference.verdict != "worse"]
    if not rest:
        return f"{best} is better than every other, beyond what chance does (95 %, corrected for several tests)"
    said = f"{best} is first"
    for verdict, words in (
        ("equivalent", "practically as good"),
        ("undecided", "not told apart from it"),
    ):
        if named := ", ".join(_name(row) for row in rest if row.difference and row.difference.verdict == verdict):
            said += f"; {words}: {named}"
    costs = [row for row in (found.best, *rest) if row.cost is not None]
    cheapest = min(costs, key=lambda row: row.cost.seconds if row.cost else 0.0, default=None)
    if cheapest is not None and cheapest is not found.best:
        said += f"; {_name(cheapest)} is the fastest of these"
    return f"{said} (a larger --sample tells more)" if found.undecided else said


def _name(row: RankedBackbone) -> str:
    return row.name if row.layer == "features" else f"{row.name} {row.layer}"


def _print_details(found: Ranking) -> None:
    for row in found.rows:
        if row.prior is not None:
            print(f"{row.name}: ImageNet top-1 {row.prior.accuracy:.3%} as published by {row.prior.source}")
        if row.cost is not None:
            print(f"{row.name}: embedded by {row.cost.engine}, measured on {row.cost.items:,} items")
        if row.difference is not None:
            d = row.difference
            print(f"{_name(row)}: p = {d.p:.4f}, adjusted {d.adjusted:.4f} ({d.test})")
            print(f"{_name(row)}: within {found.margin:g} of the best with probability {d.equal:.3f}")
