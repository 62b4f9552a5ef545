"""Reading one vector column of a whole store into a single array, in parallel."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.errors import StoreError
from embedpipe.store.data_files import DataFile
from embedpipe.store.keyed_table import KeyedTable
from embedpipe.store.schema import matrix


def read_vectors(
    table: KeyedTable, column: str, dim: int, wanted: pa.Array | None = None
) -> tuple[pa.Array, npt.NDArray[np.float32]]:
    """Read a vector column, all rows in id order or those asked for in the order asked for.

    Row groups are read by several threads straight into one preallocated array, each row to the place that
    its id has in the order; a row that nothing filled is an error.

    Parameters
    ----------
    wanted : pyarrow.Array of str, optional
        The ids of the rows to read.

    Returns
    -------
    ids : pyarrow.Array of str, length n
    X : float32 array (n, dim)

    Raises
    ------
    StoreError
        If a file is damaged, a vector has another length than ``dim``, or an id is there twice.
    """
    ids_by_file = [table.read_file(file, ["id"]).column("id").combine_chunks() for file in table.files]
    ids = pa.chunked_array(ids_by_file, pa.string()).combine_chunks()
    if len(pc.unique(ids)) < len(ids):
        raise StoreError(f"{table.path!r} holds an id twice: run `embedpipe verify`")
    wanted = ids.take(pc.sort_indices(ids)) if wanted is None else wanted
    place = np.asarray(pc.fill_null(pc.index_in(ids, value_set=wanted), -1))
    kept = place >= 0

    X = np.empty((len(wanted), dim), np.float32)
    filled = np.zeros(len(wanted), bool)
    starts = np.cumsum([0, *(len(part) for part in ids_by_file)])

    def read_group(job: tuple[DataFile, int, int, int]) -> None:
        file, group, start, stop = job
        if not kept[start:stop].any():
            return
        with table.open_file(file) as parquet:
            block = matrix(parquet.read_row_group(group, columns=[column]).column(column), dim, column)
        rows = kept[start:stop]
        X[place[start:stop][rows]] = block if rows.all() else block[rows]
        filled[place[start:stop][rows]] = True

    jobs: list[tuple[DataFile, int, int, int]] = []
    for file, start in zip(table.files, starts, strict=False):
        with table.open_file(file) as parquet:
            for group in range(parquet.num_row_groups):
                count = parquet.metadata.row_group(group).num_rows
                jobs.append((file, group, int(start), int(start) + count))
                start += count
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(read_group, jobs))
    pa.default_memory_pool().release_unused()  # or Arrow keeps a fifth of what was read
    if not filled.all():
        raise StoreError(f"{int((~filled).sum())} rows of {table.path!r} have no vector: run `embedpipe verify`")
    return wanted, X


def label_array(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Turn a label column without nulls into the NumPy array that scikit-learn expects."""
    values = column.combine_chunks()
    if pa.types.is_string(values.type):
        return np.asarray(values.to_pylist(), dtype=str if len(values) else object)
    return np.asarray(values.to_numpy(zero_copy_only=False))
