"""Files whose vectors are written as blocks: the tables, bytes and footers that Arrow would write."""

from __future__ import annotations

import datetime
import io
import itertools
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from embedpipe.store.data_files import write_files
from embedpipe.store.pages import thrift, writer
from embedpipe.store.pages.reader import find_chunks, read_chunk
from embedpipe.store.pages.writer import write_parquet
from embedpipe.store.schema import VECTOR, vector_column

FLAT = {
    "id": pa.array(["a", "b", "c"]),
    "label": pa.array(["x", None, "x"]),
    "size": pa.array([1, None, 3]),
    "small": pa.array([1, 2, None], pa.int8()),
    "price": pa.array([0.5, float("nan"), None]),
    "when": pa.array([datetime.datetime(2026, 1, 1), None, None], pa.timestamp("us", tz="UTC")),
    "day": pa.array([datetime.date(2026, 1, 1), None, None]),
    "sum": pa.array([Decimal("1.50"), None, None], pa.decimal128(9, 2)),
    "flag": pa.array([True, None, False]),
    "bytes": pa.array([b"\0", None, b""]),
    "half": pa.array([1.5, None, None], pa.float32()),
}


def vectors_of(seed: int, rows: int, dim: int) -> np.ndarray:
    """Return floats of any bits: NaN of all kinds, infinite, and too small for a normal number."""
    bits = np.random.default_rng(seed).integers(0, 1 << 32, (rows, dim), np.uint32)
    bits.flat[:: max(1, bits.size // 7)] = np.float32("inf").view(np.uint32)
    return bits.view(np.float32)


def make_rows(seed: int, rows: int, dims: list[int], chunks: int = 1) -> pa.Table:
    """Return rows with columns of every kind that a store has, in any order, in so many chunks each."""
    places = np.random.default_rng(seed).integers(0, 3, rows)
    arrays = {name: column.take(pa.array(places)) for name, column in FLAT.items()}
    fields = [pa.field(name, column.type) for name, column in FLAT.items()]
    for number, dim in enumerate(dims):
        arrays[f"v{number}"] = vector_column(vectors_of(seed + number, rows, dim))
        fields.append(pa.field(f"v{number}", VECTOR, nullable=False, metadata={"spec": "{}"}))
    random.Random(seed).shuffle(fields)
    table = pa.table([arrays[field.name] for field in fields], schema=pa.schema(fields, metadata={"of": "all"}))
    cuts = np.linspace(0, rows, chunks + 1).astype(int).tolist()
    return pa.concat_tables([table.slice(a, b - a) for a, b in itertools.pairwise(cuts)])


def options_of(rows: pa.Table, group: int) -> dict[str, Any]:
    """Return the options of a store."""
    vectors = [field.name for field in rows.schema if field.type == VECTOR]
    return {
        "row_group_size": group,
        "compression": dict.fromkeys(FLAT, "zstd") | {f"{name}.list.element": "none" for name in vectors},
        "use_dictionary": [field.name for field in rows.schema if field.type == pa.string()],
        "write_statistics": ["id", "size", "price"],
        "write_page_checksum": True,
    }


def written(rows: pa.Table, group: int, plain: list[str]) -> bytes:
    file = io.BytesIO()
    write_parquet(rows, file, plain=plain, **options_of(rows, group))
    return file.getvalue()


def read(data: bytes) -> pa.Table:
    return pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True).read()


def bits(column: pa.ChunkedArray) -> np.ndarray:
    return np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks]).view(np.uint32)


def footer(data: bytes) -> bytes:
    return data[-8 - int.from_bytes(data[-8:-4], "little") : -8]


def without_places(chunk: Any) -> dict[str, Any]:
    """Return the metadata of a chunk but what depends on the bytes of other columns, and on how levels are packed."""
    metadata = chunk.to_dict()
    vectors = metadata["physical_type"] == "FLOAT" and chunk.path_in_schema.endswith("element")
    sizes = {"total_compressed_size", "total_uncompressed_size"} if vectors else set()
    places = {"data_page_offset", "dictionary_page_offset"} | sizes
    return {key: repr(value) for key, value in metadata.items() if key not in places}  # NaN equals nothing


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 1 << 30),
    st.integers(1, 4000),
    st.lists(st.integers(1, 3000) | st.sampled_from([1, 2, 7, 8, 9, 768]), min_size=1, max_size=2),
    st.integers(1, 1500),
    st.sampled_from([64, 4096, 1 << 20]),
    st.integers(1, 5),
)
def test_file_is_that_of_arrow(seed: int, rows: int, dims: list[int], group: int, page: int, chunks: int) -> None:
    rows = min(rows, max(1, 300_000 // sum(dims)))
    assume(rows // group < 50)
    table = make_rows(seed, rows, dims, chunks)
    names = [f"v{number}" for number in range(len(dims))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "PAGE_BYTES", page)
        data = written(table, group, names)
    of_arrow = written(table, group, [])
    result, expected = read(data), read(of_arrow)
    assert result.schema.equals(expected.schema, check_metadata=True)
    assert result.drop_columns(["price", *names]).equals(expected.drop_columns(["price", *names]))
    np.testing.assert_array_equal(result["price"].to_numpy(), expected["price"].to_numpy())
    for name in names:
        assert result[name].num_chunks == expected[name].num_chunks
        np.testing.assert_array_equal(bits(result[name]), bits(table[name]))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 300), st.integers(1, 900), st.integers(1, 200))
def test_footer_is_that_of_arrow(seed: int, rows: int, dim: int, group: int) -> None:
    assume(rows // group < 50)
    table = make_rows(seed, rows, [dim, 3])
    data, of_arrow = written(table, group, ["v0", "v1"]), written(table, group, [])
    metadata, expected = (pq.read_metadata(io.BytesIO(file)) for file in (data, of_arrow))
    assert metadata.schema.equals(expected.schema)
    assert metadata.metadata == expected.metadata
    assert (metadata.num_rows, metadata.created_by) == (expected.num_rows, expected.created_by)
    assert metadata.num_row_groups == expected.num_row_groups
    end = 4
    for number in range(metadata.num_row_groups):
        part, like = metadata.row_group(number), expected.row_group(number)
        assert part.num_rows == like.num_rows
        columns = [part.column(i) for i in range(part.num_columns)]
        assert [*map(without_places, columns)] == [without_places(like.column(i)) for i in range(part.num_columns)]
        assert part.total_byte_size == sum(column.total_uncompressed_size for column in columns)
        for column in sorted(columns, key=lambda column: column.data_page_offset):  # no byte lies between
            assert (column.dictionary_page_offset or column.data_page_offset) == end
            end += column.total_compressed_size
    assert end == len(data) - 8 - metadata.serialized_size


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(0, 50), st.integers(1, 9))
def test_footer_of_arrow_is_encoded_as_it_was(seed: int, rows: int, group: int) -> None:
    data = footer(written(make_rows(seed, rows, [5]), group, []))
    struct, end = thrift.decode(data)
    assert (thrift.encode(struct), end) == (data, len(data))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 1000), st.integers(1, 900))
def test_pages_have_the_levels_that_the_reader_expects(seed: int, rows: int, dim: int) -> None:
    rows = min(rows, max(1, 100_000 // dim))
    table = make_rows(seed, rows, [dim])
    data = written(table, 400, ["v0"])
    parquet, source = pq.ParquetFile(io.BytesIO(data)), pa.BufferReader(data)
    blocks = []
    for chunk in find_chunks(parquet, len(data), "v0")[1]:
        assert chunk
        blocks.append(np.empty((chunk.rows, dim), np.float32))
        read_chunk(source, chunk, dim, blocks[-1])
    np.testing.assert_array_equal(np.concatenate(blocks).ravel().view(np.uint32), bits(table["v0"]))


def test_statistics_of_levels_and_pages_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyarrow shows neither how many pages a chunk has nor how often its levels occur."""
    monkeypatch.setattr(writer, "PAGE_BYTES", 4096)
    table = make_rows(0, 300, [64])
    data, of_arrow = written(table, 200, ["v0"]), written(table, 200, [])
    (entries, expected) = (thrift.decode(footer(file))[0][4] for file in (data, of_arrow))
    place = table.column_names.index("v0")
    for entry, like, pages in zip(entries, expected, (13, 7), strict=True):  # of 16 rows
        metadata, of_levels = entry[1][place][3], like[1][place][3][16]
        assert (metadata[13], metadata[16]) == ([{1: 0, 2: 0, 3: pages}], of_levels)
        assert sum(chunk[3][7] for chunk in entry[1]) == entry[6]


def test_vector_larger_than_a_page() -> None:
    table = make_rows(0, 3, [writer.PAGE_BYTES // 4 + 3])
    np.testing.assert_array_equal(bits(read(written(table, 2, ["v0"]))["v0"]), bits(table["v0"]))


@pytest.mark.parametrize(
    ("lists", "nullable"),
    [([], False), ([[1.0, 2.0], [3.0]], False), ([[], []], False), ([[1.0], None], True), ([[1.0], [2.0]], True)],
    ids=["no rows", "lengths", "no values", "null", "nullable"],
)
def test_other_lists_are_left_to_arrow(lists: list, nullable: bool) -> None:
    schema = pa.schema([pa.field("id", pa.string()), pa.field("v0", VECTOR, nullable=nullable)])
    table = pa.table([pa.array(["a"] * len(lists), pa.string()), pa.array(lists, VECTOR)], schema=schema)
    assert written(table, 9, ["v0"]) == written(table, 9, [])


class Parts(pa.ExtensionType):
    """A type that looks like one column and is stored in two."""

    def __init__(self) -> None:
        super().__init__(pa.struct({"a": pa.int64(), "b": pa.string()}), "tests.parts")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> Parts:
        return cls()


@pytest.mark.parametrize("extension", [False, True])
def test_columns_of_several_parts_are_left_to_arrow(extension: bool) -> None:
    parts = pa.array([{"a": 1, "b": "x"}] * 3)
    parts = pa.ExtensionArray.from_storage(Parts(), parts) if extension else parts
    table = make_rows(0, 3, [2]).append_column("parts", parts)
    assert written(table, 9, ["v0"]) == written(table, 9, [])


def test_vectors_alone_are_left_to_arrow() -> None:
    table = make_rows(0, 3, [2]).select(["v0"])
    assert written(table, 9, ["v0"]) == written(table, 9, [])


@pytest.fixture
def file(tmp_path: Path) -> tuple[pa.Table, Path]:
    table = make_rows(1, 2000, [96, 5], 3)
    path = tmp_path / "file.parquet"
    path.write_bytes(written(table, 300, ["v0", "v1"]))
    return table, path


def test_columns_and_row_groups_are_read_alone(file: tuple[pa.Table, Path]) -> None:
    table, path = file
    with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
        part = parquet.read_row_groups([2, 5], columns=["label", "v1"])
    rows = pa.concat_tables([table.slice(600, 300), table.slice(1500, 300)])
    assert part["label"].to_pylist() == rows["label"].to_pylist()
    np.testing.assert_array_equal(bits(part["v1"]), bits(rows["v1"]))


def test_dataset_filters_rows(file: tuple[pa.Table, Path]) -> None:
    table, path = file
    chosen = ds.field("id") == "b"
    np.testing.assert_array_equal(
        bits(ds.dataset(path).to_table(columns=["v0"], filter=chosen)["v0"]), bits(table.filter(chosen)["v0"])
    )


def test_duckdb_and_polars_read_the_file(file: tuple[pa.Table, Path]) -> None:
    table, path = file
    chosen = table.filter(ds.field("id") == "b")
    by_duckdb = duckdb.sql(f"select size, v0 from read_parquet('{path}') where id = 'b'").to_arrow_table()
    by_polars = pl.read_parquet(path).filter(pl.col("id") == "b").to_arrow()
    for result in (by_duckdb, by_polars):
        assert result["size"].to_pylist() == chosen["size"].to_pylist()
        values = np.concatenate([chunk.flatten().to_numpy() for chunk in result["v0"].chunks])
        np.testing.assert_array_equal(values.view(np.uint32), bits(chosen["v0"]))


def test_changed_value_has_another_checksum() -> None:
    table = make_rows(0, 500, [64])
    data = bytearray(written(table, 500, ["v0"]))
    (chunk,) = find_chunks(pq.ParquetFile(io.BytesIO(data)), len(data), "v0")[1]
    assert chunk
    data[chunk.offset + chunk.size // 2] ^= 1
    with pytest.raises(OSError, match=r"(?i)crc checksum"):
        read(bytes(data))


def test_files_of_a_store_are_written_as_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain vectors are; compressed ones are left to Arrow."""
    columns = []
    write_chunk = writer._write_chunk
    monkeypatch.setattr(writer, "_write_chunk", lambda *a: columns.append(a[1]) or write_chunk(*a))
    table = make_rows(0, 30, [4, 4])
    at = table.schema.get_field_index("v1")
    table = table.set_column(at, table.schema.field(at).with_metadata({"embedpipe.compress": "fp16"}), table["v1"])
    table = table.set_column(table.schema.get_field_index("id"), "id", pa.array([f"{i:02d}" for i in range(30)]))
    (action,) = write_files(table, pa.fs.LocalFileSystem(), str(tmp_path))
    assert columns == ["v0"]
    metadata = pq.read_metadata(tmp_path / action.path).row_group(0)
    assert {metadata.column(i).compression for i in range(metadata.num_columns)} == {"UNCOMPRESSED", "ZSTD"}
    np.testing.assert_array_equal(bits(read((tmp_path / action.path).read_bytes())["v0"]), bits(table["v0"]))


@pytest.mark.parametrize("data", [b"", b"\x15", b"\x1b\0", b"\x1c" * 100_000, b"\x15" + b"\xff" * 20, b"\x18\x7fab"])
def test_damaged_struct_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no struct of Thrift"):
        thrift.decode(data)


@given(
    st.recursive(
        st.integers(-(1 << 31), (1 << 31) - 1)
        | st.integers(-(1 << 63), (1 << 63) - 1).map(thrift.I64)
        | st.integers(-(1 << 15), (1 << 15) - 1).map(thrift.I16)
        | st.binary()
        | st.binary(min_size=8, max_size=8).map(thrift.Double)
        | st.booleans(),
        lambda values: st.dictionaries(st.integers(1, 1000), values, max_size=5),
    ).filter(lambda value: isinstance(value, dict))
)
def test_encoded_struct_is_decoded(struct: dict[int, Any]) -> None:
    again, _ = thrift.decode(thrift.encode(struct))
    assert repr(again) == repr(dict(sorted(struct.items()))) or again == struct
    assert thrift.encode(again) == thrift.encode(struct)
