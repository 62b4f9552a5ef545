"""The columns of a feature store, and the conversion of incoming columns to types that Delta stores."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.checksums import checksum
from embedpipe._utils.option_names import option
from embedpipe._utils.version import __version__, other_format
from embedpipe.backbones.spec import BackboneSpec, LayerSpec
from embedpipe.errors import ConcurrentWriteError, StoreError, UsageError, nearest, suggest
from embedpipe.sources.locations import printable

#: Key of the spec (JSON) in the field metadata of a vector column.
SPEC_KEY = b"embedpipe.spec"

#: The version of a store's format, its key in the field metadata of a vector column, and that of embedpipe's version.
FORMAT = 1
FORMAT_KEY, WRITER_KEY = b"embedpipe.format", b"embedpipe.version"

#: Key of the checksum of that JSON.
SPEC_CHECKSUM_KEY = b"embedpipe.spec.checksum"

#: Key in the field metadata of a vector column whose vectors are rounded and compressed.
COMPRESS_KEY = b"embedpipe.compress"

#: Fraction bits that rounding keeps: as many as a 16-bit float has.
KEPT_BITS = 10

#: First columns of every store, before label, split, metadata and the vectors.
KEY_FIELDS = (
    pa.field("id", pa.string(), nullable=False),
    pa.field("uri", pa.string()),
    pa.field("content_hash", pa.string(), nullable=False),
    pa.field("source_root", pa.string(), nullable=False),
    pa.field("source_size", pa.int64()),
    pa.field("source_modified", pa.int64()),
)

#: Column of marks: which columns of a row were set by hand, and what the source says; added with the first of them.
BY_HAND = "set_by_hand"

#: Column of reasons why a row is not used, null for rows that are; added with the first of them (`exclusion.py`).
EXCLUDED = "excluded"

#: Column with what was left out of a picture or inferred, as a JSON object of counts; null for nothing.
PICTURE_COUNTS = "picture_counts"

#: Column with the perceptual hash of a picture, 64 hexadecimal digits; null where none was computed.
PERCEPTUAL_HASH = "perceptual_hash"

#: Lists of non-null values read faster than nullable or fixed-size lists, and every tool can read them.
VECTOR = pa.list_(pa.field("element", pa.float32(), nullable=False))

STORED_TYPES = (pa.string(), pa.binary(), pa.float32(), pa.float64(), VECTOR)


def store_schema(spec: BackboneSpec, compress: bool = False) -> pa.Schema:
    """Return the schema of a new store: key columns, then one vector column per captured layer.

    Columns for label, split and metadata are added with the first rows that have them, in the type of the data.
    """
    return pa.schema([*KEY_FIELDS, *vector_fields(spec, compress)])


def vector_fields(spec: BackboneSpec, compress: bool) -> list[pa.Field]:
    """Return the vector columns of a store, each with the spec of all."""
    json = spec.to_json().encode()
    metadata = {SPEC_KEY: json, SPEC_CHECKSUM_KEY: checksum(json).encode()}
    metadata |= {FORMAT_KEY: str(FORMAT).encode(), WRITER_KEY: __version__.encode()}
    if compress:
        metadata[COMPRESS_KEY] = b"fp16"
    return [pa.field(layer.column, VECTOR, nullable=False, metadata=metadata) for layer in spec.layers]


def spec_of(schema: pa.Schema) -> BackboneSpec:
    """Return the spec in the metadata of a schema. Raises StoreError if there is none, or it is damaged."""
    for field in schema:
        if field.metadata and SPEC_KEY in field.metadata:
            json = field.metadata[SPEC_KEY]
            found = field.metadata.get(FORMAT_KEY, b"1").decode()  # stores from before the first release have no key
            if found != str(FORMAT):
                version = int(found) if found.isdecimal() else found
                writer = field.metadata.get(WRITER_KEY, b"").decode() or None
                raise StoreError(f"this store {other_format(version, FORMAT, writer)}. Or embed into a new store")
            if field.metadata.get(SPEC_CHECKSUM_KEY, b"").decode() != checksum(json):
                raise StoreError("the spec in the log of this store is damaged: embed into a new store")
            return BackboneSpec.from_json(json.decode())
    raise StoreError(
        "this Delta table is not a feature store: no column has an embedpipe spec. If another tool overwrote its "
        "columns, open an earlier version"
    )


def refuse_column_name(name: str, schema: pa.Schema) -> None:
    """Raise UsageError for a column that only the store writes, or that differs from another in letter case only."""
    reserved = {field.name for field in KEY_FIELDS} | {BY_HAND, EXCLUDED, PERCEPTUAL_HASH, PICTURE_COUNTS}
    if name.lower() in reserved or name.lower().startswith("embedding"):
        raise UsageError(f"column {name!r} is reserved for the store: choose another name")
    if "\0" in name:  # Arrow and Delta take what stands before it for the name
        raise UsageError(f"column name {name!r} must not hold a zero byte")
    if printable(name) != name:
        raise UsageError(f"column name {name!r} must be UTF-8")
    if not name or (name not in schema.names and name.lower() in map(str.lower, schema.names)):
        raise UsageError(
            f"column name {name!r} must not be empty or differ in letter case only from one of {schema.names}"
        )


def require_column(name: str, known: Collection[str], path: str, parameter: str = "") -> None:
    """Raise UsageError if a store has no such column; ``parameter`` is the option that names it."""
    if name not in known:
        advised = parameter == "label" in known and not nearest(name, ["label"])
        stored = "; embed stores labels in the column 'label'" if advised else ""
        raise UsageError(
            f"{path!r} has no column {name!r}{parameter and f' ({option(parameter, ...)})'}{stored}"
            f"{suggest(name, known)}"
        )


def is_compressed(field: pa.Field) -> bool:
    """Return whether the vectors of a column are rounded and compressed."""
    return bool(field.metadata) and COMPRESS_KEY in field.metadata


def rounded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Round the values of a vector column to the precision of 16-bit floats. Rounding twice changes nothing.

    Fractions are rounded to `KEPT_BITS` bits, to nearest with ties to even: the relative error is at most 2^-11.
    From 6.1e-5 to 65,504 the result is the 16-bit float. Smaller and larger values keep the same relative precision.
    """
    drop = 23 - KEPT_BITS
    chunks = []
    for chunk in column.chunks:
        values = chunk.flatten().to_numpy(zero_copy_only=False)
        bits = values.view(np.uint32)
        half = np.uint32((1 << drop - 1) - 1) + ((bits >> np.uint32(drop)) & np.uint32(1))
        new = ((bits + half) & ~np.uint32((1 << drop) - 1)).view(np.float32)
        new = np.where(np.isfinite(new) & np.isfinite(values), new, values)  # the largest values would become infinite
        offsets = chunk.offsets.to_numpy()
        chunks.append(pa.ListArray.from_arrays(pa.array(offsets - offsets[0]), pa.array(new), type=VECTOR))
    return pa.chunked_array(chunks, VECTOR)


def vector_column(vectors: npt.NDArray[np.float32]) -> pa.Array:
    """Return float32 (n, dim) as an Arrow column of lists, without copying. Raises ArrowInvalid from 2^31 values."""
    count, dim = vectors.shape
    values = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    return pa.ListArray.from_arrays(pa.array(np.arange(count + 1) * dim).cast(pa.int32()), values, type=VECTOR)


def matrix(column: pa.ChunkedArray | pa.Array, dim: int, name: str) -> npt.NDArray[np.float32]:
    """Return a column of lists as float32 (n, dim). Raises StoreError if a list is not ``dim`` long."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    blocks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in chunks]
    flat = blocks[0] if len(blocks) == 1 else np.concatenate([*blocks, np.empty(0, np.float32)])
    lengths = [chunk.value_lengths().to_numpy(zero_copy_only=False) for chunk in chunks]
    if any(chunk.flatten().null_count for chunk in chunks):
        raise StoreError(f"column {name!r} holds vectors with missing values: run `embedpipe verify`")
    if flat.size != len(column) * dim or any((block != dim).any() for block in lengths):
        raise StoreError(f"column {name!r} holds vectors that are not {dim} long: run `embedpipe verify`")
    return flat.reshape(-1, dim).astype(np.float32, copy=False)


def refuse_missing_vectors(rows: pa.Table, schema: pa.Schema, path: str) -> None:
    """Raise ConcurrentWriteError if new rows lack vectors of a layer, which another process has added meanwhile."""
    full = [name for name in rows.column_names if not rows.column(name).null_count]
    lacking = [field.name for field in schema if SPEC_KEY in (field.metadata or {}) and field.name not in full]
    if lacking:
        raise ConcurrentWriteError(
            f"rows of {path!r} must have vectors in the columns {lacking}, which another process has added meanwhile: "
            "run it again"
        )


def equal_ids(stored: pa.Table, incoming: pa.Table) -> pa.Array:
    """Return the ids of stored rows that equal the incoming rows with the same ids, in the stored columns.

    ``incoming`` has all ids of ``stored``.
    """
    ids = stored.column("id").combine_chunks()
    rows = incoming.take(pc.index_in(ids, value_set=incoming.column("id").combine_chunks()))
    return ids.filter(pc.invert(differing_rows(rows, stored)).combine_chunks())


def differing_rows(new: pa.Table, old: pa.Table) -> pa.ChunkedArray:
    """Return the mask of the rows that differ in any column of the old table."""
    return functools.reduce(pc.or_, (differ(new.column(name), old.column(name)) for name in old.column_names))


def is_ascending(ids: pa.Array | pa.ChunkedArray) -> bool:
    """Return whether ids are sorted and unique."""
    return pc.all(pc.less(ids[:-1], ids[1:])).as_py() is not False


def delta_type(type_: pa.DataType, column: str) -> pa.DataType | None:
    """Return the type in which Delta stores a column; None for a column of nulls only.

    Delta has no unsigned integers, half floats or nanoseconds, so each gets the next larger type.
    Raises StoreError for types that Delta cannot store.
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
    raise StoreError(f"a store cannot hold column {column!r} of type {type_}: leave it out or flatten it")


def storable(table: pa.Table) -> pa.Table:
    """Return ``table`` in types that Delta stores, without columns of nulls only."""
    columns: dict[str, pa.ChunkedArray] = {}
    for name in table.column_names:
        column = table.column(name)
        if (type_ := delta_type(column.type, name)) is not None:
            columns[name] = column if column.type == type_ else _cast(column, type_, name)
    return pa.table(columns)


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return ``table`` with exactly the columns of ``schema``: missing ones as null, the others cast safely.

    Raises StoreError if a value does not fit the type.
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
    if pa.types.is_dictionary(column.type):  # Arrow has no cast for some types of values, and keeps nanoseconds
        values = (_cast(pa.chunked_array([chunk.dictionary]), type_, name).combine_chunks() for chunk in column.chunks)
        parts = [each.take(chunk.indices) for each, chunk in zip(values, column.chunks, strict=True)]
        return pa.chunked_array(parts, type_)
    try:
        if pa.types.is_timestamp(type_) and pa.types.is_integer(column.type):
            raise pa.ArrowInvalid("a number is not a time")
        if pa.types.is_timestamp(type_) and pa.types.is_timestamp(column.type) and column.type.tz is None:
            column = column.cast(pa.timestamp("us"), safe=column.type.unit != "ns")
        if type_ == pa.string() and pa.types.is_floating(column.type):  # Arrow writes 1.0 as 1
            texts = [None if value is None else repr(value) for value in column.to_pylist()]
            return pa.chunked_array([pa.array(texts, type_)])
        # The time of day of a date, and nanoseconds, are dropped on purpose.
        dropped = pa.types.is_date64(column.type) or getattr(column.type, "unit", "") == "ns"
        new = column.cast(type_, safe=not dropped)
        if column.type == pa.string():
            given = pc.utf8_lower(column) if pa.types.is_boolean(type_) else column  # Python writes True
            if pc.all(pc.equal(new.cast(pa.string()), given)).as_py() is False:  # None for nulls only
                raise pa.ArrowInvalid("such as 01, which is another text than 1")
        return new
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise StoreError(
            f"column {name!r} holds {column.type} values that do not fit the type {type_} of the store ({error}): "
            "rename the column, or convert its values"
        ) from error


def differ(new: pa.ChunkedArray, old: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the mask of the rows whose values differ. Null equals null, and NaN equals NaN."""
    same = pc.or_(pc.fill_null(pc.equal(new, old), False), pc.and_(pc.is_null(new), pc.is_null(old)))
    if pa.types.is_floating(new.type):
        same = pc.or_(same, pc.fill_null(pc.and_(pc.is_nan(new), pc.is_nan(old)), False))
    return pc.invert(same)


def select_layers(
    layers: Sequence[LayerSpec], layer: str | None, path: str, *, joined: bool = True
) -> tuple[LayerSpec, ...]:
    """Return the layers of the store at ``path`` that a name stands for: see `FeatureStore.select_layers`."""
    known = {each.name: each for each in layers}
    own = [each.name for each in layers if not each.reduction]
    if layer is None and len(own) > 1:
        example = f"{option('layer', 'features')}: the network's output" if "features" in own else option("layer", ...)
        several = ", or several joined by +" if joined else ""
        raise UsageError(f"{path!r} holds several layers: give one of {', '.join(known)}{several} ({example})")
    names = own if layer is None else [name.strip() for name in layer.split("+")]
    for name in names:
        if name not in known:
            raise UsageError(f"{path!r} has no layer {name!r} ({option('layer', ...)}){suggest(name, known)}")
    if len({*names}) < len(names):
        raise UsageError(f"{option('layer', layer)} names a layer twice: join different layers")
    return tuple(known[name] for name in names)
