"""The verbs clean, shift and next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pyarrow as pa
import typer
from rich.table import Table

from embedpipe.cleaning.options import CleanOptions, NextOptions, ShiftOptions
from embedpipe.cli import show, tables
from embedpipe.cli.app import Store, app
from embedpipe.cli.options import Json, Quiet, Verbose, exits_cleanly, reads_stored_places, shows_progress, with_options
from embedpipe.errors import ExitCode
from embedpipe.report.drawing.wording import counted
from embedpipe.statistics.percentages import percent

if TYPE_CHECKING:
    from embedpipe.cleaning import Findings, Shift

#: Findings of each kind that are printed.
SHOWN = 3
#: Items to label next that are printed.
MANY = 10


@app.command(rich_help_panel="Clean")
@exits_cleanly
@reads_stored_places
@with_options(CleanOptions)
def clean(
    store: Store,
    *,
    against: Annotated[
        Path | None, typer.Option("--against", help="Another store of the same backbone: rows that it has too.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="Write the findings: .html is a page, .csv, .xlsx, .parquet a table.")
    ] = None,
    write_keep: Annotated[
        Path | None, typer.Option("--write-keep", help="Write a table of all ids and whether to keep them.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> None:
    """Find duplicates, wrong labels and outliers. Nothing is changed.

    Duplicates also between splits and with other labels; labels that heads which were not fitted on the row and its
    neighbours doubt; rows far from all others.

    Examples: `embedpipe clean photos.features --to findings.html`,
    `embedpipe clean photos.features --to findings.csv --write-keep keep.csv`
    """
    from embedpipe.cleaning.clean import clean as run
    from embedpipe.report.tables import is_page

    if to is not None:
        is_page(to)
    if write_keep is not None:
        tables.check_table(write_keep)
    findings = run(store, against=against, progress=shows_progress(quiet, as_json), **options)
    if to is not None:
        tables.print_notes(to, findings.save(to))
    if write_keep is not None:
        tables.write_table(findings.keep(), write_keep)
    if as_json:
        show.json_value(findings.to_dict())
        return
    if quiet:
        return
    print_findings(findings, verbose)
    for path in (to, write_keep):
        if path is not None:
            print(path)


def print_findings(findings: Findings, verbose: bool) -> None:
    """Print the number of findings of each kind, with examples."""
    found = counted(len(findings), "finding")
    print(f"{found} in {counted(findings.rows, 'row')}, {findings.seconds:,.0f} s\n")
    rows, table = findings.table.to_pylist(), Table("", "findings", "for example", box=None)
    for kind, count in findings.counts.items():
        examples = [row for row in rows if row["kind"] == kind][:SHOWN]
        shown = [
            f"{row['id']}: {row['label']} → {row['proposed']}"
            if kind == "label error"
            else row["id"] + (f" = {row['related']}" if row["related"] and kind != "outlier" else "")
            for row in examples
        ]
        table.add_row(kind, f"{count:,}", show.plain("; ".join(shown[: None if verbose else 1])))
    show.print_table(table)
    for label, proposed, number in findings.confused[:SHOWN]:
        if number > 1:  # a single row is in the table, and no rule
            print(show.plain(f"{label} is often more like {proposed}: {counted(number, 'row')}"))
    if findings.recall < 1:
        print(f"the graph of neighbours has {percent(findings.recall)} of the nearest neighbours")
    for note in findings.notes:
        print(f"note: {note}")


@app.command(rich_help_panel="Clean")
@exits_cleanly
@with_options(ShiftOptions)
def shift(
    old: Annotated[str, typer.Argument(metavar="STORE", help="Folder or URL of the store with the old items.")],
    new: Annotated[
        str | None, typer.Argument(metavar="NEW", help="Store of the new items; without it, two splits of STORE.")
    ] = None,
    *,
    to: Annotated[
        Path | None, typer.Option("--to", help="Write the new items, the most unlike first: .html is a page.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> int:
    """Test whether new items are like old ones, and forecast the accuracy on them. Exit code 1: they are shifted.

    Examples: `embedpipe shift photos.features new.features`, `embedpipe shift photos.features --splits train,test`
    """
    from embedpipe.cleaning.shifts.shift import shift as run
    from embedpipe.report.tables import is_page

    if to is not None:
        is_page(to)
    result = run(old, new, progress=shows_progress(quiet, as_json), **options)
    if to is not None:
        tables.print_notes(to, result.save(to))
    if as_json:
        show.json_value(result.to_dict())
    elif not quiet:
        print_shift(result)
        if to is not None:
            print(to)
    return ExitCode.FAILED if result.shifted else ExitCode.DONE


def print_shift(result: Shift) -> None:
    """Print the result of `embedpipe.shift`."""
    first, second = result.rows
    print(f"{'SHIFTED' if result.shifted else 'no shift found'}: {first:,} old and {second:,} new rows")
    pairs = [
        ("p-value of no difference", f"{result.p_value:.3f}"),
        ("told apart by a linear classifier (AUC)", f"{result.auc:.3f}"),
    ]
    if result.old_accuracy is not None and result.expected_accuracy is not None:
        true = "" if result.new_accuracy is None else f", by its labels {percent(result.new_accuracy)}"
        pairs += [
            ("accuracy on old rows", percent(result.old_accuracy)),
            ("to expect on new rows", f"{percent(result.expected_accuracy)}{true}"),
        ]
    show.print_table(show.pairs(pairs))
    if result.classes is not None:
        changes = sorted(result.classes.to_pylist(), key=lambda row: -abs(row["new"] - row["old"]))[:SHOWN]
        for row in changes:
            print(
                f"{show.plain(row['label'])}: {percent(row['old'])} of the old rows, {percent(row['new'])} of the new"
            )
    print(f"most unlike: {show.plain(', '.join(result.moved['id'].slice(0, SHOWN).to_pylist()))}")
    for note in result.notes:
        print(f"note: {note}")


@app.command("next", rich_help_panel="Clean")
@exits_cleanly
@with_options(NextOptions)
def next_(
    store: Store,
    *,
    count: Annotated[int, typer.Option("-n", "--count", help="Number of items.")] = NextOptions().count,
    head: Annotated[
        Path | None, typer.Option("--head", help="A saved head whose doubts count, in the place of one of the labels.")
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", help="Write the items as a table: fill its column label.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **options: Any,
) -> None:
    """Choose the items without a label that are worth labelling next.

    While labels are few, the most typical items of different kinds; then those that a head is unsure of, spread out. On
    the labelled items this is compared with random choices.

    Examples: `embedpipe next photos.features --count 50 --to next.csv`,
    `embedpipe label photos.features next.csv`
    """
    from embedpipe.cleaning.choosing.next_items import next as run

    if to is not None:
        tables.check_table(to)
    result = run(store, count=count, head=head, progress=shows_progress(quiet, as_json), **options)
    table = result.table
    if options["label"] not in table.column_names:
        table = table.append_column(options["label"], pa.nulls(len(result), pa.string()))
    if to is not None:
        tables.write_table(table, to)
    if as_json:
        show.json_value(result.to_dict())
        return
    if quiet:
        return
    print(f"{counted(len(result), 'item')} of {result.unlabelled:,} without a label; {result.labelled:,} have one")
    for row in result.table.slice(0, None if verbose else MANY).to_pylist():
        print(f"  {show.plain(row['id'])} ({row['reason']})")
    for labels, (ours, random) in result.simulated.items():
        print(f"with {labels:,} labels: {percent(ours)} accuracy, {percent(random)} with random ones")
    if result.gain is not None:
        gain, low, high = (100 * value for value in (result.gain.value, result.gain.low, result.gain.high))
        better = "better than random" if low > 0 else "worse than random" if high < 0 else "not proved"
        print(f"gain over random choices: {gain:+z.1f} points ({low:+z.1f} to {high:+z.1f}): {better}")
    for note in result.notes:
        print(f"note: {note}")
    if to is not None:
        print(to)
