"""The verb `rank`: compare backbones on a sample of labelled data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from embedpipe._utils.options import split_names
from embedpipe.backbones.options import BackboneOptions
from embedpipe.cli import show, tables
from embedpipe.cli.app import PARTLY_FAILED, app
from embedpipe.cli.options import Json, Quiet, Verbose, exits_cleanly, shows_progress, with_options
from embedpipe.embedding.options import ComputeOptions
from embedpipe.evaluation.ranking.options import RankOptions
from embedpipe.report.drawing.wording import counted
from embedpipe.sources.options import SourceOptions
from embedpipe.statistics.percentages import percent

if TYPE_CHECKING:
    from embedpipe.evaluation.ranking.result import RankedBackbone, Ranking


@app.command(rich_help_panel="Compare")
@exits_cleanly
@with_options(RankOptions, SourceOptions, BackboneOptions, ComputeOptions)
def rank(
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA", help="Labelled images or texts as in `embed`, or feature stores of the same items."
        ),
    ],
    *,
    backbone: Annotated[
        list[str] | None,
        typer.Option(
            "--backbones", help="Backbones PROVIDER/NAME, separated by commas; `embedpipe backbones` lists them."
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help=f"A table to write, one row for each backbone: {tables.FORMATS}.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> int:
    """Rank backbones for labelled data, on a small sample that each of them embeds.

    Backbones are ordered by a linear probe in nested cross-validation on the same items and folds, with differences
    from the best. Vectors of the sample are cached. Feature stores are compared without embedding.

    Examples: `embedpipe rank photos --backbones timm/resnet50,timm/tf_efficientnet_lite0`,
    `embedpipe rank small.features large.features`
    """
    from embedpipe.evaluation.ranking.rank import rank as run
    from embedpipe.store import FeatureStore

    if to is not None:
        tables.check_table(to)
    names = list(split_names("backbones", backbone or ()))
    given: Any = data[0] if len(data) == 1 else [FeatureStore(path) for path in data]
    ranking = run(given, backbones=names, progress=shows_progress(quiet, as_json), **options)
    if to is not None:
        write_ranking(ranking, to)
    if as_json:
        show.json_value(ranking.to_dict())
    elif not quiet:
        print_ranking(ranking, verbose)
    for row in ranking.failed:
        print(f"embedpipe: {row.name}: {row.failed}", file=sys.stderr)
    return PARTLY_FAILED if ranking.failed else 0


def write_ranking(ranking: Ranking, to: Path) -> None:
    """Write one row for each backbone as a table."""
    import pyarrow as pa

    tables.write_table(pa.Table.from_pylist(ranking.records()), to)


def print_ranking(ranking: Ranking, verbose: bool) -> None:
    """Print a `Ranking` as a table, with a conclusion."""
    regression = ranking.task == "regression"
    metric = "R2" if regression else "accuracy"
    classes = "" if regression else f", {counted(ranking.classes, 'class', 'classes')}"
    baseline = "" if regression else f"; baseline (most frequent class): {percent(ranking.baseline)}"
    print(f"{ranking.label!r}, {counted(ranking.sample, 'item')}{classes}: {ranking.resampling}{baseline}")
    for reason, count in ranking.left_out.items():
        print(f"left out: {count:,} {reason}")
    for note in ranking.notes:
        print(f"note: {note}")
    print()
    several = len({row.layer for row in ranking.rows if not row.failed}) > 1
    names = ["backbone", *["layer"] * several, f"linear probe: {metric}", "difference", "verdict", "kNN"]
    scores = [*["H-score"] * (not regression), "LogME", "ImageNet", "dim", "s per 1,000"]
    table = Table(*names, *scores, box=None)
    for row in ranking.rows:
        if not row.failed:
            table.add_row(*_cells(row, several, regression))
    show.print_table(table)
    print(f"\n{conclusion(ranking)}")
    if verbose:
        _print_details(ranking)


def _cells(row: RankedBackbone, several: bool, regression: bool) -> list[str | Text]:
    against = row.difference
    return [
        show.plain(row.name),
        *[show.plain(row.layer)] * several,
        "" if row.linear_probe is None else show.interval(row.linear_probe, not regression),
        "" if against is None else show.interval(against.estimate, not regression, "+"),
        row.verdict,
        "" if row.knn is None else show.interval(row.knn, not regression),
        *["" if row.h_score is None else f"{row.h_score:.2f}"] * (not regression),
        "" if row.log_me is None else f"{row.log_me:.3f}",
        "unknown" if row.imagenet is None else f"{percent(row.imagenet.accuracy)}",
        f"{row.dim:,}",
        "unknown" if row.cost is None else f"{row.cost.seconds:,.1f}",
    ]


def conclusion(ranking: Ranking) -> str:
    """Return one sentence on the best backbone and the verdicts on the others."""
    best = _name(ranking.best)
    if not [row for row in ranking.rows[1:] if not row.failed]:
        return f"best: {best}; no other backbone to compare with"
    rivals = [row for row in ranking.rows[1:] if row.verdict not in ("worse", "failed")]
    if not rivals:
        return f"best: {best}; all others are significantly worse (95 %, corrected for all pairs)"
    text = f"best: {best}"
    for verdict, words in (
        ("equivalent", "practically equivalent"),
        ("undecided", "not distinguishable from it"),
    ):
        if names := ", ".join(_name(row) for row in rivals if row.verdict == verdict):
            text += f"; {words}: {names}"
    costs = [row for row in (ranking.best, *rivals) if row.cost is not None]
    cheapest = min(costs, key=lambda row: row.cost.seconds if row.cost else 0.0, default=None)
    if cheapest is not None and cheapest is not ranking.best:
        text += f"; the fastest of these is {_name(cheapest)}"
    return f"{text} (a larger --sample may decide)" if ranking.undecided else text


def _name(row: RankedBackbone) -> str:
    return row.name if row.layer == "features" else f"{row.name} {row.layer}"


def _print_details(ranking: Ranking) -> None:
    for row in ranking.rows:
        if row.imagenet is not None:
            print(f"{row.name}: ImageNet top-1 {percent(row.imagenet.accuracy, 3)}, published by {row.imagenet.source}")
        if row.cost is not None:
            print(f"{row.name}: embedded by {row.cost.engine}, measured on {counted(row.cost.items, 'item')}")
        if row.difference is not None:
            test = row.difference
            print(f"{_name(row)}: p = {test.p:.4f}, corrected {test.adjusted:.4f} ({test.test})")
            print(f"{_name(row)}: within {ranking.margin:g} of the best with probability {test.equal:.3f}")
