"""The vectors of a whole store, or of some of its rows, in one array: from its memory map if there is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe.backbones.spec import LayerSpec
from embedpipe.store.keyed_table import KeyedTable
from embedpipe.store.reading import read_files, refuse_unknown
from embedpipe.store.vector_map import find_map

#: Rows that are copied at a time out of a map into a part of a wider array.
SLAB = 4096


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


def read_layers(
    table: KeyedTable, layers: Sequence[LayerSpec], wanted: pa.Array | None = None
) -> tuple[pa.Array, npt.NDArray[np.float32]]:
    """Read the vectors of several layers, joined end to end, each straight to its place in one array.

    Parameters
    ----------
    layers : sequence of LayerSpec
        In the order in which they are joined.
    wanted : pyarrow.Array of str, optional
        The ids of the rows to read, each once; all rows in id order where None.

    Returns
    -------
    ids : pyarrow.Array of str, length n
    X : float32 array (n, sum of the layers' dims)

    Raises
    ------
    UsageError, StoreError
        As `read_vectors`.
    """
    if len(layers) == 1:
        return read_vectors(table, layers[0].column, layers[0].dim, wanted)
    if wanted is None:
        wanted = table.read(["id"]).column("id").combine_chunks()
    X = np.empty((len(wanted), sum(layer.dim for layer in layers)), np.float32)
    start = 0
    for layer in layers:
        part = X[:, start : start + layer.dim]
        start += layer.dim
        found = find_map(table, layer.column, layer.dim)
        if found is None:
            read_files(table, layer.column, layer.dim, wanted, part)
            continue
        rows = found.rows(wanted)
        refuse_unknown(wanted, rows < 0, table.path)
        for first in range(0, len(rows), SLAB):
            part[first : first + SLAB] = found.vectors[rows[first : first + SLAB]]
    return wanted, X


def label_array(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Turn a label column without nulls into the NumPy array that scikit-learn expects."""
    values = column.combine_chunks()
    if pa.types.is_string(values.type):
        return np.asarray(values.to_pylist(), dtype=str if len(values) else object)
    return np.asarray(values.to_numpy(zero_copy_only=False))
