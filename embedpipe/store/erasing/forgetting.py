"""`forget`: erase items from a store, its old versions and the caches, and prove it by a search of every file."""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.atomic import whole_file
from embedpipe._utils.cache import CacheEntry, cache_entries, drop_entry, name_of
from embedpipe._utils.machine.regular_files import read_regular
from embedpipe._utils.messages.json_values import parse_json
from embedpipe.errors import BusyError, StoreError, UsageError
from embedpipe.store.data_files import index_folder, table_path
from embedpipe.store.delta_log import ACTIONS_KEY, Entry, entry_checksum, make_checkpoint
from embedpipe.store.erasing.traces import Traces
from embedpipe.store.failures import FailuresTable
from embedpipe.store.id_index import id_array
from embedpipe.store.keyed_table import KeyedTable
from embedpipe.store.maintenance import LAYERS, uncommitted_since


@dataclass(frozen=True)
class Forgotten:
    """What `forget` erased, and what still depends on the items.

    Attributes
    ----------
    rows, failures : int
        Rows of the store and of its table of failures.
    files : int
        Files of old versions that were deleted, and log entries that were written anew.
    cached : int
        Entries of the cache that were deleted, and the search index.
    searched : int
        Files of the store and the cache that were searched at the end, without a trace.
    heads : list of str
        Heads nearby that were fitted on the store and hold rows of it (kNN).
    fitted : list of str
        Other heads nearby that were fitted on the store.
    """

    rows: int = 0
    failures: int = 0
    files: int = 0
    cached: int = 0
    searched: int = 0
    heads: list[str] = field(default_factory=list)
    fitted: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return asdict(self)


def forget(store: Any, ids: Iterable[str]) -> Forgotten:
    """Erase items from a store, from its old versions, failures and memory maps, and from the cache.

    At the end, every file of the store and of the cache is searched for the ids, addresses and content hashes. Old
    versions that held an item can no longer be read. The disk may keep deleted files until it writes over them. The
    source, heads, and tables, pages and pictures that you wrote elsewhere are not changed: remove the items from the
    source, or the next `embed` adds them again.

    Parameters
    ----------
    store : str, path-like or FeatureStore
        A store on a local disk.
    ids : iterable of str

    Returns
    -------
    Forgotten
        Counts, and the heads nearby that were fitted on the store.

    Raises
    ------
    UsageError
        An id is in no version of the store, nor in its failures; or the store is not on a local disk.
    StoreError
        A trace is left; the message names the file.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import embedpipe
    >>> photos = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    >>> store = embedpipe.embed(photos, tempfile.mkdtemp(), backbone="torchvision/resnet18", weights="none")
    >>> embedpipe.forget(store, ["00000001"]).rows
    1
    >>> store.refresh().ids()
    ['00000000', '00000002']
    """
    path = table_path(getattr(store, "path", store))
    if "://" in path:
        raise UsageError(
            f"forget erases files of a store on a local disk, got {path!r}: an object storage may keep old versions; "
            "embed into a new store without the items, and delete this one"
        )
    wanted = [ids] if isinstance(ids, str) else list(dict.fromkeys(ids))
    if not wanted or not all(isinstance(id, str) and id for id in wanted):
        raise UsageError(f"ids must be strings that are not empty, got {wanted!r:.100}")
    keys = id_array(wanted)
    table, folder = KeyedTable(path), Path(path)
    failed_items = FailuresTable(path).open()
    tables = [each for each in (table, failed_items) if each is not None]
    traces = Traces([*wanted, *(word for each in tables for word in _words(each, keys))])
    _refuse_unknown(tables, keys, path)
    # First, as the content hashes, by which entries are found, are known as long as the rows are there.
    cached = _erase_cached(name_of(str(table.delta.metadata().id)), traces)
    if (saved := index_folder(path)) is not None and saved.is_dir():  # it holds the vectors in a few bits
        _erase_index(saved)
        cached += 1
    if (staged := folder / LAYERS).is_dir():  # it is embedded again
        shutil.rmtree(staged)
        cached += 1
    rows, failed = (each.delete(keys).removed if each is not None else 0 for each in (table, failed_items))
    try:
        files = sum(_erase(each, traces) for each in tables)
    except OSError as error:
        raise StoreError(
            f"traces of the items are still in {path!r}, as a file cannot be written ({error}): run it again"
        ) from error
    searched = 0
    for file in _files(folder, *(entry.path for entry in _with_items())):
        searched += 1
        if _holds(file, traces):
            raise StoreError(
                f"{str(file)!r} still holds {wanted[0]!r}{' or another of the ids' * (len(wanted) > 1)}, its content "
                "hash or its address: delete the file if it is not needed, and run forget again"
            )
    holding, fitted = _heads(folder, str(table.delta.metadata().id))
    return Forgotten(rows, failed, files, cached, searched, holding, fitted)


def _words(table: KeyedTable, keys: pa.Array) -> list[str]:
    """Return the content hashes and addresses of rows, unless another row has the same."""
    words: list[str] = []
    for name in ("content_hash", "uri"):
        if name not in table.schema.names:
            continue
        every = table.read(["id", name])
        theirs = pc.is_in(every.column("id"), value_set=keys)
        kept = pc.unique(every.column(name).filter(pc.invert(theirs)))
        own = pc.unique(every.column(name).filter(theirs)).drop_null()
        words += own.filter(pc.invert(pc.is_in(own, value_set=kept))).to_pylist()
    return words


def _refuse_unknown(tables: list[KeyedTable], keys: pa.Array, path: str) -> None:
    known = {id for each in tables for id in each.rows(keys, ["id"]).column("id").to_pylist()}
    unknown = [id for id in keys.to_pylist() if id not in known]
    if unknown and not any(_may_hold(file, Traces(unknown)) for file in _files(Path(path))):
        raise UsageError(f"no version of {path!r} holds the id {unknown[0]!r}: nothing was erased")


def _erase(table: KeyedTable, traces: Traces) -> int:
    """Delete files of old versions that hold a trace, and take traces out of the log. Return how many files changed."""
    folder, changed = Path(table.path), 0
    since = uncommitted_since(table).timestamp()
    log = folder / "_delta_log"
    checkpoints = [path for path in log.glob("*.checkpoint*.parquet") if traces.in_file(path)]
    if checkpoints:
        make_checkpoint(table.delta, table.log)
    entries = [Entry(path.read_bytes()) for path in log.glob("*.json")]
    named = {action["path"] for entry in entries for kind in ("add", "remove") for action in entry.named(kind)}
    table.refresh()  # what is named by now and not live was removed
    live = {file.path for file in table.files}
    for path in folder.glob("*.parquet"):
        if path.name not in live and _may_hold(path, traces):
            if path.name not in named and path.stat().st_mtime >= since:
                raise BusyError(
                    f"{str(path)!r} holds an item to forget, and another process may be about to commit it: wait for "
                    "that process, or an hour (a day after a run on a cluster was killed), and run forget again"
                )
            path.unlink()
            changed += 1
    for path in checkpoints:
        if traces.in_file(path):
            path.unlink()
            changed += 1
    for path in log.glob("*.json"):
        if traces.in_file(path):
            with whole_file(path) as part:
                part.write_text(_without_traces(path.read_bytes(), traces, live))
            changed += 1
    return changed


def _without_traces(data: bytes, traces: Traces, live: set[str]) -> str:
    """Return an entry of the log without statistics that name an item; its checksum is made anew."""
    entry = Entry(data)
    for kind in ("add", "remove"):
        for action in entry.named(kind):
            if action.get("path") not in live and traces.in_value(action):
                rows = parse_json(action.get("stats") or "{}").get("numRecords", 0)
                action["stats"] = json.dumps({"numRecords": rows})
    for info in entry.named("commitInfo"):
        if ACTIONS_KEY in info:
            info[ACTIONS_KEY] = entry_checksum(entry)
    return "".join(json.dumps(action, separators=(",", ":")) + "\n" for action in entry.actions)


def _erase_index(folder: Path) -> None:
    """Delete the folder of a search index. Of a folder that it links to, only the index's own files are deleted."""
    if not folder.is_symlink():
        shutil.rmtree(folder)
        return
    for pattern in ("manifest.json", "cells-*.faiss", "keys-*.arrow"):
        for file in folder.glob(pattern):
            file.unlink()
    folder.unlink()


def _erase_cached(store: str, traces: Traces) -> int:
    """Delete what is cached of the store, and every other entry with a trace. Return how many entries."""
    count = 0
    for entry in _with_items():
        if entry.path.name.startswith(store) or any(_holds(file, traces) for file in _files(entry.path)):
            drop_entry(entry.path)
            count += 1
    return count


def _with_items() -> list[CacheEntry]:
    """Return the entries of the cache that can hold items: exported networks hold none."""
    return [entry for entry in cache_entries() if entry.path.parent.name != "engines"]


def _files(*places: Path) -> Iterator[Path]:
    for place in places:
        if place.is_file():
            yield place
        for folder, _, names in os.walk(place):
            yield from (path for name in sorted(names) if (path := Path(folder, name)).is_file())


def _holds(file: Path, traces: Traces) -> bool:
    try:
        return traces.in_value(file.name) or traces.in_file(file)
    except FileNotFoundError:  # another process deleted it
        return False


def _may_hold(file: Path, traces: Traces) -> bool:
    """Return whether a file holds a trace, or cannot be decoded, such as what a killed process has left of one."""
    try:
        return _holds(file, traces)
    except StoreError:
        return True


def _heads(folder: Path, table_id: str) -> tuple[list[str], list[str]]:
    """Return the heads beside the store and in the working folder that were fitted on it: those with rows, others."""
    found: dict[Path, bool] = {}
    for place in {folder.resolve().parent, Path.cwd()}:
        for pattern in ("*/manifest.json", "*/*/manifest.json"):
            # `Path.glob` of Python 3.11 fails where another process deletes a folder of its own there.
            for name in glob.iglob(pattern, root_dir=place, include_hidden=True):  # noqa: PTH207
                manifest = place / name
                try:
                    about = parse_json(read_regular(manifest))
                    if about["store_id"] == table_id:
                        found[manifest.parent] = bool(about["neighbours"])
                except (OSError, ValueError, LookupError, TypeError):
                    continue
    paths = sorted(found)
    return [str(path) for path in paths if found[path]], [str(path) for path in paths if not found[path]]
