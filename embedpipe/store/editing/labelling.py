"""Values that are set by hand: written from a table, marked, and kept when the source says something else.

The column `BY_HAND` of a row is null, or a JSON object with a key for each column of the row that was set by hand. The
value of the key is what the source says, as text, null if it says nothing. The column itself holds the hand-set value.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from deltalake.transaction import AddAction, RemoveAction

from embedpipe._utils.messages.json_values import parse_json
from embedpipe._utils.option_names import option
from embedpipe.errors import ConcurrentWriteError, StoreError, UsageError, suggest
from embedpipe.sources.columns.ids import id_texts
from embedpipe.store.data_files import removal
from embedpipe.store.delta_log import Change
from embedpipe.store.id_index import IdIndex
from embedpipe.store.keyed_table import CommitPlan, KeyedTable
from embedpipe.store.schema import BY_HAND, EXCLUDED, KEY_FIELDS, conform, differ, refuse_column_name, spec_of, storable

Mask = npt.NDArray[np.bool_]

#: Of one column: the mask of the rows that were set by hand, and what their source says, as text.
Marks = tuple[Mask, pa.Array]


def set_column(
    table: KeyedTable, values: pa.Table, id: str, column: str, into: str, expected: str | None = None
) -> Change:
    """Write a column of ``values`` into the column ``into`` of the rows with the same ids, in one commit.

    The values are marked as set by hand, so that `keep_by_hand` keeps them, until one is set back to what its source
    says.

    Parameters
    ----------
    table : KeyedTable
    values : pyarrow.Table
        One row an item. Rows with unknown ids are left out.
    id, column : str
        Columns of ``values``: the ids, and the values to write.
    into : str
        Column of ``table``, added if it is new.
    expected : str, optional
        Column of ``values``: what ``into`` holds so far. Nothing is written if any row holds something else.

    Raises
    ------
    ConcurrentWriteError
        A row holds something else than expected, as somebody else has set it.
    UsageError
        A column is missing, an id occurs twice, no id is in the table, or ``into`` is reserved.
    """
    table.refresh()
    refuse_column_name(into, table.schema)
    if into.lower() == "text" and spec_of(table.schema).modality == "text":
        raise UsageError(f"column {into!r} holds the beginnings of the texts: choose another name")
    return write_column(table, values, id, column, into, expected)


def write_column(
    table: KeyedTable, values: pa.Table, id: str, column: str, into: str, expected: str | None = None
) -> Change:
    """Write a column as `set_column` does, under any name."""
    table.refresh()  # another process may have committed the rows since the table was opened
    for role, name in (("id", id), ("label", column), ("expected", expected)):
        if name and name not in values.column_names:
            raise UsageError(
                f"the table has no column {name!r} ({option(role, ...)}){suggest(name, values.column_names)}"
            )
    keys = id_texts(values.column(id), id)
    rows = IdIndex(keys)
    if rows.has_repeats or keys.null_count > 1:
        twice = next((key for key, count in Counter(keys.to_pylist()).items() if count > 1), None)
        raise UsageError(f"ids in column {id!r} must be unique, and {twice!r} has several rows: give each item one")
    if len(keys) and next(table.matches(keys), None) is None:
        known = f"whose ids are like {_first_id(table)!r}" if len(table) else "which is empty"
        raise UsageError(f"none of the {len(keys)} ids, such as {keys[0].as_py()!r}, is in {table.path!r}, {known}")
    new = storable(pa.table({into: values.column(column).combine_chunks()}))
    if into == "split" and new.num_columns:  # as embed stores it
        new = conform(new, pa.schema([pa.field(into, pa.string())]))
    if not new.num_columns and into not in table.schema.names:  # a column of nulls only has no type
        return Change(unchanged=table.rows(keys, ["id"]).num_rows)
    field = new.schema.field(into) if new.num_columns else table.schema.field(into)

    table.add_columns(pa.schema([field, pa.field(BY_HAND, pa.string())]))

    def plan() -> CommitPlan[Change]:
        given = conform(new, pa.schema([table.schema.field(into)])).column(into) if new.num_columns else None
        schema = pa.schema([table.schema.field(into)])
        before = None if expected is None else conform(pa.table({into: values.column(expected)}), schema).column(into)
        adds: list[AddAction] = []
        removes: list[RemoveAction] = []
        replaced = matched = 0
        for file, mask in table.matches(keys):
            old = table.read_file(file)
            positions = rows.find(old.column("id").combine_chunks())
            if before is not None:
                _refuse_changed(old, into, before, positions)
            changed = _set_rows(old, into, given, pa.array(positions, mask=positions < 0))
            differing = [differ(changed.column(name), old.column(name)) for name in (into, BY_HAND)]
            matched += pc.sum(mask).as_py()
            replaced += pc.sum(differing[0]).as_py()
            if any(pc.any(each).as_py() for each in differing):
                removes.append(removal(file))
                adds += table.write(changed)
        return adds, removes, Change(replaced=replaced, unchanged=matched - replaced)

    return table.commit(plan, {"embedpipe.operation": f"set {into}"})


def _refuse_changed(old: pa.Table, name: str, before: pa.ChunkedArray, positions: npt.NDArray[np.int64]) -> None:
    """Raise ConcurrentWriteError if a row does not hold what the caller expects."""
    hit = np.flatnonzero(positions >= 0)
    held = old.column(name).take(pa.array(hit)).combine_chunks()
    known = before.take(pa.array(positions[hit])).combine_chunks()
    changed = np.flatnonzero(np.asarray(differ(pa.chunked_array([held]), pa.chunked_array([known]))))
    if len(changed):
        at = int(changed[0])
        raise ConcurrentWriteError(
            f"{name} of {old.column('id')[int(hit[at])].as_py()!r} is {held[at].as_py()!r} by now, and not "
            f"{known[at].as_py()!r}: somebody else has set it, and nothing was written"
        )


def _set_rows(rows: pa.Table, name: str, given: pa.ChunkedArray | None, positions: pa.Array) -> pa.Table:
    """Return rows with ``given`` values (None: nulls) at the positions that are not null, marked as set by hand.

    What is set back to what its source says is no longer marked.
    """
    old = rows.column(name).combine_chunks()
    hit = np.asarray(positions.is_valid())
    values = pa.nulls(len(old), old.type) if given is None else given.take(positions).combine_chunks()
    marks = read_marks(rows.column(BY_HAND))
    mask, source = marks.get(name, (np.zeros(len(hit), bool), pa.nulls(len(hit), pa.string())))
    differs = np.asarray(differ(pa.chunked_array([as_text(values)]), pa.chunked_array([source])))
    marked = (mask | hit) & ~(mask & hit & ~differs)
    marks[name] = marked, pc.if_else(pa.array(hit & ~mask), as_text(old), source)
    for column, new in ((name, pc.if_else(pa.array(hit), values, old)), (BY_HAND, write_marks(marks, len(hit)))):
        rows = rows.set_column(rows.schema.get_field_index(column), rows.schema.field(column), new)
    return rows


@dataclass
class Outcome:
    """What a run did with values by column.

    Attributes
    ----------
    conflicts : Counter
        Values that were set by hand although the source has another.
    cleared : Counter
        Values that the source no longer has.
    """

    conflicts: Counter[str] = field(default_factory=Counter)
    cleared: Counter[str] = field(default_factory=Counter)

    def add(self, other: Outcome) -> None:
        """Add the counts of another part of the run."""
        self.conflicts.update(other.conflicts)
        self.cleared.update(other.cleared)


def keep_by_hand(rows: pa.Table, stored: pa.Table, own: Mask, outcome: Outcome, from_source: bool) -> pa.Table:
    """Return rows of a source with the values of stored rows that the source does not decide.

    A column of the source decides, with its nulls too, except where a value was set by hand. A column that the source
    lacks keeps the stored values.

    Parameters
    ----------
    rows : pyarrow.Table
        Rows of the source.
    stored : pyarrow.Table
        For each of the rows the stored values of the same item, nulls if there are none.
    own : bool array
        Rows whose stored values have the same id. Other rows moved, and take only what was set by hand.
    outcome : Outcome
        Counts are added to it.
    from_source : bool
        Take the values of the source where it has one.
    """
    marks = read_marks(stored.column(BY_HAND)) if BY_HAND in stored.column_names else {}
    none = np.zeros(len(rows), bool), pa.nulls(len(rows), pa.string())
    for name in stored.column_names:
        if name == BY_HAND:
            continue
        kept = stored.column(name).combine_chunks()
        mask = marks.get(name, none)[0]
        if name not in rows.column_names:
            rows = rows.append_column(stored.schema.field(name), pc.if_else(pa.array(mask | own), kept, None))
            continue
        new = conform(rows.select([name]), pa.schema([stored.schema.field(name)])).column(name).combine_chunks()
        has_value = np.asarray(new.is_valid())
        outcome.cleared[name] += int((own & ~mask & ~has_value & np.asarray(kept.is_valid())).sum())
        if not mask.any():
            continue
        outcome.conflicts[name] += int((mask & has_value & np.asarray(differ(new, kept))).sum())
        mask = mask & ~(from_source & has_value)
        marks[name] = mask, pc.if_else(pa.array(mask), as_text(new), None)
        at = rows.column_names.index(name)
        rows = rows.set_column(at, stored.schema.field(name), pc.if_else(pa.array(mask), kept, new))
    if BY_HAND in stored.column_names:
        rows = rows.append_column(BY_HAND, write_marks(marks, len(rows)))
    return rows


def count_by_hand(table: KeyedTable) -> dict[str, int]:
    """Return the number of values by column that were set by hand; of exclusions the reasons say more."""
    if BY_HAND not in table.schema.names:
        return {}
    marks = read_marks(table.read([BY_HAND]).column(BY_HAND))
    return {name: int(mask.sum()) for name, (mask, _) in sorted(marks.items()) if name != EXCLUDED}


def forget_by_hand(rows: pa.Table) -> pa.Table:
    """Return stored rows with what their source says in place of what was set by hand."""
    for name, (mask, source) in read_marks(rows.column(BY_HAND)).items():
        at = rows.schema.get_field_index(name)
        if at >= 0:
            old = rows.column(at).combine_chunks()
            rows = rows.set_column(at, rows.field(at), pc.if_else(pa.array(mask), from_text(source, old.type), old))
    at = rows.schema.get_field_index(BY_HAND)
    return rows.set_column(at, rows.field(at), pa.nulls(len(rows), pa.string()))


def read_marks(column: pa.ChunkedArray) -> dict[str, Marks]:
    """Return the marks of each column that was set by hand. Raises StoreError if the JSON is damaged."""
    encoded = column.combine_chunks().dictionary_encode()
    codes = np.asarray(pc.fill_null(encoded.indices, -1), np.int64)
    try:
        objects = [dict(parse_json(text)) for text in encoded.dictionary.to_pylist()]
        names = {name: None for each in objects for name in each}
        if reserved := {key.name for key in KEY_FIELDS} & {*names}:
            raise ValueError(f"{sorted(reserved)} cannot be set by hand")
        sources = {name: pa.array([each.get(name) for each in objects], pa.string()) for name in names}
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise StoreError(f"column {BY_HAND!r} must hold JSON objects of texts: {error}") from error
    places = pa.array(codes, mask=codes < 0)
    return {
        name: (np.array([name in each for each in objects] + [False])[codes], source.take(places))
        for name, source in sources.items()
    }


def write_marks(marks: dict[str, Marks], count: int) -> pa.Array:
    """Return the column of JSON objects of these marks."""
    objects: list[dict[str, str | None] | None] = [None] * count
    for name, (mask, source) in sorted(marks.items()):
        for row, text in zip(np.flatnonzero(mask).tolist(), source.filter(pa.array(mask)).to_pylist(), strict=True):
            objects[row] = (objects[row] or {}) | {name: text}
    texts = [None if each is None else json.dumps(each, ensure_ascii=False) for each in objects]
    return pa.array(texts, pa.string())


def as_text(column: pa.Array) -> pa.Array:
    """Return values as text; bytes as hexadecimal digits."""
    if pa.types.is_binary(column.type):
        return pa.array([None if value is None else value.hex() for value in column.to_pylist()], pa.string())
    return column.cast(pa.string())


def from_text(column: pa.Array, type: pa.DataType) -> pa.Array:
    """Return what `as_text` gave as values of a type again. Raises ValueError for a text that is no such value."""
    if pa.types.is_binary(type):
        return pa.array([None if text is None else bytes.fromhex(text) for text in column.to_pylist()], type)
    return column.cast(type)


def _first_id(table: KeyedTable) -> str:
    return min(file.first for file in table.files)
