"""The columns of a feature store, and how incoming columns are made to fit a Delta table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.backbones.spec import BackboneSpec, LayerSpec
from embedpipe.errors import StoreError, UsageError, nearest

#: Key of the spec's JSON in an embedding column's field metadata.
SPEC_KEY = b"embedpipe.spec"

#: Key, in an embedding column's field metadata, that is there where vectors are rounded and compressed.
COMPRESS_KEY = b"embedpipe.compress"

#: Bits of a float32's fraction that are kept then: those that a 16-bit float has.
KEPT_BITS = 10

#: Columns of every store before label, split, metadata and the embeddings.
KEY_FIELDS = (
    pa.field("id", pa.string(), nullable=False),
    pa.field("uri", pa.string()),
    pa.field("content_hash", pa.string(), nullable=False),
    pa.field("source_root", pa.string(), nullable=False),
    pa.field("source_size", pa.int64()),
    pa.field("source_modified", pa.int64()),
)

#: A list of non-null values reads faster than a nullable or fixed-size one, and every tool sees floats.
VECTOR = pa.list_(pa.field("element", pa.float32(), nullable=False))

STORED_TYPES = (pa.string(), pa.binary(), pa.float32(), pa.float64(), VECTOR)


def store_schema(spec: BackboneSpec, compress: bool = False) -> pa.Schema:
    """Return the schema of a new store: key columns, then one vector column per captured layer.

    Label, split and metadata columns are added when the first rows that have them arrive, so that their
    types are those of the data.
    """
    metadata = {SPEC_KEY: spec.to_json().encode()}
    if compress:
        metadata[COMPRESS_KEY] = b"fp16"
    vectors = [pa.field(layer.column, VECTOR, nullable=False, metadata=metadata) for layer in spec.layers]
    return pa.schema([*KEY_FIELDS, *vectors])


def spec_of(schema: pa.Schema) -> BackboneSpec:
    """Return the spec that a store's schema carries. Raises StoreError if it carries none."""
    for field in schema:
        if field.metadata and SPEC_KEY in field.metadata:
            return BackboneSpec.from_json(field.metadata[SPEC_KEY].decode())
    raise StoreError("this Delta table has no embedpipe spec in its columns: it is not a feature store")


def refuse_column_name(name: str, schema: pa.Schema) -> None:
    """Raise UsageError for a column that only the store writes, or that differs from another in letter case only."""
    reserved = {field.name for field in KEY_FIELDS}
    if name.lower() in reserved or name.lower().startswith("embedding"):
        raise UsageError(f"column {name!r} is reserved for the store: choose another name")
    if not name or (name not in schema.names and name.lower() in map(str.lower, schema.names)):
        raise UsageError(
            f"column name {name!r} must not be empty or differ in letter case only from one of {schema.names}"
        )


def is_compressed(field: pa.Field) -> bool:
    """Say whether a column's vectors are to be rounded and compressed."""
    return bool(field.metadata) and COMPRESS_KEY in field.metadata


def rounded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Round the values of a vector column to the precision of 16-bit floats; again changes nothing.

    The fraction is rounded to `KEPT_BITS`, to the nearest and ties to even: a value moves by 2^-11 of itself at most.
    From 6.1e-5 to 65,504 that gives the 16-bit float; smaller and larger ones keep the same relative precision.
    """
    drop = 23 - KEPT_BITS
    chunks = []
    for chunk in column.chunks:
        values = chunk.flatten().to_numpy(zero_copy_only=False)
        bits = values.view(np.uint32)
        half = np.uint32((1 << drop - 1) - 1) + ((bits >> np.uint32(drop)) & np.uint32(1))
        new = ((bits + half) & ~np.uint32((1 << drop) - 1)).view(np.float32)
        new = np.where(np.isfinite(new) & np.isfinite(values), new, values)  # the very largest would become infinite
        offsets = chunk.offsets.to_numpy()
        chunks.append(pa.ListArray.from_arrays(pa.array(offsets - offsets[0]), pa.array(new), type=VECTOR))
    return pa.chunked_array(chunks, VECTOR)


def vector_column(vectors: npt.NDArray[np.float32]) -> pa.Array:
    """Turn float32 (n, dim) into an Arrow column of lists, without copying."""
    count, dim = vectors.shape
    values = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    return pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * dim), values, type=VECTOR)


def matrix(column: pa.ChunkedArray | pa.Array, dim: int, name: str) -> npt.NDArray[np.float32]:
    """Turn a column of lists into float32 (n, dim). Raises StoreError if a list has another length."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    blocks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in chunks]
    flat = blocks[0] if len(blocks) == 1 else np.concatenate([*blocks, np.empty(0, np.float32)])
    lengths = [chunk.value_lengths().to_numpy(zero_copy_only=False) for chunk in chunks]
    if flat.size != len(column) * dim or any((block != dim).any() for block in lengths):
        raise StoreError(f"column {name!r} holds vectors that are not {dim} long: run `embedpipe verify`")
    return flat.reshape(-1, dim).astype(np.float32, copy=False)


def is_ascending(ids: pa.Array | pa.ChunkedArray) -> bool:
    """Say whether ids are in order, each once."""
    return pc.all(pc.less(ids[:-1], ids[1:])).as_py() is not False


def delta_type(type_: pa.DataType, column: str) -> pa.DataType | None:
    """Return the type in which Delta stores a column; None for a column of nulls only.

    Delta has no unsigned integers, half floats or nanoseconds: each goes to the next type that holds it.
    Raises StoreError for types that have no such place.
    """
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    same = (pa.types.is_boolean, pa.types.is_signed_integer, pa.types.is_date32, pa.types.is_decimal128)
    if any(is_type(type_) for is_type in same) or type_ in STORED_TYPES:
        return type_
    if pa.types.is_null(type_):
        return None
    if pa.types.is_unsigned_integer(type_):
        return pa.int64() if type_.bit_width >= 32 else pa.int32()
    if pa.types.is_float16(type_):
        return pa.float32()
    if pa.types.is_large_string(type_) or pa.types.is_string_view(type_) or pa.types.is_time(type_):
        return pa.string()
    if pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_):
        return pa.binary()
    if pa.types.is_date64(type_):
        return pa.date32()
    if pa.types.is_timestamp(type_):
        return pa.timestamp("us", tz="UTC")
    raise StoreError(f"column {column!r} has type {type_}, which a store cannot hold: leave it out or flatten it")


def storable(table: pa.Table) -> pa.Table:
    """Return ``table`` in types that Delta stores; columns of nulls only are left out."""
    columns: dict[str, pa.ChunkedArray] = {}
    for name in table.column_names:
        column = table.column(name)
        if (type_ := delta_type(column.type, name)) is not None:
            columns[name] = column if column.type == type_ else _cast(column, type_, name)
    return pa.table(columns)


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return ``table`` with exactly the columns of ``schema``: missing ones null, others cast safely.

    Raises StoreError where a value does not fit the store's type.
    """
    arrays = []
    for field in schema:
        if field.name in table.column_names:
            column = table.column(field.name)
            arrays.append(column if column.type == field.type else _cast(column, field.type, field.name))
        else:
            arrays.append(pa.nulls(table.num_rows, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _cast(column: pa.ChunkedArray, type_: pa.DataType, name: str) -> pa.ChunkedArray:
    try:
        if pa.types.is_timestamp(type_) and column.type.tz is None:
            column = column.cast(pa.timestamp("us"), safe=False)
        # A date with a time of day, and nanoseconds, are more than the store's type means to keep.
        return column.cast(type_, safe=not pa.types.is_temporal(column.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise StoreError(
            f"column {name!r} holds {column.type} values that do not fit the store's {type_} ({error}): "
            "rename the column, or convert its values"
        ) from error


def select_layers(layers: Sequence[LayerSpec], layer: str | None, path: str) -> tuple[LayerSpec, ...]:
    """Return the layers of the store at ``path`` that a name stands for: see `FeatureStore.select_layers`."""
    known = {each.name: each for each in layers}
    available = ", ".join(known)
    if layer is None and len(known) > 1:
        raise UsageError(f"{path!r} holds several layers: give one of {available}, or several joined by + (--layer)")
    names = [next(iter(known))] if layer is None else [name.strip() for name in layer.split("+")]
    for name in names:
        if name not in known:
            hint = nearest(name, known)
            raise UsageError(f"{path!r} has no layer {name!r} (--layer){hint}: it has {available}")
    if len({*names}) < len(names):
        raise UsageError(f"layer={layer!r} names a layer twice (--layer): join different layers")
    return tuple(known[name] for name in names)
