"""Vectors in an array, a table or a file, read in blocks of rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from embedpipe._utils.messages.json_values import parse_json
from embedpipe.errors import SourceError
from embedpipe.sources.columns.frames import arrow_table
from embedpipe.sources.columns.numbers import read_numbers
from embedpipe.sources.file_types import suffix_of
from embedpipe.sources.locations import absolute, local_path, open_file, require_no_secret
from embedpipe.sources.tables.table_files import empty_to_null, refuse_doubled_names
from embedpipe.sources.vectors.npy_files import read_npy
from embedpipe.sources.vectors.vector_columns import find_vector_columns, is_vector

SUFFIXES = (".npy", ".parquet", ".csv", ".tsv")

#: Bytes of vectors in a block, as float32.
BLOCK_BYTES = 48 << 20

#: Bytes of a Parquet column that are read at a time.
BUFFER_BYTES = 1 << 20

#: Bytes of a CSV file that are parsed at a time.
CSV_BYTES = 8 << 20

Block = npt.NDArray[np.float32]


@dataclass(frozen=True)
class VectorSource:
    """Vectors in a fixed order.

    Parameters
    ----------
    name : str
        Of the file or object, for messages.
    count, dim : int
        Number of vectors and of values of each.
    dtype : str
        Type of the values, such as ``float64``.
    columns : dict of str to pyarrow.ChunkedArray
        The other columns of a table; none of an array.
    raw_blocks : callable
        Returns an iterator of blocks of rows in order, each (n, dim) in the type of the source.
    notes : tuple of str
        How a table was read, for the user.
    """

    name: str
    count: int
    dim: int
    dtype: str
    columns: Mapping[str, pa.ChunkedArray]
    raw_blocks: Callable[[], Iterator[npt.NDArray[Any]]]
    notes: tuple[str, ...] = ()

    def blocks(self) -> Iterator[tuple[int, Block]]:
        """Yield the first row of each block, and its vectors as float32 (n, dim).

        Raises SourceError, naming the first row, for vectors of another length, and for values that are missing, NaN,
        infinite, or too large for float32.
        """
        start = 0
        for raw in _grouped(self._read(), _rows_of(self.dim)):
            with np.errstate(over="ignore"):
                block = np.ascontiguousarray(raw, np.float32)
            # One number tells in a third of the time whether all are finite; it is too large for some that are.
            if not np.isfinite(np.vdot(block, block)) and not (finite := np.isfinite(block).all(axis=1)).all():
                row = int(np.argmin(finite))
                value = raw[row][~np.isfinite(block[row])][0]
                raise SourceError(
                    f"vectors must hold finite float32 values, and row {start + row + 1} of {self.name} holds "
                    f"{value!s}: leave the row out, or make its vector again"
                )
            yield start, block
            start += len(block)

    def _read(self) -> Iterator[npt.NDArray[Any]]:
        try:
            yield from self.raw_blocks()
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"cannot read the vectors of {self.name}: {error}") from error


def open_vectors(source: Any, vector: str | None = None, id: str | None = None) -> VectorSource:
    """Open an array, a table or a file of vectors. Only the columns beside the vectors are read.

    Parameters
    ----------
    source : array (n, dim), table, str or path-like
        A NumPy array or what `numpy.asarray` takes; a pandas or polars frame or pyarrow table; or a ``.npy``,
        ``.parquet``, ``.csv`` or ``.tsv`` file.
    vector : str, optional
        The column of a table that holds lists of numbers, or the common beginning of the names of columns with one
        number each. By default it is found, if there is one only.
    id : str, optional
        Column of a CSV or TSV file that stays text. Default: ``id``.

    Raises
    ------
    SourceError
        There are no vectors, or it is not clear which column holds them.
    """
    if isinstance(source, str | os.PathLike):
        return _open_file(os.fspath(source), vector, id)
    if hasattr(source, "__arrow_c_stream__") or hasattr(source, "columns"):
        return _of_table(arrow_table(source), "the table", vector)
    try:
        array = np.asarray(_plain(source))
    except (TypeError, ValueError, RuntimeError) as error:
        raise SourceError(
            f"vectors must be numbers and have the same length, and cannot be made an array: {error}"
        ) from error
    return _of_array(array, "the array", vector)


def _plain(source: Any) -> Any:
    """Return a tensor of torch as one that NumPy takes: off its device, without gradients, in a type that it has."""
    if hasattr(source, "detach") and hasattr(source, "cpu"):
        source = source.detach().cpu()
        return source if hasattr(np, str(source.dtype).removeprefix("torch.")) else source.float()
    return source


def _open_file(path: str, vector: str | None, id: str | None) -> VectorSource:
    require_no_secret(path, "a file of vectors")
    suffix = suffix_of(path)
    if suffix not in SUFFIXES:
        raise SourceError(
            f"vectors must be an array, a table, or a file with a suffix in {', '.join(SUFFIXES)}, got {path!r}"
        )
    location, name = absolute(path), repr(path)
    try:
        if suffix == ".npy":
            file = local_path(location)
            if file is None:
                raise SourceError(f"a .npy file is read from a local disk, got {path!r}: copy it here first")
            return _of_array(read_npy(file, mmap_mode="r"), name, vector)
        if suffix == ".parquet":
            return _of_parquet(location, name, vector)
        return _of_csv(location, name, vector, id, "\t" if suffix == ".tsv" else ",")
    except (OSError, ValueError, EOFError, pa.ArrowException) as error:
        raise SourceError(f"cannot read vectors from {path!r}: {error}") from error


def _grouped(blocks: Iterable[npt.NDArray[Any]], rows: int) -> Iterator[npt.NDArray[Any]]:
    """Join small blocks, so that each has about this many rows."""
    waiting: list[npt.NDArray[Any]] = []
    for block in blocks:
        waiting.append(block)
        if sum(map(len, waiting)) >= rows:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(blocks: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def _columns(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return dict(zip(table.column_names, table.columns, strict=True))


def _rows_of(dim: int) -> int:
    return max(1, BLOCK_BYTES // (4 * dim))


def _of_array(array: npt.NDArray[Any], name: str, vector: str | None) -> VectorSource:
    if vector is not None:
        raise SourceError(f"{name} holds vectors only, and has no column {vector!r}: leave it out")
    if array.ndim != 2 or array.dtype.kind not in "fiu" or 0 in array.shape:
        raise SourceError(
            f"vectors must be numbers of shape (n, dim), and {name} has shape {array.shape} and type {array.dtype}"
        )
    count, dim = array.shape
    step = _rows_of(dim)

    def blocks() -> Iterator[npt.NDArray[Any]]:
        return (array[start : start + step] for start in range(0, count, step))

    return VectorSource(name, count, dim, str(array.dtype), {}, blocks)


def _of_table(table: pa.Table, name: str, vector: str | None) -> VectorSource:
    refuse_doubled_names(table.schema, name)
    chosen = find_vector_columns(table.schema, name, vector)
    vectors, others = table.select(chosen), table.drop_columns(chosen)

    def parts(rows: int) -> Iterator[pa.Table]:
        return (vectors.slice(start, rows) for start in range(0, table.num_rows, rows))

    return _of_parts(name, table.num_rows, _columns(others), parts, chosen)


def _of_parquet(location: str, name: str, vector: str | None) -> VectorSource:
    with open_file(location) as file:
        parquet = pq.ParquetFile(file)
        schema, count = parquet.schema_arrow, parquet.metadata.num_rows
        refuse_doubled_names(schema, name)
        chosen = find_vector_columns(schema, name, vector)
        others = parquet.read([column for column in schema.names if column not in chosen])

    def parts(rows: int) -> Iterator[pa.Table]:
        with open_file(location) as file:
            # With a buffer, a row group of any size is read page by page.
            parquet = pq.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False)
            for batch in parquet.iter_batches(rows, columns=chosen):
                yield pa.Table.from_batches([batch]).select(chosen)

    return _of_parts(name, count, _columns(others), parts, chosen)


def _of_csv(location: str, name: str, vector: str | None, id: str | None, delimiter: str) -> VectorSource:
    def read(convert: pa.csv.ConvertOptions) -> pa.csv.CSVStreamingReader:
        parse = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
        return pa.csv.open_csv(open_file(location), pa.csv.ReadOptions(block_size=CSV_BYTES), parse, convert)

    def batches(names: list[str], type: pa.DataType) -> Iterator[pa.RecordBatch]:
        with read(pa.csv.ConvertOptions(include_columns=names, column_types=dict.fromkeys(names, type))) as reader:
            yield from reader

    schema = read(pa.csv.ConvertOptions()).schema
    refuse_doubled_names(schema, name)
    chosen = find_vector_columns(schema, name, vector, in_cells=True)
    in_cells = len(chosen) == 1
    other_names = [column for column in schema.names if column not in chosen]
    # A column of the vectors counts the rows where there is no other.
    others = pa.Table.from_batches(list(batches(other_names or chosen[:1], pa.string())))
    count = others.num_rows
    for i, field in enumerate(others.schema):
        others = others.set_column(i, field, empty_to_null(others.column(i)))
    others, notes = read_numbers(others, [id or "id", "text"])

    def parts(_: int) -> Iterator[pa.Table]:
        start = 0
        for batch in batches(chosen, pa.string() if in_cells else pa.float64()):
            table = pa.Table.from_batches([batch])
            yield pa.table({chosen[0]: _parsed(table.column(0), start, name)}) if in_cells else table
            start += len(table)

    remarks = tuple(f"{name}: {note}" for note in notes)
    return _of_parts(name, count, _columns(others.select(other_names)), parts, chosen, remarks)


def _of_parts(
    name: str,
    count: int,
    columns: Mapping[str, pa.ChunkedArray],
    parts: Callable[[int], Iterable[pa.Table]],
    chosen: list[str],
    notes: tuple[str, ...] = (),
) -> VectorSource:
    first = next((part for part in parts(1) if len(part)), None)
    if first is None:
        raise SourceError(f"{name} must hold at least one vector, and has no rows")
    if is_vector(first.column(0).type):
        dim = pc.list_value_length(first.column(0))[0].as_py()
        type_ = first.column(0).type.value_type
    else:
        dim, type_ = len(chosen), max((first.column(i).type for i in range(len(chosen))), key=lambda t: t.bit_width)
    if not dim:
        raise SourceError(f"vectors must have at least one value, and row 1 of {name} has none")

    def blocks() -> Iterator[npt.NDArray[Any]]:
        start = 0
        for part in parts(_rows_of(dim)):
            if len(part):
                yield _matrix(part, dim, start, name)
                start += len(part)

    dtype = np.dtype(type_.to_pandas_dtype()).name
    return VectorSource(name, count, dim, dtype, columns, blocks, notes)


def _matrix(part: pa.Table, dim: int, start: int, name: str) -> npt.NDArray[Any]:
    """Return rows of a table as (n, dim). Raises SourceError, naming the row, if a value is missing."""
    for column in part.columns:
        if column.null_count:
            row = int(np.argmax(np.asarray(column.is_null())))
            raise SourceError(f"every row must have a vector, and row {start + row + 1} of {name} lacks a value")
    if not is_vector(part.schema.field(0).type):
        return np.column_stack([column.to_numpy() for column in part.columns])
    array = part.column(0).combine_chunks()
    lengths = np.asarray(pc.list_value_length(array))
    if (wrong := lengths != dim).any():
        row = int(np.argmax(wrong))
        raise SourceError(
            f"vectors must have the same length, and row {start + row + 1} of {name} has {lengths[row]} values, "
            f"the first row {dim}"
        )
    values = array.flatten()
    if values.null_count:
        row = int(np.argmax(np.asarray(values.is_null()))) // dim
        raise SourceError(f"vectors must have no missing values, and row {start + row + 1} of {name} has one")
    matrix: npt.NDArray[Any] = values.to_numpy(zero_copy_only=False).reshape(-1, dim)
    return matrix


def _parsed(cells: pa.ChunkedArray, start: int, name: str) -> pa.Array:
    """Return cells such as ``[0.1, 0.2]`` as lists of numbers."""
    vectors: list[list[float] | None] = []
    for row, cell in enumerate(cells.to_pylist(), start + 1):
        try:
            values = parse_json(cell) if cell else None
            vectors.append(None if values is None else [float(value) for value in values])
        except (TypeError, ValueError, OverflowError) as error:
            raise SourceError(
                f"a vector in a cell must be written as [0.1, 0.2], and row {row} of {name} holds {cell!r:.60}"
            ) from error
    return pa.array(vectors, pa.list_(pa.float64()))
