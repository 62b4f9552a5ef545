"""The vectors of a whole store, or of some of its rows, in one array: from its memory map if there is one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe.store.keyed_table import KeyedTable
from embedpipe.store.reading import read_files, refuse_unknown
from embedpipe.store.vector_map import find_map


def read_vectors(
    table: KeyedTable, column: str, dim: int, wanted: pa.Array | None = None
) -> tuple[pa.Array, npt.NDArray[np.float32]]:
    """Read a vector column, all rows in id order or those asked for in the order asked for.

    They come from the memory map of this version (`FeatureStore.mapped`) where there is one, else from the files,
    which gives the same.

    Parameters
    ----------
    wanted : pyarrow.Array of str, optional
        The ids of the rows to read, each once.

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
    found = find_map(table, column, dim)
    if found is None:
        return read_files(table, column, dim, wanted)
    if wanted is None:
        return found.ids, found.copy()
    rows = found.rows(wanted)
    refuse_unknown(wanted, rows < 0, table.path)
    return wanted, found.vectors[rows]


def label_array(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Turn a label column without nulls into the NumPy array that scikit-learn expects."""
    values = column.combine_chunks()
    if pa.types.is_string(values.type):
        return np.asarray(values.to_pylist(), dtype=str if len(values) else object)
    return np.asarray(values.to_numpy(zero_copy_only=False))
