"""Vectors of all or some rows of a store in one array, from the memory map if there is one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.backbones.spec import LayerSpec
from embedpipe.errors import UsageError
from embedpipe.store.keyed_table import KeyedTable
from embedpipe.store.mapping.mapped_vectors import DamagedMapError, MappedVectors
from embedpipe.store.mapping.vector_map import VectorMap, build_map, find_map, warn_damaged
from embedpipe.store.reading import read_files, refuse_unknown
from embedpipe.store.schema import KEY_FIELDS

if TYPE_CHECKING:
    import pyarrow.dataset as ds

#: Rows copied at a time from a map into some columns of a wider array.
SLAB = 4096
#: Vectors of more bytes are used in a memory map, where all are used.
MAPPED_BYTES = 64 << 20


def first_rows(table: KeyedTable, n: int) -> pa.Table:
    """Read the first rows in id order, from the files that hold them: what people read, then vectors, then the rest.

    Raises UsageError if ``n`` is negative.
    """
    if n < 0:
        raise UsageError(f"n must be >= 0, got {n}")
    rows = table.rows(table.read(["id"]).column("id").slice(0, n).combine_chunks())
    own = [field.name for field in KEY_FIELDS[1:]]
    return rows.select(sorted(rows.column_names, key=lambda name: 2 if name in own else name.startswith("embedding")))


def as_dataset(table: KeyedTable) -> ds.Dataset:
    """Return the files of a table as a dataset of pyarrow.

    That of deltalake takes a column without statistics in the log, which is every column but the id, for one that
    holds nothing: a filter on it finds no row. The statistics of the files themselves are used.
    """
    given = table.delta.to_pyarrow_dataset()
    return type(given).from_paths(given.files, given.schema, given.format, given.filesystem)


def count_values(table: KeyedTable, column: str) -> dict[str, int]:
    """Return the number of rows per value of a column, the most frequent first. Null counts as "(none)"."""
    counts: Counter[str] = Counter()
    for pair in pc.value_counts(table.read([column]).column(column)).to_pylist():
        counts["(none)" if pair["values"] is None else str(pair["values"])] += pair["counts"]
    return dict(counts.most_common())


def read_vectors(
    table: KeyedTable, column: str, dim: int, wanted: pa.Array | None = None
) -> tuple[pa.Array, npt.NDArray[np.float32]]:
    """Read a vector column: all rows in id order, or the rows of ``wanted`` in that order.

    The vectors come from the memory map of this version (`FeatureStore.mapped`) if there is one, else from the
    files. Both give the same values.

    Parameters
    ----------
    table, column, dim, wanted
        As `read_files`.

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
    vector_map = find_map(table, column, dim)
    if vector_map is None:
        return read_files(table, column, dim, wanted)
    try:
        if wanted is None:
            return vector_map.ids, vector_map.vectors.copy()
        rows = vector_map.rows(wanted)
        refuse_unknown(wanted, rows < 0, table.path)
        return wanted, vector_map.vectors[rows]
    except DamagedMapError as error:
        warn_damaged(error.what)
        return read_files(table, column, dim, wanted)


def read_layers(
    table: KeyedTable, layers: Sequence[LayerSpec], wanted: pa.Array | None = None
) -> tuple[pa.Array, npt.NDArray[np.float32]]:
    """Read the vectors of several layers, joined end to end in one array.

    Parameters
    ----------
    table : KeyedTable
    layers : sequence of LayerSpec
        In the order in which they are joined.
    wanted : pyarrow.Array of str, optional
        Ids of the rows to read, without repeats. All rows in id order by default.

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
        vector_map = find_map(table, layer.column, layer.dim)
        if vector_map is None:
            read_files(table, layer.column, layer.dim, wanted, part)
            continue
        rows = vector_map.rows(wanted)
        refuse_unknown(wanted, rows < 0, table.path)
        try:
            for first in range(0, len(rows), SLAB):
                part[first : first + SLAB] = vector_map.vectors[rows[first : first + SLAB]]
        except DamagedMapError as error:
            warn_damaged(error.what)
            read_files(table, layer.column, layer.dim, wanted, part)
    return wanted, X


def layer_maps(table: KeyedTable, layers: Sequence[LayerSpec]) -> list[VectorMap]:
    """Return the memory maps of several layers; those that are missing are made. Raises StoreError."""
    return [find_map(table, each.column, each.dim) or build_map(table, each.column, each.dim) for each in layers]


def map_layers(
    table: KeyedTable, layers: Sequence[LayerSpec], wanted: pa.Array
) -> tuple[list[MappedVectors], npt.NDArray[np.int64]]:
    """Return the vectors of `layer_maps`, and the row in them of each id.

    Raises
    ------
    UsageError
        An id is not in the table.
    StoreError
        A file is damaged, or the disk of the cache folder is full.
    """
    maps = layer_maps(table, layers)
    rows = maps[0].rows(wanted)
    refuse_unknown(wanted, rows < 0, table.path)
    return [each.vectors for each in maps], rows


def has_label(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.bool_]:
    """Return which rows have a label: it is neither null nor NaN nor infinite."""
    known = pc.fill_null(pc.is_finite(column), False) if pa.types.is_floating(column.type) else pc.is_valid(column)
    return np.asarray(known, bool)


def label_array(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return a label column without nulls as the NumPy array that scikit-learn expects."""
    values = column.combine_chunks()
    if pa.types.is_string(values.type):
        return np.asarray(values.to_pylist(), dtype=str if len(values) else object)
    return np.asarray(values.to_numpy(zero_copy_only=False))
