"""Reading one vector column out of a table's Parquet files into a single array, in parallel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.config import usable_cores
from embedpipe.errors import StoreError, UsageError
from embedpipe.store.data_files import DataFile
from embedpipe.store.keyed_table import KeyedTable
from embedpipe.store.pages import Chunk, UnusualLayoutError, find_chunk, read_chunk
from embedpipe.store.schema import is_ascending, matrix


def read_files(
    table: KeyedTable,
    column: str,
    dim: int,
    wanted: pa.Array | None = None,
    to: npt.NDArray[np.float32] | None = None,
) -> tuple[pa.Array, npt.NDArray[np.float32]]:
    """Read a vector column, all rows in id order or those asked for in the order asked for.

    Row groups are read by several threads straight into one array, each row to the place that its id has in the
    order; a row that nothing fills is an error, and so is a page whose checksum does not hold.

    Parameters
    ----------
    wanted : pyarrow.Array of str, optional
        The ids of the rows to read, each once.
    to : float32 array (n, dim), optional
        Where to read to, which may be some columns of a wider array; by default a new array.

    Returns
    -------
    ids : pyarrow.Array of str, length n
    X : float32 array (n, dim)

    Raises
    ------
    UsageError
        If an id is not there.
    StoreError
        If a file is damaged, a vector has another length than ``dim``, or an id is there twice.
    """
    files = sorted(table.files, key=lambda file: file.first)
    with ThreadPoolExecutor(usable_cores()) as pool:
        found = list(pool.map(lambda file: _look(table, file, column), files))
        ids = pa.chunked_array([one.ids for one in found], pa.string()).combine_chunks()
        wanted, place = _places(ids, wanted, table.path)
        X = np.empty((len(wanted), dim), np.float32) if to is None else to
        if X.shape != (len(wanted), dim):
            raise StoreError(
                f"{table.path!r} has {len(wanted)} rows where its log says {len(X)}: run `embedpipe verify`"
            )
        list(pool.map(lambda job: _read_group(table, job, column, dim, place, X), _jobs(files, found)))
    pa.default_memory_pool().release_unused()  # or Arrow keeps a fifth of what was read
    return wanted, X


def refuse_unknown(wanted: pa.Array, unknown: npt.NDArray[np.bool_], path: str) -> None:
    """Raise UsageError, naming one, if an id is marked as unknown."""
    if unknown.any():
        one = wanted[int(np.flatnonzero(unknown)[0])].as_py()
        raise UsageError(f"{int(unknown.sum())} of {len(wanted)} ids, such as {one!r}, are not in {path!r}")


class _Found(NamedTuple):
    """The ids of a file, the rows of its row groups, and where their vectors are."""

    ids: pa.Array
    rows: list[int]
    chunks: list[Chunk | None]


class _Job(NamedTuple):
    """A row group to be read, and which row of all the first of it is."""

    file: DataFile
    group: int
    rows: int
    chunk: Chunk | None
    start: int


def _look(table: KeyedTable, file: DataFile, column: str) -> _Found:
    with table.open_file(file) as parquet:
        groups = range(parquet.num_row_groups)
        rows = [parquet.metadata.row_group(group).num_rows for group in groups]
        chunks = [find_chunk(parquet, group, column) for group in groups]
        return _Found(parquet.read(columns=["id"], use_threads=False).column("id").combine_chunks(), rows, chunks)


def _jobs(files: Sequence[DataFile], found: Sequence[_Found]) -> Iterator[_Job]:
    start = 0
    for file, one in zip(files, found, strict=True):
        for group, (rows, chunk) in enumerate(zip(one.rows, one.chunks, strict=True)):
            yield _Job(file, group, rows, chunk, start)
            start += rows


def _places(ids: pa.Array, wanted: pa.Array | None, path: str) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """Return the ids in the order of the result, and for each stored row its place there, -1 for none."""
    if wanted is None:
        place = np.arange(len(ids))
        if not is_ascending(ids):  # files' ids overlap, or another tool wrote one
            order = np.asarray(pc.sort_indices(ids))
            ids = ids.take(pa.array(order))
            place[order] = np.arange(len(ids))
            if not is_ascending(ids):
                raise StoreError(f"{path!r} holds an id twice: run `embedpipe verify`")
        return ids, place
    place = np.asarray(pc.fill_null(pc.index_in(ids, value_set=wanted), -1), np.int64)
    times = np.bincount(place[place >= 0], minlength=len(wanted))
    if (times > 1).any():
        raise StoreError(f"{path!r} holds an id twice: run `embedpipe verify`")
    refuse_unknown(wanted, times < 1, path)
    return wanted, place


def _read_group(
    table: KeyedTable, job: _Job, column: str, dim: int, place: npt.NDArray[np.int64], X: npt.NDArray[np.float32]
) -> None:
    """Read one row group to the places that its rows have."""
    places = place[job.start : job.start + job.rows]
    kept = places >= 0
    if not kept.any():
        return
    first, last = int(places[0]), int(places[-1]) + 1
    whole_rows = X.flags.c_contiguous  # and not some columns of a wider array
    together = whole_rows and bool(kept.all()) and bool((np.diff(places) == 1).all())
    block = X[first:last] if together else np.empty((job.rows, dim), np.float32)
    if not _read_pages(table, job, dim, block):
        with table.open_file(job.file) as parquet:
            read = parquet.read_row_group(job.group, columns=[column], use_threads=False)
        block[:] = matrix(read.column(column), dim, column)
    if not together:
        X[places[kept]] = block if kept.all() else block[kept]


def _read_pages(table: KeyedTable, job: _Job, dim: int, block: npt.NDArray[np.float32]) -> bool:
    """Read a row group without Arrow; say whether that was possible."""
    if job.chunk is None:
        return False
    try:
        with table.open_bytes(job.file) as source:
            read_chunk(source, job.chunk, dim, block)
    except UnusualLayoutError:
        return False
    return True
