"""A Delta table with unique ids: atomic commits, safe with several writers, files of bounded size.

Delta has no keys, so two appends of the same id would both succeed. Every commit is therefore made against one
exact table version, without automatic retries. If another writer commits first, the commit fails, and the change
is computed again against the new version.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Field, PostCommitHookProperties, Schema
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from embedpipe._utils.atomic import sync
from embedpipe._utils.folder_kinds import no_store
from embedpipe.errors import ConcurrentWriteError, EmbedpipeError, StoreError, StoreNotFoundError, TemporaryError
from embedpipe.sources.access.outage import outages_raised, refusal
from embedpipe.sources.locations import filesystem
from embedpipe.store import data_files, delta_log
from embedpipe.store.data_files import (
    DataFile,
    damaged,
    read_ids,
    read_log,
    reason,
    refuse_repeats,
    removal,
    write_files,
)
from embedpipe.store.delta_log import ONCE, Change, create_delta, is_delta, is_newest, open_delta
from embedpipe.store.id_index import KEPT_BYTES, IdIndex, checked_rows, in_id_order
from embedpipe.store.schema import VECTOR, conform, equal_ids, storable

#: How often a commit is computed again because another writer committed first.
MAX_ATTEMPTS = 100

#: Delta-rs tries every version below one that is missing, which takes minutes for a time in the place of a version.
MANY_VERSIONS = 100_000

T = TypeVar("T")

#: A commit is never tried again by delta-rs, and a checkpoint is written when the commit is on the disk.
NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)

Rows: TypeAlias = pa.Table | Callable[[], pa.Table]
#: Files to add, files to remove, and the result to return after the commit.
CommitPlan = tuple[list[AddAction], list[RemoveAction], T]


class KeyedTable:
    """A Delta table in which each ``id`` occurs once.

    Parameters
    ----------
    path : str
        Folder or URL of the table.
    version : int, optional
        Open this version, read-only. The newest by default.

    Raises
    ------
    StoreNotFoundError
        There is no Delta table at ``path``, or it has no such version.
    """

    def __init__(self, path: str, version: int | None = None) -> None:
        self.path = path
        self._pinned = version is not None
        self.fs, self.base = filesystem(path)
        self.log = delta_log.LocalLog(Path(self.base)) if isinstance(self.fs, pafs.LocalFileSystem) else None
        try:
            if version is not None and version > MANY_VERSIONS and version > open_delta(path).version():
                raise LookupError
            self._delta = open_delta(path, version)
        except EmbedpipeError:
            raise
        except Exception as error:
            if isinstance(error, TableNotFoundError) or (self.log and Path(self.base).is_file()):
                raise StoreNotFoundError(no_store(path)) from error
            newest = -1 if version is None else KeyedTable(path).version
            if version is None or 0 <= version <= newest:
                raise delta_log.unreadable(error, path, self.log) from error
            raise StoreNotFoundError(f"version must be 0 to {newest} for {path!r}, got {version}") from error
        self._ids: dict[str, pa.Array] = {}
        self._uncommitted: list[AddAction] = []
        self.files: tuple[DataFile, ...] = ()
        self._load()

    @classmethod
    def create(cls, path: str, schema: pa.Schema) -> KeyedTable:
        """Create an empty table, or open the one that another process created first."""
        try:
            create_delta(path, schema)
            table = cls(path)
            if table.log:
                table.log.sync_new()
        except (DeltaError, OSError) as error:
            raise StoreError(f"cannot create a feature store at {path!r}: {reason(error)}") from error
        return table

    @staticmethod
    def exists(path: str) -> bool:
        """Return whether there is a Delta table at ``path``."""
        try:
            # os.path, as pathlib raises for a name that is too long, such as a text in place of a path.
            return (os.path.isdir(path) or not os.path.exists(path)) and is_delta(path)  # noqa: PTH110, PTH112
        except (DeltaError, OSError) as error:
            raise StoreError(f"cannot look for a feature store at {path!r}: {reason(error)}") from error

    @property
    def version(self) -> int:
        """Version of the table that is read."""
        return int(self._delta.version())

    @property
    def delta(self) -> DeltaTable:
        """The underlying `deltalake.DeltaTable`."""
        return self._delta

    def history(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Return the commits, newest first. Raises StoreError if the log is damaged."""
        with outages_raised(self.path):
            return delta_log.read_history(self._delta, self.path, self.log, limit)

    def __len__(self) -> int:
        return sum(file.rows for file in self.files)

    def _load(self) -> None:
        self.schema: pa.Schema = pa.schema(self._delta.schema())
        if self.log:
            self.log.check(self._delta.version(), self.schema)
        delta_log.refuse_unreadable(self._delta, self.path)
        where = self.log.where_named if self.log else lambda name: "the log"
        actions = pa.RecordBatchReader.from_stream(self._delta.get_add_actions(flatten=True))  # pa.table loads pandas
        self.files = read_log(actions.read_all(), self.path, where, self.files)
        live = {file.path for file in self.files}
        self._ids = {path: ids for path, ids in self._ids.items() if path in live}
        self._id_bytes = sum(ids.nbytes for ids in self._ids.values())
        self._loaded = self._delta.version()  # at the end: a version that is refused is refused by each `refresh`

    def refresh(self) -> None:
        """Switch to the newest version of the table."""
        if self._pinned:
            raise StoreError(
                f"{self.path!r} is open read-only at version {self.version}: open it without a version to write"
            )
        delta_log.refuse_forked()
        try:
            with outages_raised(self.path):
                self._delta.update_incremental()
        except (DeltaError, OSError) as error:
            raise delta_log.unreadable(error, self.path, self.log) from error
        if self._delta.version() != self._loaded:
            self._load()

    @contextlib.contextmanager
    def open_bytes(self, file: DataFile) -> Iterator[pa.NativeFile]:
        """Open a data file for the block. Raises StoreError with its name if it is damaged, and as `is_shortage`."""
        try:
            with outages_raised(self.path), data_files.open_input(self.fs, f"{self.base}/{file.path}") as source:
                yield source
        except (OSError, UnicodeDecodeError, pa.ArrowException) as error:  # a name in the file may be no text
            if data_files.is_shortage(error):
                raise
            why = "no such file" if isinstance(error, FileNotFoundError) else str(error)
            raise self._damaged(file, why) from error

    @contextlib.contextmanager
    def open_file(self, file: DataFile) -> Iterator[pq.ParquetFile]:
        """Open a data file as Parquet and verify page checksums. Raises as `open_bytes` does."""
        with self.open_bytes(file) as source, pq.ParquetFile(source, page_checksum_verification=True) as parquet:
            if parquet.metadata.num_rows != file.rows:
                raise self._damaged(file, f"{parquet.metadata.num_rows:,} rows where the log says {file.rows:,}")
            columns = parquet.schema_arrow
            if unknown := {*columns.names} - {*self.schema.names}:
                raise self._damaged(file, f"the store has no columns {sorted(unknown)}")
            if other := [f.name for f in columns if file.is_own and f.type != self.schema.field(f.name).type]:
                raise self._damaged(file, f"the store has columns {sorted(other)} of another type")
            yield parquet

    def _damaged(self, file: DataFile, why: str) -> StoreError:
        if refused := refusal(why):
            return StoreError(f"cannot read {file.path!r} of {self.path!r}: {refused}")
        what = f"file {file.path!r} of {self.path!r} is missing or damaged: {why}"
        if self._pinned or not is_newest(self._delta, self.path):
            return StoreError(f"{what} (vacuum deletes files of old versions such as {self.version}): open the newest")
        return damaged(self.path, what)

    @outages_raised()
    def delete_file(self, path: str) -> bool:
        """Delete a file that no version needs. Return False if it was already deleted."""
        try:
            self.fs.delete_file(f"{self.base}/{path}")
        except FileNotFoundError:
            return False
        return True

    def read_file(self, file: DataFile, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a data file in file order, with all columns of the table or those in ``columns``."""
        fields = [self.schema.field(name) for name in columns or self.schema.names]
        with self.open_file(file) as parquet:
            present = [field.name for field in fields if field.name in parquet.schema_arrow.names]
            return conform(parquet.read(columns=present or ["id"]), pa.schema(fields))

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read columns of all rows in id order (UTF-8 byte order)."""
        return self._in_order(columns, ((file, None) for file in self.files))

    def rows(self, ids: pa.Array, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows with these ids in id order. Unknown ids are left out."""
        return self._in_order(columns, self.matches(ids))

    def _in_order(self, columns: Sequence[str] | None, parts: Iterable[tuple[DataFile, pa.Array | None]]) -> pa.Table:
        names = list(columns or self.schema.names)
        wanted = names if "id" in names else ["id", *names]
        tables = [pa.schema([self.schema.field(name) for name in wanted]).empty_table()]
        for file, mask in parts:
            table = self.read_file(file, wanted)
            tables.append(table if mask is None else table.filter(mask))
        rows = in_id_order(pa.concat_tables(tables))
        refuse_repeats(rows.column("id"), self.path)
        return rows.select(names)

    def file_ids(self, file: DataFile) -> pa.Array:
        """Return the ids of a data file in file order."""
        if (ids := self._ids.get(file.path)) is None:
            with self.open_file(file) as parquet:
                ids = read_ids(parquet)
            if self._id_bytes < KEPT_BYTES:
                self._ids[file.path] = ids
                self._id_bytes += ids.nbytes
        return ids

    def matches(self, ids: pa.Array) -> Iterator[tuple[DataFile, pa.Array]]:
        """Yield each file that holds any of these ids, with the mask of the matching rows."""
        if len(ids) == ids.null_count:
            return
        first, last = pc.min_max(ids).as_py().values()
        index = IdIndex(ids)
        for file in self.files:
            if file.first <= last and first <= file.last:
                mask = index.mask(self.file_ids(file))
                if pc.any(mask).as_py():
                    yield file, mask

    def upsert(
        self, rows: Rows, note: Mapping[str, Any] | None = None, dims: Mapping[str, int] | None = None
    ) -> Change:
        """Commit rows atomically: add new ids, and replace rows of known ids if they differ in more than vectors.

        Rows that depend on stored values are given as a function, which is called again for a newer version. ``note``
        becomes metadata of the commit, as JSON where it is no text. Raises what `conform` and `checked_rows` raise.
        """
        self.refresh()
        made_for, made = self.version, storable(rows() if callable(rows) else rows)
        self.add_columns(made.schema)

        def plan() -> CommitPlan[Change]:
            nonlocal made_for, made
            if callable(rows) and made_for != self.version:
                made_for, made = self.version, storable(rows())
            incoming = checked_rows(made, conform(made, self.schema), self.path, dims or {})
            names = [field.name for field in self.schema if field.type != VECTOR]
            same: list[str] = []
            stale: list[tuple[DataFile, pa.Array]] = []
            for file, mask in self.matches(incoming.column("id").combine_chunks()):
                equal = equal_ids(self.read_file(file, names).filter(mask), incoming)
                same += equal.to_pylist()
                stale.append((file, pc.and_not(mask, pc.is_in(self.file_ids(file), value_set=equal))))
            adds, removes, replaced = self.without(stale)
            ids, known = incoming.column("id"), pa.array(same, pa.string())
            changed = incoming.filter(pc.invert(pc.is_in(ids, value_set=known))) if same else incoming
            adds += self.write(changed)
            return adds, removes, Change(changed.num_rows - replaced, replaced, len(same))

        return self.commit(plan, note)

    def delete(self, ids: pa.Array) -> Change:
        """Drop the rows with these ids in one atomic commit."""

        def plan() -> CommitPlan[Change]:
            adds, removes, removed = self.without(self.matches(ids))
            return adds, removes, Change(removed=removed)

        return self.commit(plan, {"embedpipe.operation": "delete"})

    def _sync(self) -> None:
        """Make the last commit durable, and write a checkpoint if one is due."""
        if self.log:
            self.log.sync(self.version)
        if self.version % delta_log.CHECKPOINT_INTERVAL == 0:
            with contextlib.suppress(DeltaError, OSError):  # the next one is due soon
                delta_log.make_checkpoint(self._delta, self.log)

    def write(self, rows: pa.Table, *, data_change: bool = True) -> list[AddAction]:
        """Write rows into new files, for a plan of `commit`, which deletes them again if it fails."""
        self._uncommitted += (actions := write_files(rows, self.fs, self.base, data_change=data_change))
        return actions

    def _delete_uncommitted(self) -> None:
        for action in self._uncommitted:
            with contextlib.suppress(OSError, TemporaryError):  # `vacuum` deletes what is left
                self.delete_file(action.path)

    def without(self, stale: Iterable[tuple[DataFile, pa.Array]]) -> CommitPlan[int]:
        """Rewrite files without the marked rows. The result is the number of dropped rows."""
        adds: list[AddAction] = []
        removes: list[RemoveAction] = []
        dropped = 0
        for file, mask in stale:
            if count := int(pc.sum(mask).as_py()):
                dropped += count
                removes.append(removal(file))
                adds += self.write(self.read_file(file).filter(pc.invert(mask)))
        return adds, removes, dropped

    @outages_raised()
    def add_columns(self, schema: pa.Schema) -> None:
        """Add the columns that the table lacks, while other writers may add them too."""
        for _ in range(MAX_ATTEMPTS):
            self.refresh()
            missing = [field for field in schema if field.name not in self.schema.names]
            if not missing:
                return
            fields: list[Field] = list(Schema.from_arrow(pa.schema([f.with_nullable(True) for f in missing])).fields)
            delta_log.refuse_unwritable(self._delta, self.path)
            try:
                self._delta.alter.add_columns(fields, commit_properties=ONCE, post_commithook_properties=NO_HOOKS)
            except CommitFailedError:
                continue
            except Exception as error:  # delta-rs raises a plain Exception for names that differ only in case
                what = f"cannot add columns {[field.name for field in missing]} to {self.path!r}"
                raise StoreError(f"{what}: {reason(error)}") from error
        raise ConcurrentWriteError(f"other writers changed {self.path!r} {MAX_ATTEMPTS} times in a row: try again")

    @outages_raised()
    def commit(
        self,
        plan: Callable[[], CommitPlan[T]],
        note: Mapping[str, Any] | None,
        columns: Callable[[], pa.Schema] | None = None,
    ) -> T:
        """Compute the change for the newest version and commit to exactly that version, else start over.

        With ``columns``, the table gets those that it returns in the same commit, and the added files replace all.
        """
        for attempt in range(MAX_ATTEMPTS):
            self.refresh()
            self._uncommitted = []
            read_version = self.version
            try:
                adds, removes, result = plan()
            except BaseException as error:
                self._delete_uncommitted()
                # Another writer may have replaced a file meanwhile, and vacuum deleted it.
                if isinstance(error, StoreError) and not is_newest(self._delta, self.path):
                    continue
                raise
            if not adds and not removes and columns is None:
                return result
            delta_log.refuse_unwritable(self._delta, self.path)
            schema = self._delta.schema() if columns is None else Schema.from_arrow(columns())
            information = delta_log.commit_information(note, [*adds, *removes], pa.schema(schema))
            try:
                if self.log and adds:
                    sync(self.log.table)  # the names of the new files
                self._delta.create_write_transaction(
                    [*adds, *removes] if columns is None else list(adds),  # overwriting removes all files by itself
                    "append" if columns is None else "overwrite",
                    schema,
                    commit_properties=CommitProperties(custom_metadata=information, max_commit_retries=0),
                    post_commithook_properties=NO_HOOKS,
                )
            except (DeltaError, OSError) as error:
                self.refresh()
                # If the commit succeeded all the same, the new files are in use and must stay.
                if {action.path for action in adds}.isdisjoint(file.path for file in self.files):
                    self._delete_uncommitted()
                    if self.version == read_version:
                        raise StoreError(f"a commit to {self.path!r} failed: {reason(error)}") from error
                    time.sleep(random.uniform(0, 0.01 * min(attempt + 1, 20)))
                    continue
            self.refresh()
            self._sync()
            return result
        raise ConcurrentWriteError(
            f"other writers committed to {self.path!r} first, {MAX_ATTEMPTS} times in a row: try again"
        )
