"""Compaction of small files, and deletion of files that the newest version does not use."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from embedpipe.errors import UsageError
from embedpipe.sources.access.outage import outages_raised
from embedpipe.store.data_files import DATA_FILE, FILE_BYTES, DataFile, refuse_repeats, removal
from embedpipe.store.id_index import in_id_order
from embedpipe.store.keyed_table import CommitPlan, KeyedTable

#: A younger file that no version names may be one that another process is about to commit.
YOUNGEST_ORPHAN = timedelta(hours=1)

#: Folder in a store with a folder for each run of several processes, in which these leave files as they work. Readers
#: of Delta ignore names with an underscore.
RUNS = "_runs"

#: Folder in a store with a store of each set of layers that is being added.
LAYERS = "_layers"

#: A run that has left no file for so long was killed.
LONGEST_SILENCE = timedelta(days=1)


def compact(table: KeyedTable) -> int:
    """Merge small files in id order into files of about `FILE_BYTES`, and write files of other tools anew.

    Return how many files were merged or written anew.
    """

    def plan() -> CommitPlan[int]:
        small = [file for file in table.files if file.size < FILE_BYTES // 2 or not file.is_own]
        # Merging in id order up to the bound keeps memory at the size of one file.
        groups: list[list[DataFile]] = [[]]
        for file in sorted(small, key=lambda f: f.first):
            if groups[-1] and sum(f.size for f in groups[-1]) + file.size > FILE_BYTES:
                groups.append([])
            groups[-1].append(file)
        groups = [group for group in groups if len(group) > 1 or not all(file.is_own for file in group)]
        adds = []
        for group in groups:
            rows = in_id_order(pa.concat_tables([table.read_file(file) for file in group]))
            refuse_repeats(rows.column("id"), table.path)
            adds += table.write(rows, data_change=False)
        merged = [file for group in groups for file in group]
        return adds, [removal(file, data_change=False) for file in merged], len(merged)

    return table.commit(plan, {"embedpipe.operation": "compact"})


@outages_raised()
def vacuum(table: KeyedTable, older_than_hours: int, keep_versions: Sequence[int]) -> list[str]:
    """Delete files that only old versions use, and files that no version uses. Return their paths.

    A file that no version uses is kept if another process may be about to commit it (`uncommitted_since`).
    """
    if older_than_hours < 0:
        raise UsageError(f"older_than_hours must be >= 0, got {older_than_hours}")
    since = uncommitted_since(table, forget_killed=True)
    table.refresh()  # after that, as a run commits before it ends
    latest = table.version
    if wrong := [version for version in keep_versions if not 0 <= version <= latest]:
        raise UsageError(f"keep_versions must be versions from 0 to {latest}, got {wrong[0]}")

    def unused(full: bool) -> list[str]:
        return list(
            table.delta.vacuum(
                older_than_hours,
                dry_run=True,
                enforce_retention_duration=False,
                full=full,
                keep_versions=list(keep_versions) or None,
            )
        )

    removed = set(unused(full=False))
    deleted = []
    for path in unused(full=True):
        # The folder may hold files of other programs, and the list names files that are already deleted.
        if DATA_FILE.fullmatch(path):
            modified = table.fs.get_file_info(f"{table.base}/{path}").mtime
            if (path in removed or (modified and modified < since)) and table.delete_file(path):
                deleted.append(path)
    return deleted


@outages_raised()
def uncommitted_since(table: KeyedTable, *, forget_killed: bool = False) -> datetime:
    """Return the time since when files have been written that another process may be about to commit.

    It is an hour ago, or the beginning of the oldest run of several processes that goes on. The folders of runs that
    were killed are deleted with ``forget_killed``.
    """
    now = datetime.now(UTC)
    since = now - YOUNGEST_ORPHAN
    for run in runs_noted(table):
        try:
            found = table.fs.get_file_info(pafs.FileSelector(f"{table.base}/{RUNS}/{run}", recursive=True))
        except FileNotFoundError:  # it has just ended
            continue
        signs = [info.mtime for info in found if info.mtime is not None]  # an object storage has no time for folders
        if any(time > now - LONGEST_SILENCE for time in signs):
            since = min(since, *signs)
        elif forget_killed and signs:
            forget_run(table, run)
    return since


@outages_raised()
def runs_noted(table: KeyedTable) -> list[str]:
    """Return the names of the runs of several processes that go on, or were killed."""
    found = table.fs.get_file_info(pafs.FileSelector(f"{table.base}/{RUNS}", allow_not_found=True))
    return sorted(info.base_name for info in found)


def forget_run(table: KeyedTable, run: str) -> None:
    """Delete the files that a run of several processes has left as signs, if another process has not."""
    folder = f"{table.base}/{RUNS}"
    with contextlib.suppress(FileNotFoundError):
        table.fs.delete_dir(f"{folder}/{run}")
        if table.log:
            with contextlib.suppress(OSError):  # another run has just begun
                Path(folder).rmdir()
        elif not runs_noted(table):
            table.fs.delete_dir(folder)
