"""Committing data files that other processes have written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake.transaction import AddAction

from embedpipe.errors import StoreError
from embedpipe.sources.access.outage import outages_raised
from embedpipe.store.data_files import DataFile, write_files
from embedpipe.store.id_index import IdIndex, in_id_order
from embedpipe.store.keyed_table import CommitPlan, KeyedTable
from embedpipe.store.schema import conform, refuse_missing_vectors, storable


@dataclass(frozen=True)
class NewFile:
    """A data file in the folder of a table that no version names yet.

    Parameters
    ----------
    action : deltalake.transaction.AddAction
        Adds the file to the log.
    ids : pyarrow.Array of str
        The ids in the file, in order.
    schema : pyarrow.Schema
        The columns of the file.
    """

    action: AddAction
    ids: pa.Array
    schema: pa.Schema

    @property
    def entry(self) -> DataFile:
        """The file as the log will name it."""
        return DataFile(self.action.path, len(self.ids), self.action.size, self.ids[0].as_py(), self.ids[-1].as_py())


def write_new_files(rows: pa.Table, table: KeyedTable) -> list[NewFile]:
    """Write rows into files of bounded size in the folder of a table, without a commit.

    Columns that the table has get its types. Raises StoreError if a value does not fit or writing fails.
    """
    rows = storable(rows)
    known = table.schema.names
    rows = conform(rows, pa.schema([table.schema.field(f.name) if f.name in known else f for f in rows.schema]))
    rows = in_id_order(rows)
    ids = rows.column("id").combine_chunks()
    files: list[NewFile] = []
    start = 0
    for action in write_files(rows, table.fs, table.base):
        count = json.loads(action.stats)["numRecords"]
        files.append(NewFile(action, ids.slice(start, count), rows.schema))
        start += count
    return files


def adopt(
    table: KeyedTable, files: Sequence[NewFile], trusted: set[str], note: Mapping[str, Any] | None = None
) -> list[NewFile]:
    """Add files to a table in one commit. Return those that are left out, as the table has one of their ids.

    No row is read: only the ids of data files are looked up that other writers have added.

    Parameters
    ----------
    table : KeyedTable
    files : sequence of NewFile
        Their ids must differ.
    trusted : set of str
        Paths of data files that hold none of the ids. The paths of the added files are added to it.
    note : mapping, optional
        Metadata of the commit, as in `KeyedTable.upsert`.
    """
    for schema in {file.schema for file in files}:
        table.add_columns(schema)
    paths = {file.action.path for file in files}

    def plan() -> CommitPlan[list[NewFile]]:
        for schema in {file.schema for file in files}:
            refuse_missing_vectors(schema.empty_table(), table.schema, table.path)
        others = [file for file in table.files if file.path not in trusted and file.path not in paths]
        left = [file for file in files if _has_any(table, others, file)]
        return [file.action for file in files if file not in left], [], left

    left = table.commit(plan, note)
    trusted |= paths - {file.action.path for file in left}
    return left


@outages_raised()
def require_present(table: KeyedTable, files: Sequence[NewFile]) -> None:
    """Refuse files of other processes that are not there: their machine may have a folder of its own under this path.

    Raises StoreError.
    """
    infos = table.fs.get_file_info([f"{table.base}/{file.action.path}" for file in files])
    missing = [file for file, info in zip(files, infos, strict=True) if info.size != file.action.size]
    if missing:
        raise StoreError(
            f"{missing[0].action.path!r} must be in {table.path!r}, where another process wrote it, but is not: give "
            "a folder that all machines share, or a bucket"
        )


def _has_any(table: KeyedTable, others: Sequence[DataFile], file: NewFile) -> bool:
    """Return whether one of the data files of a table has an id of a new file."""
    new = file.entry
    near = [each for each in others if each.first <= new.last and new.first <= each.last]
    index = IdIndex(file.ids)
    return any(pc.any(index.mask(table.file_ids(each))).as_py() for each in near)
