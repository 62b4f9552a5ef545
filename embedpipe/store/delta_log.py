"""The log of a Delta table: what is refused, entries that are damaged, and commits that survive a power cut.

Delta-rs takes an empty entry for one without changes, ignores reader features, and syncs nothing: this is done here.
"""

from __future__ import annotations

import json
import os
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from embedpipe._utils.atomic import sync
from embedpipe._utils.checksums import checksum
from embedpipe._utils.machine.permissions import closed, first_closed
from embedpipe._utils.machine.regular_files import read_regular
from embedpipe._utils.messages.json_values import parse_json
from embedpipe.errors import StoreError, UsageError
from embedpipe.sources.access.outage import is_outage, outages_raised, refusal
from embedpipe.sources.access.s3 import delta_options
from embedpipe.store.data_files import DATA_FILE, damaged, reason, refuse_misread

#: What the keys of embedpipe's begin with in the information of a commit.
OWN_KEYS = "embedpipe."

#: Key in the information of a commit: the checksum of the files that it adds and removes, and of our other keys.
ACTIONS_KEY = "embedpipe.actions"

#: Key of the checksum of the columns that the table had when it was committed to.
SCHEMA_KEY = "embedpipe.schema"

#: Entries between two checkpoints, as Delta's default.
CHECKPOINT_INTERVAL = 100

#: Features of Delta that a reader need not know to read a store's rows, and a writer need not know to change them.
READ_FEATURES = {"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"}
WRITE_FEATURES = READ_FEATURES | {"appendOnly", "domainMetadata", "invariants"}

#: Of a commit that fails if another process was first.
ONCE = CommitProperties(max_commit_retries=0)

#: The process that first opened a store. The threads of delta-rs do not survive a fork.
_first_process: list[int] = []


@dataclass(frozen=True, slots=True)
class Change:
    """Counts of a commit: rows added, replaced, left unchanged and removed."""

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    removed: int = 0


def refuse_forked() -> None:
    """Raise StoreError in a forked child of a process that has opened a store, where delta-rs would panic."""
    _first_process[:] = _first_process or [os.getpid()]
    if _first_process != [os.getpid()]:
        raise StoreError(
            "a process that was forked from one that had opened a store can read that store, but cannot open or "
            "change one: start workers with multiprocessing.get_context('spawn'), or open stores in workers only"
        )


def refuse_unreadable(delta: DeltaTable, path: str) -> None:
    """Raise StoreError if other tools gave the table at ``path`` a feature with which its rows would be misread."""
    protocol, metadata = delta.protocol(), delta.metadata()
    features = set(protocol.reader_features or ()) - READ_FEATURES
    mapping = metadata.configuration.get("delta.columnMapping.mode", "none")
    if mapping != "none":
        features.add(f"columnMapping (mode {mapping})")
    if protocol.min_reader_version > 3 or features:
        what = f"the Delta features {sorted(features)}" if features else f"version {protocol.min_reader_version}"
        raise StoreError(
            f"another tool gave {path!r} {what}, which embedpipe cannot read: undo it there, or embed into a new store"
        )
    if metadata.partition_columns:
        raise StoreError(
            f"another tool partitioned {path!r} by {metadata.partition_columns}, and a store has no partitions: "
            "embed into a new store"
        )
    if not str(metadata.id).replace("-", "").isalnum() or not str(metadata.id).isascii():
        raise StoreError(f"the id of a Delta table must be letters, digits and hyphens, got {str(metadata.id)!r:.100}")


def refuse_unwritable(delta: DeltaTable, path: str) -> None:
    """Raise StoreError if the table needs a writer that does more than add and remove files."""
    protocol = delta.protocol()
    features = set(protocol.writer_features or ()) - WRITE_FEATURES
    if protocol.min_writer_version > 7 or features:
        what = f"the Delta features {sorted(features)}" if features else f"version {protocol.min_writer_version}"
        raise StoreError(f"another tool gave {path!r} {what}, with which embedpipe cannot write: undo it there")


def open_delta(path: str, version: int | None = None) -> DeltaTable:
    """Open a Delta table. Raises UnreachableError, UsageError for a path that is misread, and delta-rs' errors."""
    refuse_forked()
    with outages_raised(path):
        return DeltaTable(refuse_misread(path), version=version, storage_options=delta_options(path))


def create_delta(path: str, schema: pa.Schema) -> None:
    """Create an empty Delta table, unless there is one. Raises as `open_delta`."""
    refuse_forked()
    refuse_misread(path)
    try:
        with outages_raised(path):
            # A second try of delta-rs would replace the columns of a table that another process created first.
            DeltaTable.create(path, schema, "ignore", storage_options=delta_options(path), commit_properties=ONCE)
    except CommitFailedError:
        if not is_delta(path):
            raise


def is_delta(path: str) -> bool:
    """Return whether there is a Delta table. Raises as `open_delta`."""
    refuse_forked()
    with outages_raised(path):
        return bool(DeltaTable.is_deltatable(refuse_misread(path), storage_options=delta_options(path)))


def is_newest(delta: DeltaTable, path: str) -> bool:
    """Return whether no other process has committed since a table was opened. True if that cannot be told."""
    try:
        return bool(open_delta(path).version() == delta.version())
    except Exception:
        return True


def unreadable(error: Exception, path: str, log: LocalLog | None) -> StoreError:
    """Return the error for a log that delta-rs cannot read, with the name of the file that is damaged."""
    place = first_closed(log.folder) if log else None
    if place or refusal(str(error)):
        return StoreError(f"cannot open {path!r}: {closed(place) if place else reason(error)}")
    name = log.damaged_file() if log else ""
    what = f"{name} in the log of {path!r} is damaged" if name else f"the log of {path!r} cannot be read"
    return damaged(path, f"{what}: {reason(error)}")


def read_history(delta: DeltaTable, path: str, log: LocalLog | None, limit: int | None) -> list[dict[str, Any]]:
    """Return the commits of a table, newest first. Raises StoreError if the log is damaged."""
    if limit is not None and limit < 0:
        raise UsageError(f"limit must be >= 0, got {limit}")
    try:
        commits = list(delta.history(limit))
    except Exception as error:
        if is_outage(error):
            raise
        raise unreadable(error, path, log) from error
    if log:
        versions = sorted((number for number in log.versions() if number <= delta.version()), reverse=True)
        log.refuse_damaged(versions[: len(commits)])
        # Delta-rs counts back from the newest, also where an entry is missing.
        commits = [commit | {"version": version} for commit, version in zip(commits, versions, strict=False)]
    return commits


def commit_information(
    note: Mapping[str, Any] | None, actions: Iterable[AddAction | RemoveAction], schema: pa.Schema
) -> dict[str, str]:
    """Return the information of a commit: a note, and the checksums of columns, of files and of the note.

    What is no text in the note becomes JSON, as delta-rs changes the last digits of numbers.
    """
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in (note or {}).items()}
    information = texts | {SCHEMA_KEY: schema_checksum(schema)}
    files = [
        ["add", action.path, action.size, action.stats] if isinstance(action, AddAction) else ["remove", action.path]
        for action in actions
    ]
    return information | {ACTIONS_KEY: _checksum(files, information)}


def schema_checksum(schema: pa.Schema) -> str:
    """Return the checksum of names, types and metadata of the columns of a table."""
    columns = [[str(field), sorted(map(str, (field.metadata or {}).items()))] for field in schema]
    return checksum(json.dumps(columns).encode())


#: Fields without which Delta cannot read an action.
REQUIRED = {
    "add": {"path", "partitionValues", "size", "modificationTime", "dataChange"},
    "remove": {"path", "dataChange"},
    "metaData": {"id", "format", "schemaString", "partitionColumns", "configuration"},
    "protocol": {"minReaderVersion", "minWriterVersion"},
}

#: Fields of an action that adds a file.
ADD_FIELDS = REQUIRED["add"] | {"baseRowId", "clusteringProvider", "defaultRowCommitVersion", "stats", "tags"}

#: Actions that Delta knows.
KINDS = {*REQUIRED, "cdc", "checkpointMetadata", "commitInfo", "domainMetadata", "sidecar", "txn"}


class Entry:
    """An entry of the log.

    Attributes
    ----------
    actions : list of dict
        One action of Delta each. Lines that are no JSON are left out.
    unreadable : list of bytes
        Those lines.
    damage : str or None
        What is wrong with the entry.
    """

    def __init__(self, data: bytes) -> None:
        self.actions: list[dict[str, Any]] = []
        self.unreadable: list[bytes] = []
        self.damage: str | None = None if data.strip() else "is empty"
        for line in data.splitlines():
            try:
                action = parse_json(line)
                for kind, content in action.items():
                    if kind not in KINDS or not REQUIRED.get(kind, set()) <= content.keys():
                        raise ValueError(f"no {kind} action")
                self.actions.append(action)
            except (ValueError, AttributeError):
                self.unreadable.append(line)
                self.damage = "is cut off or damaged"
        expected = [info[ACTIONS_KEY] for info in self.named("commitInfo") if ACTIONS_KEY in info]
        if self.damage is None and (expected or self._needs_checksum()) and expected != [entry_checksum(self)]:
            self.damage = "does not have the checksum of its commit"
        if self.damage is None and not expected and self._is_cut():
            self.damage = "is cut off or damaged"
        added = any(info.get("operation") == "ADD COLUMN" for info in self.named("commitInfo"))
        if self.damage is None and added and not any(self.named("metaData")):
            self.damage = "lacks the columns that its commit added"

    def named(self, kind: str) -> Iterator[dict[str, Any]]:
        """Yield the contents of the actions of a kind, such as ``add``."""
        return (action[kind] for action in self.actions if kind in action)

    def _is_cut(self) -> bool:
        """Return whether bytes are missing, with the checksum among them, so that what is left is JSON by chance."""
        information = {key: value for each in self.named("commitInfo") for key, value in each.items()}
        kinds = {kind for action in self.actions for kind in action}
        operation = information.get("operation")
        own = any(DATA_FILE.fullmatch(_path(add)) for add in self.named("add"))
        return (
            not information.keys().isdisjoint(ADD_FIELDS)
            or (str(information.get("engineInfo")).startswith("delta-rs") and "clientVersion" not in information)
            or (own and operation != "RESTORE")
            or (kinds == {"commitInfo"} and not str(operation).startswith("VACUUM"))
            or ("engineInfo" not in information and "add" not in kinds)
            or ("Append" in str(information.get("operationParameters")) and "remove" in kinds)
        )

    def _needs_checksum(self) -> bool:
        """Return whether embedpipe committed files of whose names a checksum is a part."""
        own = any(key.startswith(OWN_KEYS) for information in self.named("commitInfo") for key in information)
        files = (_path(action) for kind in ("add", "remove") for action in self.named(kind))
        return own and any(DATA_FILE.fullmatch(path) for path in files)


def entry_checksum(entry: Entry) -> str:
    """Return the checksum of what an entry adds, removes and notes, as `commit_information` gives it."""
    adds = [["add", _path(add), add.get("size"), add.get("stats")] for add in entry.named("add")]
    removes = [["remove", _path(remove)] for remove in entry.named("remove")]
    return _checksum([*adds, *removes], {key: info[key] for info in entry.named("commitInfo") for key in info})


class LocalLog:
    """The log of a table on a local disk.

    Parameters
    ----------
    folder : Path
        The folder of the table.
    """

    def __init__(self, folder: Path) -> None:
        self.table = folder
        self.folder = folder / "_delta_log"
        self._checked = self._synced = -1
        self._schema: str | None = None
        self._columns_from = ""

    def entry(self, version: int) -> Path:
        """Return the file of the entry that made a version."""
        return self.folder / f"{version:020}.json"

    def check(self, version: int, schema: pa.Schema) -> None:
        """Raise StoreError if an entry between the checkpoint and ``version`` is damaged. Each is read once."""
        checkpoint = found if (found := self.checkpoint()) <= version else -1
        if self._checked < checkpoint:
            self._columns_from = next(iter(self._checkpoints(checkpoint)), "")
        for number in range(max(self._checked + 1, version - CHECKPOINT_INTERVAL + 1, checkpoint), version + 1):
            entry = self._entry(number)
            if entry is None or (entry.damage and number == checkpoint):
                continue  # a checkpoint holds what it said
            if entry.damage:
                raise self._damaged(f"{self.entry(number).name} in the log of {str(self.table)!r} {entry.damage}")
            if any(entry.named("metaData")):
                self._schema = None
                self._columns_from = self._columns_from if number == checkpoint else self.entry(number).name
            for information in entry.named("commitInfo"):
                self._schema = information.get(SCHEMA_KEY, self._schema)
        if self._schema not in (None, schema_checksum(schema)):
            where = f"{self._columns_from} in the log" if self._columns_from else "the log"
            raise self._damaged(f"{where} of {str(self.table)!r} names other columns than its last commit")
        if self._synced < 0:
            self._synced = version - 1  # the last entry may be one of a process that was killed before it synced
        self._checked = max(self._checked, version)

    def versions(self) -> list[int]:
        """Return the versions whose entries are there, in order."""
        return sorted(int(path.stem) for path in self.folder.glob("*.json") if path.stem.isdigit())

    def refuse_damaged(self, versions: Iterable[int]) -> None:
        """Raise StoreError if the entry of one of these versions is damaged."""
        for number in versions:
            if (entry := self._entry(number)) and entry.damage:
                raise self._damaged(f"{self.entry(number).name} in the log of {str(self.table)!r} {entry.damage}")

    def damaged_file(self) -> str:
        """Return the name of the first file that cannot be read, or an empty string."""
        for path in sorted(self.folder.glob("*")):
            try:
                if path.suffix == ".json" and Entry(read_regular(path)).damage:
                    return path.name
                if path.suffix == ".parquet":
                    pq.read_table(path, page_checksum_verification=True)
                if path.name == "_last_checkpoint":
                    parse_json(read_regular(path))
            except (OSError, ValueError, pa.ArrowException):
                return path.name
        for version in [each for each in self.versions() if each >= self.checkpoint()]:
            try:
                pa.schema(DeltaTable(str(self.table), version=version).schema())
            except Exception:  # delta-rs raises many types
                return [*self._checkpoints(version), self.entry(version).name][0]
        return ""

    def where_named(self, name: str) -> str:
        """Return the part of the log that names a data file, for a message."""
        found = [path.name for path in map(self.entry, self.versions()) if name.encode() in path.read_bytes()]
        found += self._checkpoints(self.checkpoint())
        return f"{found[0]} in the log" if found else "the log"

    def _entry(self, version: int) -> Entry | None:
        try:
            return Entry(read_regular(self.entry(version)))
        except FileNotFoundError:
            return None

    def _checkpoints(self, version: int) -> list[str]:
        return sorted(path.name for path in self.folder.glob(f"{version:020}.checkpoint*.parquet"))

    def _damaged(self, what: str) -> StoreError:
        return damaged(str(self.table), what)

    def checkpoint(self) -> int:
        """Return the version of the last checkpoint, -1 for none."""
        try:
            return int(parse_json(read_regular(self.folder / "_last_checkpoint"))["version"])
        except (OSError, ValueError, LookupError, TypeError):
            return -1

    def sync(self, version: int) -> None:
        """Wait until the entries up to ``version`` are on the disk."""
        for entry in filter(Path.exists, map(self.entry, range(self._synced + 1, version + 1))):
            sync(entry)
        sync(self.folder)
        self._synced = version

    def sync_new(self) -> None:
        """Wait until a table that was just created is on the disk."""
        for path in filter(Path.exists, (self.entry(0), self.folder, self.table, self.table.parent)):
            sync(path)


def make_checkpoint(delta: DeltaTable, log: LocalLog | None) -> None:
    """Write a checkpoint, and delete entries that have expired only when it is on the disk."""
    delta.create_checkpoint()
    if log:
        written = log.folder.glob(f"{delta.version():020}.checkpoint*.parquet")
        for path in (*written, log.folder / "_last_checkpoint", log.folder):
            sync(path)
    delta.cleanup_metadata()


def _path(action: dict[str, Any]) -> str:
    return urllib.parse.unquote(str(action.get("path")))


def _checksum(files: Iterable[list[Any]], information: Mapping[str, Any]) -> str:
    note = {key: value for key, value in information.items() if key.startswith(OWN_KEYS) and key != ACTIONS_KEY}
    return checksum(json.dumps([sorted(files, key=str), note], sort_keys=True).encode())
