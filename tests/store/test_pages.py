"""Page reader: the same vectors as Arrow gives, and errors for damaged pages."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import make_store

from embedpipe import FeatureStore
from embedpipe.errors import StoreError, UsageError
from embedpipe.store.pages import thrift
from embedpipe.store.pages.reader import Chunk, UnusualLayoutError, find_chunks, read_chunk
from embedpipe.store.scan import read_vectors
from embedpipe.store.schema import VECTOR, vector_column


def read(path: Path, dim: int, column: str = "v") -> np.ndarray:
    """Read all row groups of a file by pages. Raises UnusualLayoutError if Arrow is needed."""
    blocks = []
    with pq.ParquetFile(path) as parquet, pa.OSFile(str(path)) as source:
        for chunk in find_chunks(parquet, path.stat().st_size, column)[1]:
            if chunk is None:
                raise UnusualLayoutError
            blocks.append(np.empty((chunk.rows, dim), np.float32))
            read_chunk(source, chunk, dim, blocks[-1])
    return np.concatenate(blocks)


def table(X: np.ndarray) -> pa.Table:
    schema = pa.schema([pa.field("id", pa.string()), pa.field("v", VECTOR, nullable=False)])
    return pa.table([pa.array([str(i) for i in range(len(X))]), vector_column(X)], schema=schema)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 300),
    st.sampled_from([1, 2, 7, 8, 9, 64, 130]),
    st.sampled_from([64, 1000, 4096, 1 << 20]),
    st.booleans(),
    st.booleans(),
)
def test_read_chunk_gives_the_vectors_of_arrow(
    tmp_path_factory: pytest.TempPathFactory, rows: int, dim: int, page: int, split: bool, checksum: bool
) -> None:
    X = np.random.default_rng(rows).standard_normal((rows, dim)).astype(np.float32)
    path = tmp_path_factory.mktemp("pages") / "file.parquet"
    pq.write_table(
        table(X),
        path,
        row_group_size=100,
        data_page_size=page,
        write_batch_size=50,
        compression="zstd" if split else "none",
        use_dictionary=False,
        use_byte_stream_split=["v.list.element"] if split else False,
        write_page_checksum=checksum,
    )
    np.testing.assert_array_equal(read(path, dim), X)


@pytest.mark.parametrize(
    "options",
    [
        {"use_dictionary": True},
        {"compression": "snappy", "use_dictionary": False},
        {"data_page_version": "2.0", "use_dictionary": False, "compression": "none"},
    ],
)
def test_other_layouts_need_arrow(tmp_path: Path, options: dict) -> None:
    path = tmp_path / "file.parquet"
    pq.write_table(table(np.ones((9, 4), np.float32)), path, **options)
    with pytest.raises(UnusualLayoutError):
        read(path, 4)


@pytest.mark.parametrize("lists", [[[1, 2], [3, 4, 5], [6]], [[1, 2], [], [3, 4, 5, 6]], [[1, 2, 3], [4, 5, 6]]])
def test_lists_of_another_length_need_arrow(tmp_path: Path, lists: list) -> None:
    path = tmp_path / "file.parquet"
    schema = pa.schema([pa.field("v", VECTOR, nullable=False)])
    pq.write_table(pa.table([pa.array(lists, VECTOR)], schema=schema), path, compression="none", use_dictionary=False)
    with pytest.raises(UnusualLayoutError):
        read(path, 2)


def test_store_written_by_another_tool_is_read(tmp_path: Path) -> None:
    X = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    store = make_store(tmp_path / "store", X)
    file = Path(store.path) / store.table.files[0].path
    rows = pq.read_table(file, partitioning=None)
    pq.write_table(rows.take(pa.array(np.arange(50)[::-1])), file, compression="gzip")  # unsorted
    np.testing.assert_array_equal(FeatureStore(store.path).to_numpy(), X)


@pytest.mark.parametrize("compress", [False, True])
def test_damaged_vector_is_an_error(tmp_path: Path, compress: bool) -> None:
    X = np.random.default_rng(0).standard_normal((500, 40)).astype(np.float32)
    whole = make_store(tmp_path / "store", X)
    store = FeatureStore.create(tmp_path / "damaged", whole.spec, compress=compress)
    store.write(whole.to_arrow())
    file = Path(store.path) / store.refresh().table.files[0].path
    with pq.ParquetFile(file) as parquet:
        (chunk,) = find_chunks(parquet, file.stat().st_size, "embedding")[1]
    assert chunk
    data = bytearray(file.read_bytes())
    data[chunk.offset + chunk.size // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreError, match=rf"{file.name}.* damaged: the checksum of a page"):
        FeatureStore(store.path).to_numpy()


def test_damaged_footer_is_an_error(tmp_path: Path) -> None:
    """Also where Arrow's own access to row groups would end the process."""
    store = make_store(tmp_path / "store", np.random.default_rng(0).standard_normal((40, 6)), label=["a", "b"] * 20)
    file = Path(store.path) / store.table.files[0].path
    whole, values = file.read_bytes(), store.to_numpy().view(np.uint32)
    start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    rng = np.random.default_rng(0)
    noticed = 0
    for place in rng.choice(np.arange(start, len(whole)), 300, replace=False).tolist():
        data = bytearray(whole)
        data[place] ^= 1 << rng.integers(8)
        file.write_bytes(data)
        try:
            np.testing.assert_array_equal(FeatureStore(store.path).to_numpy().view(np.uint32), values)
        except StoreError:
            noticed += 1
    assert noticed > 100


def chunk_with(path: Path, change: Callable[[dict[int, Any]], Any]) -> tuple[Chunk, bytes]:
    """Return a chunk of one page and its bytes, with another header: no checksum covers that."""
    with pq.ParquetFile(path) as parquet:
        (chunk,) = find_chunks(parquet, path.stat().st_size, "v")[1]
    assert chunk
    data = path.read_bytes()[chunk.offset : chunk.offset + chunk.size]
    header, start = thrift.decode(data)
    change(header)
    changed = thrift.encode(header) + data[start:]
    return replace(chunk, offset=0, size=len(changed)), changed


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_damaged_header_of_a_page_is_refused(tmp_path: Path, compression: str) -> None:
    X = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32)
    pq.write_table(table(X), tmp_path / "t.parquet", compression=compression, use_dictionary=False)
    to = np.zeros_like(X)
    values = (None, -1, 2**31 - 1, 2**40, -(2**63), b"x", True, thrift.Double(8))
    for inner, field, value in itertools.product((False, True), (1, 2, 3, 4), values):

        def change(header: dict[int, Any], inner: bool = inner, field: int = field, value: Any = value) -> None:
            struct = header[5] if inner else header
            struct.pop(field, None)
            struct |= {} if value is None else {field: value}

        chunk, data = chunk_with(tmp_path / "t.parquet", change)
        with contextlib.suppress(OSError, UnusualLayoutError):
            read_chunk(pa.BufferReader(data), chunk, 7, to)
            np.testing.assert_array_equal(to, X)


def test_other_encoding_than_the_footer_names_is_an_error(tmp_path: Path) -> None:
    X = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32)
    split = {"use_byte_stream_split": ["v.list.element"], "use_dictionary": False, "compression": "none"}
    pq.write_table(table(X), tmp_path / "t.parquet", **split)
    chunk, data = chunk_with(tmp_path / "t.parquet", lambda header: header[5].update({2: 0}))
    with pytest.raises(OSError, match="another encoding than the footer"):
        read_chunk(pa.BufferReader(data), chunk, 7, np.empty_like(X))


def test_take_reads_rows_in_the_given_order(tmp_path: Path) -> None:
    X = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    store = make_store(tmp_path / "store", X)
    np.testing.assert_array_equal(store.take(["row-007", "row-002", "row-007"]), X[[7, 2, 7]])
    assert store.take([]).shape == (0, 4)
    with pytest.raises(UsageError, match="1 of 2 ids, such as 'row-099', are not in"):
        store.take(["row-001", "row-099"])


def test_read_vectors_skips_unwanted_rows(tmp_path: Path) -> None:
    X = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    store = make_store(tmp_path / "store", X)
    ids = pa.array([f"row-{i:03d}" for i in range(1, 9)])
    _, vectors = read_vectors(store.table, "embedding", 4, ids)
    np.testing.assert_array_equal(vectors, X[1:])
