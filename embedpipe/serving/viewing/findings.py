"""Findings of `clean` on the page of a store: read from a table, their ids as row numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.option_names import option
from embedpipe.cleaning import Findings
from embedpipe.cleaning.kinds import MEANINGS
from embedpipe.errors import UsageError
from embedpipe.serving.viewing.collection import Collection, as_json_value

#: Columns of a table of findings that the page needs, and those that it shows if they are there.
NEEDED, SHOWN = ("id", "kind", "score"), ("related", "label", "proposed")
#: The kind of rows that name none.
OTHER = "other"


@dataclass(frozen=True)
class Finding:
    """A finding on a row.

    Attributes
    ----------
    row : int
    related : int or None
        The row to which it relates.
    elsewhere : str or None
        What it relates to, if that is no row of the store.
    score : float or None
    label, proposed : str or None
        The label that the row had, and the one that it should have.
    """

    row: int
    related: int | None
    elsewhere: str | None
    score: float | None
    label: str | None
    proposed: str | None


class FoundRows:
    """The findings on the rows of a store, by kind.

    Parameters
    ----------
    findings : Findings or path
        What `embedpipe.clean` returned, or a table that it wrote.

    Raises
    ------
    UsageError
        If the table has not the columns of findings.
    """

    def __init__(self, findings: Findings | str | Path) -> None:
        self.table, self.name = _read(findings)
        self._placed: tuple[str, dict[str, list[Finding]]] = "", {}

    def of(self, collection: Collection) -> dict[str, list[Finding]]:
        """Return the findings on rows of a collection, by kind in the order of the report."""
        if self._placed[0] != collection.key:
            self._placed = collection.key, self._place(collection)
        return self._placed[1]

    def _place(self, collection: Collection) -> dict[str, list[Finding]]:
        ids = collection.table.column("id").combine_chunks()
        rows, near = (_numbers(self.table[name], ids) for name in ("id", "related"))
        kinds: dict[str, list[Finding]] = {kind: [] for kind in MEANINGS}
        columns = (self.table[name].to_pylist() for name in ("kind", "related", "score", "label", "proposed"))
        for row, other, kind, related, *rest in zip(rows, near, *columns, strict=True):
            if row is not None:
                elsewhere = related if other is None and related is not None else None
                values = (as_json_value(value) for value in (elsewhere, *rest))
                kinds.setdefault(kind, []).append(Finding(row, other, *values))
        return {kind: found for kind, found in kinds.items() if found}

    def require_some(self, collection: Collection) -> None:
        """Raise UsageError if there are findings, and none is on a row of a collection: they are another store's."""
        if len(self.table) and not self.of(collection):
            raise UsageError(
                f"{option('findings')} must be those of {collection.store.path!r}, which has none of the ids in "
                f"{self.name!r}, such as {self.table['id'][0].as_py()!r}: give its store, or its own findings"
            )

    def describe(self, collection: Collection) -> list[dict[str, Any]]:
        """Return each kind with its heading, what it means, and its number."""
        found = self.of(collection)
        return [
            dict(zip(("kind", "heading", "meaning"), (kind, *MEANINGS.get(kind, (kind, ""))), strict=True))
            | {"count": len(rows)}
            for kind, rows in found.items()
        ]


def _numbers(wanted: pa.ChunkedArray, ids: pa.Array) -> Sequence[int | None]:
    numbers: list[int | None] = pc.index_in(wanted.cast(pa.string()), value_set=ids).to_pylist()
    return numbers


def _read(findings: Findings | str | Path) -> tuple[pa.Table, str]:
    if isinstance(findings, Findings):
        table, name = findings.table, findings.store
    else:
        from embedpipe.sources.tables.table_files import load_table, without_apostrophes

        name = str(findings)
        table = load_table(name, text=("id", "kind", *SHOWN)).table
        table, _ = without_apostrophes(table, name, ("id", *SHOWN))
    if missing := [each for each in NEEDED if each not in table.column_names]:
        raise UsageError(
            f"{option('findings')} must be a table that `embedpipe clean STORE --to findings.csv` wrote, and {name!r} "
            f"has no column {missing[0]!r}"
        )
    for each in SHOWN:
        if each not in table.column_names:
            table = table.append_column(each, pa.nulls(table.num_rows, pa.string()))
    columns = {}
    for each in ("id", "kind", *SHOWN, "score"):
        try:
            columns[each] = table[each].cast(pa.float64() if each == "score" else pa.string())
        except pa.ArrowException as error:
            what = "numbers" if each == "score" else "text"
            raise UsageError(
                f"column {each!r} of {name!r} must hold {what} ({error}): write the table again by `embedpipe clean`"
            ) from error
    return pa.table(columns | {"kind": pc.fill_null(columns["kind"], OTHER)}), name
