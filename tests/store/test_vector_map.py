"""`VectorMap`: the vectors of exactly one version, with damage detected."""

from __future__ import annotations

import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from stored import make_store

from embedpipe import FeatureStore
from embedpipe.errors import StoreError, UsageError
from embedpipe.store.mapping import vector_map
from embedpipe.store.mapping.mapped_vectors import DamagedMapError
from embedpipe.store.mapping.vector_map import find_map
from embedpipe.store.scan import read_layers

X = np.random.default_rng(0).standard_normal((700, 6)).astype(np.float32)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMBEDPIPE_CACHE", str(tmp_path / "cache"))
    vector_map._open.cache_clear()
    return tmp_path / "cache"


@pytest.fixture
def store(tmp_path: Path, cache: Path) -> FeatureStore:
    return make_store(tmp_path / "store", X)


def has_map(store: FeatureStore) -> bool:
    return find_map(store.table, "embedding", 6) is not None


def maps(cache: Path) -> list[Path]:
    return sorted((cache / "vectors").glob("*/*"))


def test_map_holds_the_vectors(store: FeatureStore) -> None:
    assert not has_map(store)
    mapped = store.mapped()
    np.testing.assert_array_equal(mapped, X)
    assert not mapped.flags.writeable
    assert mapped is store.mapped(), "the map is written once"
    copy = store.to_numpy()
    np.testing.assert_array_equal(copy, X)
    assert copy.flags.writeable


def test_take_reads_rows_from_the_map(store: FeatureStore) -> None:
    store.mapped()
    ids = store.ids()
    for rows in ([3], [5, 5, 0, 699], list(range(699, -1, -1))):
        np.testing.assert_array_equal(store.take([ids[row] for row in rows]), X[rows])
    with pytest.raises(UsageError, match="2 of 3 ids, such as 'a', are not in"):
        store.take(["a", "row-001", "z"])
    assert store.take([]).shape == (0, 6)


def test_reads_use_the_map(store: FeatureStore) -> None:
    store.mapped()
    for file in store.table.files:
        (Path(store.path) / file.path).unlink()
    np.testing.assert_array_equal(store.to_numpy(), X)
    np.testing.assert_array_equal(FeatureStore(store.path).take(["row-010"]), X[[10]])


def test_new_version_has_a_new_map(store: FeatureStore, cache: Path) -> None:
    first = store.mapped()
    store.remove(["row-000"])
    newer = FeatureStore(store.path)
    assert not has_map(newer)
    np.testing.assert_array_equal(newer.to_numpy(), X[1:])
    np.testing.assert_array_equal(newer.mapped(), X[1:])
    assert len(maps(cache)) == 1, "the old map is dropped"
    np.testing.assert_array_equal(first, X, "an open map stays readable")


def test_copy_of_a_store_has_another_map(store: FeatureStore, tmp_path: Path) -> None:
    shutil.copytree(store.path, tmp_path / "copy")
    copy = FeatureStore(tmp_path / "copy")
    store.mapped()
    assert not has_map(copy), "whoever made it chose its names of files"
    store.remove(["row-000"])
    copy.remove(["row-001"])
    store.refresh().mapped()
    assert copy.refresh().version == store.version
    assert not has_map(copy)


@pytest.mark.parametrize("name", ["vectors.npy", "ids.arrow", "about.json"])
@pytest.mark.parametrize("how", ["other bytes", "shorter", "gone"])
def test_damaged_map_is_written_again(store: FeatureStore, cache: Path, name: str, how: str) -> None:
    store.mapped()
    vector_map._open.cache_clear()
    file = maps(cache)[0] / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.unlink()  # the open map keeps the old file
    if how == "gone":
        assert not has_map(store)
    else:
        file.write_bytes(data if how == "other bytes" else data[:-8])
        with pytest.warns(UserWarning, match="memory map .* was damaged .* are read from the store"):
            np.testing.assert_array_equal(store.to_numpy(), X)
        assert not maps(cache)
    np.testing.assert_array_equal(store.to_numpy(), X)
    np.testing.assert_array_equal(store.mapped(), X)
    assert has_map(store)


@pytest.fixture
def wide(tmp_path: Path, cache: Path) -> tuple[FeatureStore, np.ndarray, Path]:
    """A store of 5.5 blocks, whose rows do not end where blocks do; its vectors and the file of its map."""
    vectors = np.random.default_rng(1).random((700, 2063), np.float32)
    made = make_store(tmp_path / "wide", vectors)
    made.mapped()
    vector_map._open.cache_clear()
    (folder,) = maps(cache)
    return made, vectors, folder / "vectors.npy"


def flip(file: Path, row: int, dim: int = 2063) -> None:
    """Flip one bit in a row of the map."""
    data = bytearray(file.read_bytes())
    data[len(data) - 4 * dim * (700 - row)] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("row", [0, 127, 128, 350, 699])
def test_every_read_of_a_damaged_block_is_noticed(wide: tuple[FeatureStore, np.ndarray, Path], row: int) -> None:
    _, vectors, file = wide
    reads = [
        lambda X: X[row],
        lambda X: X[row - 700],
        lambda X: X[max(0, row - 1) : row + 1],
        lambda X: X[::-1][699 - row],
        lambda X: X[row::-7],
        lambda X: X[[5, row]],
        lambda X: X[np.arange(700) == row],
        lambda X: X[row, :3],
        lambda X: X[..., 0],
        lambda X: X[np.array([[row]])],
        np.asarray,
        lambda X: X @ np.ones(2063, np.float32),
        lambda X: np.maximum(1, X),
        np.mean,
        lambda X: X.mean(axis=0),
        lambda X: X.T,
        lambda X: list(X),
        lambda X: X.copy(),
        lambda X: np.array(X, np.float64),
        pickle.dumps,
    ]
    flip(file, row)
    for read in reads:
        mapped = vector_map.VectorMap(file.parent).vectors
        mapped._drop = lambda: None
        with pytest.raises(DamagedMapError, match=rf"{file}' was damaged \(byte [\d,]+ of .* run this again"):
            read(mapped)
    elsewhere = (row + 300) % 700
    np.testing.assert_array_equal(mapped[elsewhere], vectors[elsewhere])


def test_mapped_vectors_are_used_as_an_array(wide: tuple[FeatureStore, np.ndarray, Path]) -> None:
    store, vectors, _ = wide
    X = store.mapped()
    assert (X.shape, X.dtype, X.ndim, X.nbytes, len(X)) == ((700, 2063), np.float32, 2, vectors.nbytes, 700)
    assert not X[3].flags.writeable
    for key in (3, -1, slice(2, 5), slice(None, None, -3), [7, 7, -700], np.arange(700) % 2 == 0, (4, slice(3)), ...):
        np.testing.assert_array_equal(X[key], vectors[key])
    np.testing.assert_array_equal(X[:0], vectors[:0])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(X)), vectors)
    np.testing.assert_array_equal(2 * X - vectors, vectors)
    with pytest.raises(IndexError):
        X[700]


@pytest.mark.parametrize("read", ["all rows", "some rows", "joined"])
def test_reads_around_a_damaged_map_are_right_and_reported(
    wide: tuple[FeatureStore, np.ndarray, Path], read: str
) -> None:
    store, vectors, file = wide
    flip(file, 350)
    layers = store.spec.layers if read != "joined" else (*store.spec.layers, *store.spec.layers)
    rows = np.arange(700) if read == "all rows" else np.array([3, 350])
    with pytest.warns(UserWarning, match=r"damaged \(byte 2,097,152 of its .* The vectors are read from the store"):
        _, got = read_layers(store.table, layers, pa.array([f"row-{i:03d}" for i in rows]))
    np.testing.assert_array_equal(got, np.hstack([vectors[rows]] * len(layers)))
    assert not file.exists()
    np.testing.assert_array_equal(store.mapped(), vectors)


def test_undamaged_blocks_of_a_damaged_map_are_read_from_many_threads(
    wide: tuple[FeatureStore, np.ndarray, Path],
) -> None:
    store, vectors, file = wide
    flip(file, 650)
    X = store.mapped()
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda row: X[row : row + 50], range(0, 500, 50)))
    np.testing.assert_array_equal(np.concatenate(parts), vectors[:500])
    assert file.exists()


def test_unusable_cache_folder_is_an_error(store: FeatureStore, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.raises(StoreError, match=r"cannot write a memory map of .* 16,800 bytes.* to_numpy.* EMBEDPIPE_CACHE"):
        store.mapped()


def test_failed_build_leaves_no_files(store: FeatureStore, cache: Path) -> None:
    (Path(store.path) / store.table.files[0].path).unlink()
    with pytest.raises(StoreError, match="no such file"):
        store.mapped()
    assert maps(cache) == []


def test_empty_store_has_an_empty_map(tmp_path: Path, cache: Path) -> None:
    empty = FeatureStore.create(tmp_path / "empty", make_store(tmp_path / "one", X[:1]).spec)
    assert empty.mapped().shape == (0, 6)
    assert empty.to_numpy().shape == (0, 6)
    with pytest.raises(UsageError, match="has no layer 'other'"):
        empty.mapped("other")


def test_map_finds_ids_of_any_characters(tmp_path: Path, cache: Path) -> None:
    ids = sorted({f"{chr(200 + i % 50)}/{i * 37 % 997}\n{'x' * (i % 90)}" for i in range(600)})
    made = make_store(tmp_path / "store", X[: len(ids)], id=ids)
    made.mapped()
    chosen = np.random.default_rng(1).choice(len(ids), 8, replace=False)
    vectors = find_map(made.table, "embedding", 6)
    assert vectors
    np.testing.assert_array_equal(vectors.rows(pa.array([ids[i] for i in chosen])), chosen)
    np.testing.assert_array_equal(vectors.rows(pa.array(["", "\U0001f600", None])), [-1, -1, -1])


@pytest.mark.parametrize(
    "text", ["[]", "null", "5", "{", '{"sizes": []}', '{"sizes": null}', '{"rows": 700, "dim": 6, "blocks": null}']
)
def test_map_with_invalid_metadata_is_written_again(store: FeatureStore, cache: Path, text: str) -> None:
    store.mapped()
    (folder,) = maps(cache)
    (folder / "about.json").write_text(text)
    vector_map._open.cache_clear()
    with pytest.warns(UserWarning, match="was damaged"):
        np.testing.assert_array_equal(store.mapped(), X)
    assert has_map(store)


@pytest.mark.parametrize("type", [b"'>f4'", b"'<i4'"])
def test_map_of_another_dtype_is_refused(store: FeatureStore, cache: Path, type: bytes) -> None:
    store.mapped()
    (folder,) = maps(cache)
    file = folder / "vectors.npy"
    file.write_bytes(file.read_bytes().replace(b"'<f4'", type, 1))
    vector_map._open.cache_clear()
    with pytest.warns(UserWarning, match=r"was damaged \(the size or the header of vectors.npy has changed\)"):
        assert not has_map(store)


def test_file_in_place_of_the_map_is_replaced(store: FeatureStore, cache: Path) -> None:
    store.mapped()
    (folder,) = maps(cache)
    shutil.rmtree(folder)
    folder.write_text("in the way")
    vector_map._open.cache_clear()
    np.testing.assert_array_equal(store.mapped(), X)


@pytest.mark.parametrize("ids", ["row-001", [1], [None], [b"row-001"]])
def test_ids_that_are_not_strings_are_refused(store: FeatureStore, ids: object) -> None:
    for read in (store.take, store.remove):
        with pytest.raises(UsageError, match="ids must be a sequence of strings"):
            read(ids)
