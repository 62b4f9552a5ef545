"""Compressed stores: less than half the size, with vectors rounded to 16-bit precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored import make_spec

from embedpipe import FeatureStore
from embedpipe.errors import UsageError
from embedpipe.store.schema import VECTOR, rounded, vector_column

X = np.random.default_rng(0).standard_normal((3000, 128)).astype(np.float32)


def as_rounded(values: np.ndarray) -> np.ndarray:
    column = rounded(pa.chunked_array([vector_column(values[None])]))
    assert column.type == VECTOR
    return column.chunk(0).flatten().to_numpy()


def rows(part: slice) -> pa.Table:
    ids = [f"{i:05d}" for i in range(part.start, part.stop)]
    return pa.table(
        {"id": ids, "content_hash": ids, "source_root": ["r"] * len(ids), "embedding": vector_column(X[part])}
    )


@given(st.lists(st.floats(width=32), min_size=1, max_size=20))
def test_rounding_keeps_16_bit_precision(given_values: list[float]) -> None:
    values = np.array(given_values, np.float32)
    result = as_rounded(values)
    np.testing.assert_array_equal(as_rounded(result), result, "rounding twice changes nothing")
    finite = np.isfinite(values)
    np.testing.assert_array_equal(np.isfinite(result), finite)
    normal = finite & (np.abs(values) >= np.finfo(np.float32).tiny)
    with np.errstate(all="ignore"):
        moved = np.abs(result[normal].astype(float) / values[normal].astype(float) - 1)
    assert (moved <= 2**-11).all()
    in_range = (np.abs(values) >= 2.0**-14) & (np.abs(values) <= 65504)
    np.testing.assert_array_equal(result[in_range], values[in_range].astype(np.float16))


def test_rounding_keeps_values_out_of_16_bit_range() -> None:
    values = np.array([1e30, -7e4, 1e-20, 3.4028235e38, np.inf, -np.inf, np.nan, 0.0, -0.0], np.float32)
    np.testing.assert_allclose(as_rounded(values), values, rtol=2**-11)
    assert np.signbit(as_rounded(values)[-1])


def test_compressed_store_is_small_and_stays_compressed(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "store", make_spec(128), compress=True)
    assert store.compressed
    for start in range(0, 3000, 1000):
        FeatureStore.create(tmp_path / "store", make_spec(128)).write(rows(slice(start, start + 1000)))
    expected = X.astype(np.float16).astype(np.float32)
    tiny = np.abs(X) < 2.0**-14  # these keep more precision than a 16-bit float

    def check() -> None:
        read = FeatureStore(store.path)
        assert read.compressed
        assert sum(file.size for file in read.table.files) <= 0.5 * X.nbytes
        vectors = read.to_numpy()
        np.testing.assert_array_equal(vectors[~tiny], expected[~tiny])
        np.testing.assert_allclose(vectors, X, rtol=2**-11)

    check()
    assert store.refresh().compact() == 3
    check()
    store.label(pa.table({"id": ["00007"], "label": ["new"]}))
    check()


def test_existing_store_cannot_be_compressed(tmp_path: Path) -> None:
    FeatureStore.create(tmp_path / "plain", make_spec(128))
    assert not FeatureStore(tmp_path / "plain").compressed
    with pytest.raises(UsageError, match="cannot be compressed later"):
        FeatureStore.create(tmp_path / "plain", make_spec(128), compress=True)


def test_polars_reads_a_compressed_store(tmp_path: Path) -> None:
    import polars as pl

    store = FeatureStore.create(tmp_path / "store", make_spec(128), compress=True)
    store.write(rows(slice(0, 10)))
    frame = pl.read_delta(store.path)
    assert frame.schema["embedding"] == pl.List(pl.Float32)
    np.testing.assert_array_equal(np.array(frame["embedding"].to_list(), np.float32), store.refresh().to_numpy())
