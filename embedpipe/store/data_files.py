"""The Parquet files of a table: their names and entries in the Delta log, and writing them in bounded sizes.

A file is named ``part-RANDOM-CONTENTS-ENTRY.parquet``: the checksum of its bytes, and that of the name so far and of
its rows, size, first and last id as they stand in the log. So damage of either is noticed without another file.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shlex
import time
import uuid
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake.transaction import AddAction, RemoveAction

from embedpipe._utils.atomic import check_writable, sync
from embedpipe._utils.checksums import HashedFile, checksum
from embedpipe._utils.folder_kinds import check_name
from embedpipe._utils.machine.permissions import closed
from embedpipe._utils.machine.regular_files import open_regular
from embedpipe.errors import StoreError, UsageError
from embedpipe.sources.access.outage import one_line, refusal
from embedpipe.sources.locations import printable, require_no_secret
from embedpipe.store.pages.writer import write_parquet
from embedpipe.store.schema import VECTOR, is_ascending, is_compressed, rounded

#: Bytes of vectors per file and per row group. A change rewrites whole files, so their size is bounded.
FILE_BYTES = 64 << 20
ROW_GROUP_BYTES = 8 << 20

#: Names of the data files: random, checksum of the contents, checksum of the entry in the log.
DATA_FILE = re.compile(r"part-[0-9a-f]{8}-([0-9a-f]{32})-([0-9a-f]{8})\.parquet")

#: What delta-rs says of a file that the user may not open; new entries of a log are written beside it first.
_DENIED = re.compile(r"(?:file|on)\s+(?P<path>/.+?)(?:#\d+)?\s+(?:\S+\s+)?Permission denied \(os error 13\)", re.DOTALL)

#: Estimated bytes per row of all columns except the vectors.
ROW_BYTES = 512


def check_new_store(path: str | Path) -> None:
    """Raise UsageError where a new store has no place, as there are other files, and WriteError if none can be made."""
    path = table_path(path)
    if "://" in path:
        return
    folder = check_name(path)
    if folder.is_file():
        raise UsageError(f"the feature store must be a folder, and {path!r} is a file: give a new or empty folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{path!r} holds other files and is not a feature store: give a new or empty folder")
    check_writable(folder)


def table_path(path: str | Path) -> str:
    """Return the path of a store as text without trailing slash. Raises UsageError if it is none."""
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else path
    if not isinstance(text, str) or not text.rstrip("/"):
        raise UsageError(f"the path of a feature store must be a folder or URL, got {path!r:.100}")
    if printable(text) != text:
        raise UsageError(f"the path of a feature store must be UTF-8, got {text!r}: give another folder")
    return require_no_secret(text.rstrip("/"), "the path of a feature store")


def can_hold_store(path: str | Path) -> bool:
    """Return whether a store may be at a path, which may be that of items instead."""
    text = os.fspath(path)
    return bool(text.rstrip("/")) and printable(text) == text


def index_folder(path: str) -> Path | None:
    """Return the folder of the saved search index of the store at a path; None for a URL, whose stores have none."""
    return None if "://" in path else Path(f"{path}.index")


def refuse_misread(path: str) -> str:
    """Raise UsageError for a path that delta-rs misreads: it decodes percent signs twice, and splits at backslashes.

    Raises StoreError as `refuse_pipes`.
    """
    if "://" not in path and "\\" in path and os.sep == "/":
        raise UsageError(f"the path of a store must not hold a backslash, got {path!r}: give another folder")
    if "://" not in path and re.search("%[0-9A-Fa-f]{2}", path):
        raise UsageError(
            f"the path of a store must not hold a percent sign and two hex digits, got {path!r}: rename the folder"
        )
    refuse_pipes(path)
    return path


def refuse_pipes(path: str) -> None:
    """Raise StoreError if the log of a local store has named pipes or devices, for which delta-rs would wait.

    Also if this user may not open it: delta-rs would take the store for missing or damaged.
    """
    try:
        with os.scandir(Path(path, "_delta_log")) as entries:
            for entry in entries:
                if not entry.is_file() and not entry.is_dir():
                    raise StoreError(f"{entry.path!r} in the log of {path!r} is not a file: copy the store again")
    except PermissionError as error:
        raise StoreError(f"cannot open {path!r}: {closed(error.filename)}") from error
    except OSError:
        return  # what is wrong with it is said by those who open it


def open_input(fs: pafs.FileSystem, path: str) -> pa.NativeFile:
    """Open a data file to read its bytes. Raises OSError, also for a local one that is no regular file.

    Raises StoreError for one that this user may not open: it is not damaged.
    """
    if isinstance(fs, pafs.LocalFileSystem):
        try:
            open_regular(path).close()
        except PermissionError as error:
            raise StoreError(f"cannot read a file of the store: {closed(path)}") from error
    return fs.open_input_file(path)


class DataFile(NamedTuple):
    """A Parquet file of the table: relative path, rows, bytes, first and last id."""

    path: str
    rows: int
    size: int
    first: str
    last: str

    @property
    def is_own(self) -> bool:
        """Whether `write_files` wrote it, and no other tool."""
        return DATA_FILE.fullmatch(self.path) is not None

    @property
    def is_as_named(self) -> bool:
        """Whether the entry in the log is as it was written, as far as the name tells."""
        match = DATA_FILE.fullmatch(self.path)
        return match is None or match[2] == _entry_checksum(
            self.path.rpartition("-")[0], self.rows, self.size, self.first, self.last
        )


def read_log(
    actions: pa.Table, path: str, where: Callable[[str], str], checked: Sequence[DataFile] = ()
) -> tuple[DataFile, ...]:
    """Return the files of a table version, by first id, from the flattened add actions of delta-rs.

    ``where`` returns the part of the log that names a file, for the message. ``checked`` are the files of an earlier
    version: a commit checks only what it has changed.

    Raises StoreError if an entry is damaged, names a file elsewhere, or lacks the statistics that lookups need.
    """
    if actions.num_rows == 0:
        return ()
    names = ["path", "num_records", "size_bytes", "min.id", "max.id"]
    missing = [name for name in names if name not in actions.column_names or actions[name].null_count]
    if missing:
        raise StoreError(
            f"files of {path!r} lack {missing} in the log: another tool wrote them. Embed into a new store"
        )
    columns = [actions.column(name).to_pylist() for name in names]
    rows = set(zip(*columns, strict=True))
    files = list(map(DataFile._make, sorted(rows.difference(checked))))
    for file in files:
        if not _is_below(file.path):
            raise StoreError(f"files of a store lie in its folder, and the log of {path!r} names {file.path!r:.200}")
        if not file.is_as_named or file.rows < 0 or file.first > file.last:
            raise damaged(path, f"{where(file.path)} of {path!r} is damaged where it names {file.path!r}")
    return tuple(sorted([*filter(rows.__contains__, checked), *files], key=attrgetter("first", "path")))


def write_files(rows: pa.Table, fs: pafs.FileSystem, base: str, *, data_change: bool = True) -> list[AddAction]:
    """Write rows into new files below ``base``, to be referenced by the next commit.

    Files on a local disk are synced. Vectors are rounded and compressed if their field is marked (`is_compressed`).
    Raises StoreError if writing fails.
    """
    vectors = [field.name for field in rows.schema if field.type == VECTOR]
    compressed = [field.name for field in rows.schema if is_compressed(field)]
    for name in compressed:
        index = rows.schema.get_field_index(name)
        rows = rows.set_column(index, rows.schema.field(name), rounded(rows.column(name)))
    row_bytes = ROW_BYTES
    if vectors and rows.num_rows:
        row_bytes += sum(len(rows.column(name)[0]) * 4 for name in vectors)
    per_file = max(1, FILE_BYTES // row_bytes)
    options = {
        "row_group_size": max(1, ROW_GROUP_BYTES // row_bytes),
        # Mantissas of unrounded floats do not compress; the other columns do.
        "compression": {field.name: "zstd" for field in rows.schema if field.type != VECTOR}
        | {f"{name}.list.element": "zstd" if name in compressed else "none" for name in vectors},
        "use_byte_stream_split": [f"{name}.list.element" for name in compressed],
        "use_dictionary": [field.name for field in rows.schema if field.type == pa.string()],
        "write_statistics": ["id"],
        "write_page_checksum": True,
        "plain": [name for name in vectors if name not in compressed],
    }
    actions: list[AddAction] = []
    for start in range(0, rows.num_rows, per_file):
        part = rows.slice(start, per_file)
        bounds = pc.min_max(part.column("id"))
        first, last = bounds["min"].as_py(), bounds["max"].as_py()
        try:
            name, size = _write_file(part, fs, base, options, first, last)
        except OSError as error:
            for action in actions:
                _delete(fs, f"{base}/{action.path}")
            raise StoreError(f"cannot write to {base!r}: {reason(error)}") from error
        stats = {
            "numRecords": part.num_rows,
            "minValues": {"id": first},
            "maxValues": {"id": last},
            "nullCount": {"id": 0},
        }
        actions.append(AddAction(name, size, {}, _now(), data_change, json.dumps(stats)))
    return actions


def _write_file(
    part: pa.Table, fs: pafs.FileSystem, base: str, options: dict[str, Any], first: str, last: str
) -> tuple[str, int]:
    """Write a file, synced if the disk is local. Return its name and size."""
    stem = f"part-{uuid.uuid4().hex[:8]}"

    def named(contents: str, size: int) -> str:
        return data_file_name(f"{stem}-{contents}", part.num_rows, size, first, last)

    if isinstance(fs, pafs.LocalFileSystem):
        # Its name is known when all is written. One that a killed process leaves is an orphan for `vacuum`.
        written = Path(base, f"{stem}-{'0' * 32}-{'0' * 8}.parquet")
        try:
            with HashedFile(written) as file:
                write_parquet(part, file, **options)
            name = named(file.checksum, file.size)
            target = written.rename(Path(base, name))
            sync(target)
        except BaseException:
            _delete(fs, str(written))
            raise
        return name, file.size
    sink = pa.BufferOutputStream()
    write_parquet(part, sink, **options)
    data = sink.getvalue()
    name = named(checksum(memoryview(data)), data.size)
    try:
        with fs.open_output_stream(f"{base}/{name}") as stream:
            stream.write(data)
    except OSError:
        _delete(fs, f"{base}/{name}")
        raise
    return name, data.size


def _delete(fs: pafs.FileSystem, path: str) -> None:
    with contextlib.suppress(OSError):
        fs.delete_file(path)


def data_file_name(stem: str, rows: int, size: int, first: str, last: str) -> str:
    """Return the name of a data file, which ends in the checksum of its entry in the log."""
    return f"{stem}-{_entry_checksum(stem, rows, size, first, last)}.parquet"


def read_ids(parquet: pq.ParquetFile) -> pa.Array:
    """Return the ids of a data file; delta-rs writes them as string views."""
    return parquet.read(columns=["id"], use_threads=False).column("id").cast(pa.string()).combine_chunks()


def removal(file: DataFile, *, data_change: bool = True) -> RemoveAction:
    """Return the action that removes a file from the table. Its bytes stay until vacuum."""
    return RemoveAction(path=file.path, data_change=data_change, deletion_timestamp=_now(), size=file.size)


def damaged(path: str, what: str) -> StoreError:
    """Return the error that says what is damaged in the table at ``path``, and what to do."""
    return StoreError(f"{what}: run `embedpipe repair {shlex.quote(path.removesuffix('/_failures'))}`")


def refuse_repeats(ids: pa.Array | pa.ChunkedArray, path: str) -> None:
    """Raise StoreError unless sorted ids are unique."""
    if not is_ascending(ids):
        raise damaged(path, f"ids of {path!r} must be unique, and one occurs twice")


def is_shortage(error: BaseException) -> bool:
    """Return whether an error says that there is no memory, or no room for one more open file: nothing is damaged."""
    codes = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in codes)


def reason(error: Exception) -> str:
    """Return the message of an error of delta-rs in one line, without colours, numbered causes and call stacks.

    If the user may not open a file or folder, or the disk is full, it says what to do.
    """
    if denied := _DENIED.search(str(error)):
        return closed(denied["path"])
    if isinstance(error, PermissionError) and error.filename:
        return closed(error.filename)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{error}. Make room, and run this again"
    return refusal(str(error)) or one_line(str(error).split("\n   0: ")[0])[:500]


def _is_below(path: str) -> bool:
    """Return whether a relative path stays in its folder, and is no URL."""
    return not re.search(r"[\\:]", path) and not {"", ".", ".."} & {*path.split("/")}


def _entry_checksum(stem: str, rows: int, size: int, first: str, last: str) -> str:
    return checksum(json.dumps([stem, rows, size, first, last]).encode())[:8]


def _now() -> int:
    return int(time.time() * 1000)
