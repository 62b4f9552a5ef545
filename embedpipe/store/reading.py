"""Parallel reads of one vector column from the Parquet files of a table into one array."""

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
from embedpipe.store.data_files import DataFile, damaged, read_ids, refuse_repeats
from embedpipe.store.keyed_table import KeyedTable
from embedpipe.store.pages.reader import Chunk, UnusualLayoutError, find_chunks, read_chunk
from embedpipe.store.schema import is_ascending, matrix


def read_files(
    table: KeyedTable,
    column: str,
    dim: int,
    wanted: pa.Array | None = None,
    to: npt.NDArray[np.float32] | None = None,
) -> tuple[pa.Array, npt.NDArray[np.float32]]:
    """Read a vector column: all rows in id order, or the rows of ``wanted`` in that order.

    Several threads read row groups directly into one array. A row without a vector or a page with a wrong checksum
    is an error.

    Parameters
    ----------
    table : KeyedTable
    column : str
        Of vectors.
    dim : int
        The length of each.
    wanted : pyarrow.Array of str, optional
        Ids of the rows to read, without repeats.
    to : float32 array (n, dim), optional
        The array to fill, possibly some columns of a wider array. A new array by default.

    Returns
    -------
    ids : pyarrow.Array of str, length n
    X : float32 array (n, dim)

    Raises
    ------
    UsageError
        An id is not in the table.
    StoreError
        A file is damaged, a vector is not ``dim`` long, or an id occurs twice.
    """
    files = table.files
    with ThreadPoolExecutor(usable_cores()) as pool:
        footers = list(pool.map(lambda file: _read_footer(table, file, column), files))
        ids = pa.chunked_array([footer.ids for footer in footers], pa.string()).combine_chunks()
        wanted, place = _places(ids, wanted, table.path)
        X = np.empty((len(wanted), dim), np.float32) if to is None else to
        if X.shape != (len(wanted), dim):
            raise StoreError(
                f"{table.path!r} has {len(wanted)} rows where its log says {len(X)}: run `embedpipe verify`"
            )
        list(pool.map(lambda job: _read_group(table, job, column, dim, place, X), _jobs(files, footers)))
    pa.default_memory_pool().release_unused()  # otherwise Arrow keeps a fifth of what was read
    return wanted, X


def refuse_unknown(wanted: pa.Array, unknown: npt.NDArray[np.bool_], path: str) -> None:
    """Raise UsageError, naming one id, if any is marked as unknown."""
    if unknown.any():
        example = wanted[int(np.flatnonzero(unknown)[0])].as_py()
        raise UsageError(f"{int(unknown.sum())} of {len(wanted)} ids, such as {example!r}, are not in {path!r}")


class _Footer(NamedTuple):
    """The ids of a file, and the rows and chunks of its row groups."""

    ids: pa.Array
    rows: list[int]
    chunks: list[Chunk | None]


class _Job(NamedTuple):
    """A row group to read, and the position of its first row among all rows."""

    file: DataFile
    group: int
    rows: int
    chunk: Chunk | None
    start: int


def _read_footer(table: KeyedTable, file: DataFile, column: str) -> _Footer:
    with table.open_file(file) as parquet:
        rows, chunks = find_chunks(parquet, file.size, column)
        if len(ids := read_ids(parquet)) != sum(rows):
            raise OSError(f"{len(ids):,} ids in {sum(rows):,} rows")
        return _Footer(ids, rows, chunks)


def _jobs(files: Sequence[DataFile], footers: Sequence[_Footer]) -> Iterator[_Job]:
    start = 0
    for file, footer in zip(files, footers, strict=True):
        for group, (rows, chunk) in enumerate(zip(footer.rows, footer.chunks, strict=True)):
            yield _Job(file, group, rows, chunk, start)
            start += rows


def _places(ids: pa.Array, wanted: pa.Array | None, path: str) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """Return the ids in the order of the result, and the position of each stored row in it, -1 for none."""
    if wanted is None:
        place = np.arange(len(ids))
        if not is_ascending(ids):  # id ranges of files overlap, or another tool wrote a file
            order = np.asarray(pc.sort_indices(ids))
            ids = ids.take(pa.array(order))
            place[order] = np.arange(len(ids))
            refuse_repeats(ids, path)
        return ids, place
    place = np.asarray(pc.fill_null(pc.index_in(ids, value_set=wanted), -1), np.int64)
    times = np.bincount(place[place >= 0], minlength=len(wanted))
    if (times > 1).any():
        raise damaged(path, f"ids of {path!r} must be unique, and one occurs twice")
    refuse_unknown(wanted, times < 1, path)
    return wanted, place


def _read_group(
    table: KeyedTable, job: _Job, column: str, dim: int, place: npt.NDArray[np.int64], X: npt.NDArray[np.float32]
) -> None:
    """Read one row group into the positions of its rows."""
    places = place[job.start : job.start + job.rows]
    kept = places >= 0
    if not kept.any():
        return
    first, last = int(places[0]), int(places[-1]) + 1
    whole_rows = X.flags.c_contiguous  # False for some columns of a wider array
    contiguous = whole_rows and bool(kept.all()) and bool((np.diff(places) == 1).all())
    block = X[first:last] if contiguous else np.empty((job.rows, dim), np.float32)
    if not _read_pages(table, job, dim, block):
        with table.open_file(job.file) as parquet:
            rows = parquet.read_row_group(job.group, columns=[column], use_threads=False)
            if len(rows) != job.rows:
                raise OSError("a row group holds other rows than the footer says")
        block[:] = matrix(rows.column(column), dim, column)
    if not contiguous:
        X[places[kept]] = block if kept.all() else block[kept]


def _read_pages(table: KeyedTable, job: _Job, dim: int, block: npt.NDArray[np.float32]) -> bool:
    """Read a row group without Arrow. Return False if only Arrow can read it."""
    if job.chunk is None:
        return False
    try:
        with table.open_bytes(job.file) as source:
            read_chunk(source, job.chunk, dim, block)
    except UnusualLayoutError:
        return False
    return True
