"""The memory map of a store: its vectors in id order as one file in the cache folder.

A map belongs to one set of data files, which never change. Another version of the store has another map, so a map is
never stale. It is a folder with ``vectors.npy``, ``ids.arrow``, and ``about.json`` with sizes and checksums. Ids are
checked when the map is opened, and blocks of vectors when they are first read.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import json
import os
import shutil
import time
import uuid
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.atomic import sync
from embedpipe._utils.cache import drop_entry, find_cache, keep_limit, make_cache, mark_used, name_of
from embedpipe._utils.checksums import BLOCK, block_checksums, checksum, file_checksum, read_json, with_checksum
from embedpipe._utils.config import cache_folder
from embedpipe.errors import StoreError
from embedpipe.store.keyed_table import KeyedTable
from embedpipe.store.mapping.mapped_vectors import DamagedMapError, MappedVectors
from embedpipe.store.reading import read_files

#: The part of the cache folder that holds the maps.
PART = "vectors"

FloatArray = npt.NDArray[np.float32]

#: One of so many ids is kept in memory to locate the others.
STRIDE = 64

#: Seconds after which an unfinished map counts as abandoned.
ABANDONED_SECONDS = 86_400.0


class VectorMap:
    """The vectors of one column of a store, in id order.

    Attributes
    ----------
    ids : pyarrow.Array of str, length n
    vectors : MappedVectors (n, dim)

    Raises
    ------
    ValueError
        A file is damaged; other errors if one cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        about = read_json(folder / "about.json")
        rows, dim = about["rows"], about["dim"]
        path = folder / "vectors.npy"
        octets = np.memmap(path, np.uint8, "r").view(np.ndarray)
        header = len(octets) - 4 * rows * dim
        if header <= 0 or checksum(octets[:header]) != about["header"]:
            raise ValueError(f"the size or the header of {path.name} has changed")
        if file_checksum(folder / "ids.arrow") != about["ids"]:
            raise ValueError("ids.arrow has changed")
        with pa.memory_map(str(folder / "ids.arrow")) as source:
            self.ids: pa.Array = pa.ipc.open_file(source).read_all().column("id").combine_chunks()
        blocks = -(-4 * rows * dim // BLOCK)
        if len(self.ids) != rows or len(about["blocks"]) != blocks:
            raise ValueError("about.json has changed")
        # A plain array, as the subclass np.memmap slows down small operations.
        vectors = octets[header:].view(np.float32).reshape(rows, dim)
        self.vectors = MappedVectors(vectors, about["blocks"], path, lambda: drop_map(folder))

    def rows(self, ids: pa.Array) -> npt.NDArray[np.int64]:
        """Return the rows of ids without repeats, int64 (n,), -1 for unknown ids."""
        near = np.arange(len(self.ids))
        if len(ids) * STRIDE < len(self.ids):
            # Ids are sorted, so the candidates lie in a few pages of the file.
            before = [bisect.bisect_right(self._sparse, id) - 1 for id in ids.drop_null().to_pylist()]
            first = np.unique(np.array(before, np.int64))
            near = (first[first >= 0, None] * STRIDE + np.arange(STRIDE)).reshape(-1)
            near = near[near < len(self.ids)]
        # Hashing the few ids is cheaper than hashing the many stored ones.
        place = np.asarray(pc.fill_null(pc.index_in(self.ids.take(pa.array(near)), value_set=ids), -1))
        rows = np.full(len(ids), -1)
        rows[place[place >= 0]] = near[place >= 0]
        return rows

    @functools.cached_property
    def _sparse(self) -> list[str]:
        every = self.ids.take(pa.array(np.arange(0, len(self.ids), STRIDE)))
        return list(every.to_pylist())


def find_map(table: KeyedTable, column: str, dim: int) -> VectorMap | None:
    """Return the map of the current version of the table, None if it is missing. A damaged one is deleted, and said."""
    try:
        return open_map(table, column, dim)
    except DamagedMapError as error:
        warn_damaged(error.what)
        return None


def open_map(table: KeyedTable, column: str, dim: int) -> VectorMap | None:
    """Return the map of the current version of the table, None if it is missing. Raises DamagedMapError."""
    if (maps := find_cache(PART)) is None:
        return None
    folder = maps / _name(table, column, dim)
    try:
        if not folder.is_dir():
            return None
        mark_used(folder.parent)
        return _open(folder)
    except FileNotFoundError:  # another process deletes it
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, pa.ArrowException) as error:
        drop_map(folder)
        raise DamagedMapError(folder, str(error)) from error


def warn_damaged(what: str) -> None:
    """Warn that a map was damaged, and that vectors come from the files of the store instead."""
    warnings.warn(f"{what}. The vectors are read from the store", stacklevel=4)


def drop_map(folder: Path) -> None:
    """Delete a map. Processes that have it open keep it."""
    _open.cache_clear()
    drop_entry(folder)


def build_map(table: KeyedTable, column: str, dim: int) -> VectorMap:
    """Write the map of the current version of the table, and drop the maps of other versions.

    Vectors are read directly into the mapped file, so the operating system can reclaim the memory. Raises StoreError
    if the store is damaged or the disk is full.
    """
    folder = cache_folder() / PART / _name(table, column, dim)
    unfinished = folder.with_name(f"unfinished-{uuid.uuid4().hex}")
    size = 4 * len(table) * dim
    try:
        make_cache(PART)
        unfinished.mkdir(parents=True)
        try:
            _write(unfinished, table, column, dim)
            drop_map(folder)  # an earlier one that is incomplete
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
            _clean(folder)
        opened = _open(folder)
        keep_limit()
        return opened
    except (OSError, ValueError) as error:
        if (finished := find_map(table, column, dim)) is not None:  # by another process
            return finished
        raise StoreError(
            f"cannot write a memory map of {table.path!r}, {size:,} bytes, to {str(folder.parent)!r}: {error}. "
            "Read them with to_numpy(), or set the environment variable EMBEDPIPE_CACHE to a folder with more room"
        ) from error


@functools.lru_cache(maxsize=2)
def _open(folder: Path) -> VectorMap:
    """Keep two maps open, as the first lookup in a map takes longer."""
    return VectorMap(folder)


def _name(table: KeyedTable, column: str, dim: int) -> str:
    """Return the folder of a map below that of all maps."""
    # A copied store has the same id, and whoever made it chose its file names: its place decides as well.
    place = os.path.realpath(table.path) if table.log else table.path
    files = hashlib.sha256("\n".join([place, *sorted(file.path for file in table.files)]).encode()).hexdigest()
    name = f"{hashlib.sha256(column.encode()).hexdigest()[:16]}-{dim}-{table.version}-{files[:32]}"
    return f"{name_of(str(table.delta.metadata().id))}/{name}"


def _write(folder: Path, table: KeyedTable, column: str, dim: int) -> None:
    vectors, ids = folder / "vectors.npy", folder / "ids.arrow"
    mapped = np.lib.format.open_memmap(vectors, "w+", np.float32, (len(table), dim))
    _reserve(vectors)
    try:
        names, X = read_files(table, column, dim, to=mapped)
        blocks = block_checksums(X)
    finally:
        mapped.flush()
    with pa.OSFile(str(ids), "wb") as sink, pa.ipc.new_file(sink, pa.schema([("id", pa.string())])) as writer:
        writer.write_table(pa.table({"id": names}))
    with vectors.open("rb") as file:
        header = checksum(file.read(vectors.stat().st_size - X.nbytes))
    about: dict[str, Any] = {
        "store": table.path,
        "table": str(table.delta.metadata().id),
        "version": table.version,
        "column": column,
        "rows": len(names),
        "dim": dim,
        "header": header,
        "ids": file_checksum(ids),
        "blocks": blocks,
    }
    (folder / "about.json").write_text(json.dumps(with_checksum(about)))
    for path in (*folder.iterdir(), folder):
        sync(path)


def _reserve(path: Path) -> None:
    """Allocate the disk space of a sparse file. Writing to a map on a full disk would kill the process."""
    size = path.stat().st_size
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    elif shutil.disk_usage(path.parent).free < size:
        raise OSError("not enough disk space")


def _clean(folder: Path) -> None:
    """Drop the maps of other versions and of killed processes. Processes that have one open keep it."""
    column = folder.name.partition("-")[0]
    for other in folder.parent.iterdir():
        old = other.name.startswith(column) and other != folder and folder.is_dir()
        if old or (other.name.startswith("unfinished-") and _is_abandoned(other)):
            shutil.rmtree(other, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    try:
        return folder.stat().st_mtime < time.time() - ABANDONED_SECONDS
    except OSError:  # another process deleted it
        return False
