"""Going back from a damaged log of a table to what can be read of it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema

from embedpipe._utils.atomic import sync, whole_file
from embedpipe._utils.messages.json_values import parse_json
from embedpipe.errors import StoreError
from embedpipe.store.data_files import DATA_FILE, DataFile, is_shortage
from embedpipe.store.delta_log import ACTIONS_KEY, SCHEMA_KEY, Entry, LocalLog, entry_checksum, schema_checksum
from embedpipe.store.repairing.damage import as_on_disk

#: Seconds after which a temporary file of delta-rs is not one of a running commit.
ABANDONED = 3600.0


class BrokenLogError(StoreError):
    """No version of the table can be read."""


def mend_log(log: LocalLog, aside: Path) -> list[str]:
    """Make the log of a table readable, and return what was done, a sentence each.

    A damaged last entry is undone. Where an earlier one is damaged, it is replaced by the sum of what can be read of it
    and of all later ones, so nothing that these committed is lost. Damaged files are kept in ``aside``.

    Raises
    ------
    BrokenLogError
        The first entry is damaged, and neither a checkpoint nor a data file tells the columns.
    """
    done = _drop_leftovers(log) + _drop_checkpoints(log, aside)
    versions = log.versions()
    newest, base = max(versions, default=-1), max(_checkpoints(log), default=-1)
    for number in versions:
        if number <= base and (damage := Entry(_read(log.entry(number))).damage):
            keep_aside(log.entry(number), aside)
            done.append(f"{log.entry(number).name} {damage}: put aside, as a later checkpoint holds what it said")
    entries = {n: Entry(_read(log.entry(n))) for n in range(base + 1, newest + 1)}
    _blame_columns(entries)
    first = next((n for n, entry in entries.items() if entry.damage), None)
    if first is None:
        return done
    if newest == 0:
        log.entry(0).unlink()
        log.folder.rmdir()
        return [*done, f"{log.entry(0).name} {entries[0].damage}: the store was being made, and nothing was in it"]
    for number in range(first, newest + 1):
        if log.entry(number).exists():
            keep_aside(log.entry(number), aside, copy=True)
        if entries[number].damage:
            done.append(f"{log.entry(number).name} {entries[number].damage}: version {number} is undone")
    if entries[newest].damage:
        entries[newest] = Entry(b"{}")
    summed = _sum(log, first, entries)
    for number in range(first, newest + 1):
        lines = summed if number == first else _lines([])
        with whole_file(log.entry(number)) as part:
            part.write_text(lines, encoding="utf-8")
    if first < newest:
        done.append(
            f"what versions {first + 1} to {newest} committed was kept, and rows that a damaged one removed may be back"
        )
    return done


def _blame_columns(entries: dict[int, Entry]) -> None:
    """Mark the entry that set the columns, where a later commit found other columns."""
    setter: Entry | None = None
    for entry in entries.values():
        for information in entry.named("commitInfo"):
            expected = information.get(SCHEMA_KEY)
            if setter and not setter.damage and expected and expected != _columns_of(setter):
                setter.damage = "names other columns than its commit did"
                setter.actions = [action for action in setter.actions if "metaData" not in action]
        if entry.damage or any(entry.named("metaData")):
            setter = None if entry.damage else entry


def _columns_of(entry: Entry) -> str | None:
    for metadata in entry.named("metaData"):
        try:
            return schema_checksum(pa.schema(Schema.from_json(metadata["schemaString"])))
        except Exception:  # delta-rs raises a plain Exception for JSON that is no schema
            return None
    return None


def keep_aside(path: Path, aside: Path, *, copy: bool = False) -> None:
    """Move or copy a damaged file to the folder for such, under a name of its own."""
    aside.mkdir(exist_ok=True)
    to = aside / f"{time.time_ns()}-{path.name}"
    if copy:
        with whole_file(to) as part:
            part.write_bytes(path.read_bytes())
    else:
        path.rename(to)


def _sum(log: LocalLog, first: int, entries: dict[int, Entry]) -> str:
    """Return an entry with the effect of the entries from ``first``, as far as they can be read."""
    before: set[str] = set()
    if first > 0:
        before.update(pa.table(DeltaTable(str(log.table), version=first - 1).get_add_actions())["path"].to_pylist())
    live = dict.fromkeys(before)
    others: dict[str, dict[str, Any]] = {}
    for number, entry in sorted(entries.items()):
        if number < first:
            continue
        for action in entry.actions:
            for kind, content in action.items():
                if kind == "add":
                    live[str(content.get("path"))] = None
                elif kind == "remove":
                    live.pop(str(content.get("path")), None)
                elif kind != "commitInfo":
                    others[kind] = action
        for line in entry.unreadable:
            for match in DATA_FILE.finditer(line.decode("utf-8", "replace")):
                if b'"remove"' in line:
                    live.pop(match[0], None)
                else:
                    live[match[0]] = None
        if entry.damage and number + 1 in entries:
            live |= dict.fromkeys(_written_between(log.table, entries, number))
    adds = [add for path in live if path not in before and (add := _add(log.table, path))]
    removes = [
        {"remove": {"path": path, "dataChange": True, "deletionTimestamp": int(time.time() * 1000)}}
        for path in sorted(before - {*live})
    ]
    if first == 0 and "metaData" not in others:
        others["metaData"] = _metadata(log.table, [add["add"]["path"] for add in adds])
    if first == 0 and "protocol" not in others:
        others["protocol"] = {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}
    return _lines([*others.values(), *adds, *removes])


def _written_between(folder: Path, entries: dict[int, Entry], number: int) -> list[str]:
    """Return data files that no entry names and that were written between the entries around a damaged one."""
    named = {
        str(each.get("path")) for entry in entries.values() for kind in ("add", "remove") for each in entry.named(kind)
    }
    times = [
        max((information.get("timestamp", 0) for information in entries[each].named("commitInfo")), default=0)
        for each in (number - 1, number + 1)
        if each in entries
    ]
    after, before = times if len(times) == 2 else (0, times[-1])
    files = [path for path in folder.glob("*.parquet") if DATA_FILE.fullmatch(path.name) and path.name not in named]
    return [path.name for path in files if after <= path.stat().st_mtime * 1000 <= before]


def _metadata(folder: Path, paths: Sequence[str]) -> dict[str, Any]:
    """Return the action that sets the columns, as the newest data file tells them. The table gets a new id."""
    if not paths:
        raise BrokenLogError("the first entry of the log is damaged, and no data file tells the columns")
    newest = max(paths, key=lambda path: (folder / path).stat().st_mtime)
    schema = pq.read_schema(folder / newest).remove_metadata()
    return {
        "metaData": {
            "id": str(uuid.uuid4()),
            "format": {"provider": "parquet", "options": {}},
            "schemaString": Schema.from_arrow(schema).to_json(),
            "partitionColumns": [],
            "createdTime": int(time.time() * 1000),
            "configuration": {},
        }
    }


def _add(folder: Path, path: str) -> dict[str, Any] | None:
    """Return the action that adds a file, made from the file itself; None if it cannot be read."""
    if (file := as_on_disk(folder, path)) is None:
        return None
    bounds = {"minValues": {"id": file.first}, "maxValues": {"id": file.last}}
    stats = json.dumps({"numRecords": file.rows, **bounds, "nullCount": {"id": 0}})
    about = {"path": path, "partitionValues": {}, "size": file.size, "dataChange": True, "stats": stats}
    return {"add": {**about, "modificationTime": int((folder / path).stat().st_mtime * 1000)}}


def _lines(actions: Sequence[dict[str, Any]]) -> str:
    """Return an entry of the log with these actions, one a line."""
    information = {"timestamp": int(time.time() * 1000), "operation": "REPAIR", "embedpipe.operation": "repair"}
    every = [{"commitInfo": information}, *actions]
    information[ACTIONS_KEY] = entry_checksum(Entry(_text(every).encode()))
    return _text(every)


def _text(actions: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(action) + "\n" for action in actions)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _drop_leftovers(log: LocalLog) -> list[str]:
    """Delete temporary files of commits that were killed."""
    old = time.time() - ABANDONED
    leftovers = [path for path in log.folder.glob("*.tmp") if path.stat().st_mtime < old]
    for path in leftovers:
        path.unlink()
    return [f"{len(leftovers)} temporary files of commits that were killed: deleted"] if leftovers else []


def _drop_checkpoints(log: LocalLog, aside: Path) -> list[str]:
    """Put damaged checkpoints aside, if the entries that they stand for are still there."""
    done = []
    good = set(_checkpoints(log))
    for path in log.folder.glob("*.checkpoint.parquet"):
        version = int(path.name.split(".")[0])
        if version not in good:
            start = max((other for other in good if other < version), default=-1) + 1
            if not all(log.entry(number).exists() for number in range(start, version + 1)):
                raise BrokenLogError(f"{path.name} is damaged, and the entries before it have expired")
            keep_aside(path, aside)
            done.append(f"{path.name} was damaged: the entries before it are read instead")
    hint = log.folder / "_last_checkpoint"
    if hint.exists() and log.checkpoint() not in good:
        hint.unlink()
        done.append("_last_checkpoint was damaged: deleted")
    if done:
        sync(log.folder)
    return done


def _checkpoints(log: LocalLog) -> list[int]:
    """Return the versions of the checkpoints that can be read and whose entries are as they were written."""
    good = []
    for path in log.folder.glob("*.checkpoint.parquet"):
        try:
            adds = pq.read_table(path, columns=["add"], partitioning=None).column("add").drop_null().to_pylist()
            stats = [parse_json(add["stats"]) for add in adds]
            files = [
                DataFile(add["path"], each["numRecords"], add["size"], each["minValues"]["id"], each["maxValues"]["id"])
                for add, each in zip(adds, stats, strict=True)
            ]
        except (OSError, ValueError, LookupError, TypeError, pa.ArrowException) as error:
            if is_shortage(error):
                raise
            continue
        if all(file.is_as_named for file in files):
            good.append(int(path.name.split(".")[0]))
    return good
