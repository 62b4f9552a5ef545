"""The verb label."""

from __future__ import annotations

from typing import Annotated

import typer

from embedpipe._utils.messages.counting import counted
from embedpipe.cli import show
from embedpipe.cli.app import Store, app
from embedpipe.cli.options import Json, Quiet, Verbose, exits_cleanly


@app.command(rich_help_panel="Clean")
@exits_cleanly
def label(
    store: Store,
    table: Annotated[
        str, typer.Argument(metavar="TABLE", help="CSV, TSV, Parquet, JSONL or .xlsx table with ids and labels.")
    ],
    *,
    id_column: Annotated[str, typer.Option("--id", help="Column of the table with ids.")] = "id",
    label_column: Annotated[str, typer.Option("--label", help="Column of the table with labels.")] = "label",
    into: Annotated[str, typer.Option("--into", help="Column of the store to write.")] = "label",
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Set labels or another column from a table, without embedding again; exclude rows, or use them again.

    A row with a reason in a column `excluded` of the table stays in the store, and heads, evaluations and searches
    leave it out; an empty cell uses it again. Without a column of labels, only this column is read. The next `embed`
    keeps what was set where the source has something else, until `embed --labels-from-source`.

    Examples: `embedpipe label photos.features labels.csv --id file --label species`,
    `embedpipe label photos.features keep.csv`
    """
    from embedpipe.sources import read_labels
    from embedpipe.sources.columns.ids import id_texts
    from embedpipe.store import FeatureStore
    from embedpipe.store.editing.exclusion import as_reasons, excluded_rows
    from embedpipe.store.schema import EXCLUDED

    given, notes = read_labels(table, id_column, label_column)
    opened = FeatureStore(store)
    excludes = EXCLUDED in given.column_names
    if excludes:
        as_reasons(given.column(EXCLUDED), EXCLUDED)  # refused before anything is written
    change = None
    if label_column in given.column_names or not excludes:
        change = opened.label(given, id=id_column, label=label_column, into=into)
        if empty := given.column(label_column).null_count:
            notes = (
                *notes,
                f"no {into!r} any more: {counted(empty, 'row')}, as column {label_column!r} is empty there",
            )
    exclusion = opened.exclude(given, id=id_column) if excludes else None
    known = change or exclusion
    assert known is not None
    counts = {
        "labelled": change.replaced if change else 0,
        "unchanged": change.unchanged if change else 0,
        "unknown_ids": given.num_rows - known.replaced - known.unchanged,
        "excluded": len(excluded_rows(opened.table)),
    }
    if as_json:
        show.json_value(counts)
    elif not quiet:
        unknown = counted(counts["unknown_ids"], "unknown id")
        print(
            f"{counts['labelled']:,} labelled, {counts['unchanged']:,} unchanged, {unknown}, "
            f"{counts['excluded']:,} excluded"
        )
        if counts["unknown_ids"]:
            ids = id_texts(given.column(id_column), id_column)
            known_ids = set(opened.table.rows(ids, ["id"])["id"].to_pylist())
            first = next(id for id in ids.to_pylist() if id not in known_ids)
            print(f"ids that are not in the store are left out, such as {first!r}")
        for note in notes:
            print(note)
