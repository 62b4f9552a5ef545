"""`FeatureStore`: reads, labels, vacuum and damaged files."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedpipe.backbones import LayerSpec
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.decoding import Preprocessing
from embedpipe.errors import SourceError, StoreError, StoreNotFoundError, UsageError
from embedpipe.store import FeatureStore, keyed_table
from embedpipe.store.keyed_table import KeyedTable
from embedpipe.store.schema import conform, matrix, storable, vector_column

SPEC = BackboneSpec("timm", "made-up", "0" * 64, True, (LayerSpec("features", "none", 4),), Preprocessing())


def rows(ids: list[str], seed: int = 0, **extra: object) -> pa.Table:
    X = np.random.default_rng(seed).normal(size=(len(ids), 4)).astype(np.float32)
    given = {
        "id": ids,
        "uri": ids,
        "content_hash": [f"{id:0>64}" for id in ids],
        "source_root": ["r"] * len(ids),
    }
    return pa.table({**given, "embedding": vector_column(X), **extra})


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore.create(tmp_path / "store", SPEC)


def test_reads_are_in_id_order(store: FeatureStore) -> None:
    parts = [rows(["d", "b"], 1), rows(["a", "c"], 2)]
    for part in parts:
        store.write(part)
    expected = {}
    for part in parts:
        expected |= dict(zip(part["id"].to_pylist(), matrix(part["embedding"], 4, "embedding"), strict=True))
    assert store.ids() == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(store.to_numpy(), [expected[id] for id in "abcd"])
    store.compact()
    np.testing.assert_array_equal(FeatureStore(store.path).to_numpy(), [expected[id] for id in "abcd"])


def test_earlier_version_is_unchanged(store: FeatureStore) -> None:
    store.write(rows(["a"]))
    version = store.version
    store.write(rows(["b"]))
    assert FeatureStore(store.path, version=version).ids() == ["a"]
    assert FeatureStore(store.path).ids() == ["a", "b"]


def test_label_sets_and_changes_values(store: FeatureStore) -> None:
    store.write(rows(["a", "b", "c"]))
    X = store.to_numpy()
    change = store.label(pa.table({"file": ["c", "a"], "kind": ["x", "y"]}), id="file", label="kind")
    assert (change.replaced, change.unchanged) == (2, 0)
    change = store.label(pa.table({"id": ["a", "c"], "label": ["z", "x"]}))
    assert (change.replaced, change.unchanged) == (1, 1)
    assert store.to_arrow(["label"])["label"].to_pylist() == ["z", None, "x"]
    np.testing.assert_array_equal(store.to_numpy(), X)


def test_to_numpy_suggests_the_nearest_column(store: FeatureStore) -> None:
    store.write(rows(["a"], label=["x"]))
    with pytest.raises(UsageError, match=r"no column 'kind'\. Available: .*id"):
        store.to_numpy("kind")
    with pytest.raises(UsageError, match="no column 'labl'; did you mean 'label'"):
        store.to_numpy(label="labl")


def test_label_refuses_wrong_tables(store: FeatureStore) -> None:
    store.write(rows(["a", "b", "c"]))
    with pytest.raises(UsageError, match="must be unique, and 'a' has several rows: give each item one"):
        store.label(pa.table({"id": ["a", "a"], "label": ["z", "x"]}))
    with pytest.raises(UsageError, match="reserved for the store"):
        store.label(pa.table({"id": ["a"], "label": ["z"]}), into="content_hash")
    with pytest.raises(UsageError, match=r"none of the 1 ids, such as 'c.jpg', is in .* whose ids are like 'a'"):
        store.label(pa.table({"id": ["c.jpg"], "label": ["z"]}))
    with pytest.raises(UsageError, match=r"no column 'name' \(id=\.\.\.\)"):
        store.label(pa.table({"id": ["a"], "label": ["z"]}), id="name")


def test_label_by_an_older_handle_keeps_other_changes(store: FeatureStore) -> None:
    store.write(rows(["a", "b"]))
    first, second = FeatureStore(store.path), FeatureStore(store.path)
    first.label(pa.table({"id": ["a"], "label": ["x"]}), into="first")
    store.refresh().remove(["b"])
    second.label(pa.table({"id": ["a", "b"], "label": ["y", "y"]}), into="second")
    assert store.refresh().to_arrow(["id", "first", "second"]).to_pylist() == [{"id": "a", "first": "x", "second": "y"}]
    for name in ("ID", "Embedding", "", "First", "a\0b"):
        with pytest.raises(UsageError, match=r"reserved|letter case|zero byte"):
            store.label(pa.table({"id": ["a"], "label": ["z"]}), into=name)


def test_create_refuses_invalid_paths() -> None:
    for path in (None, b"bytes", 5, "", "/"):
        with pytest.raises(UsageError, match="must be a folder or URL"):
            FeatureStore.create(path, SPEC)


def test_places_of_items_are_no_stores(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "photo.jpg").write_bytes(b"photo")
    latin = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    Path(latin).mkdir()
    for path in ("", "/", latin, tmp_path / "pipe.jpg", tmp_path / "photo.jpg", "/dev/zero"):
        assert not FeatureStore.exists(path)


def test_damaged_page_raises_store_error(store: FeatureStore) -> None:
    store.write(rows([f"{i:05d}" for i in range(3000)]))
    file = Path(store.path) / store.table.files[0].path
    payload = bytearray(file.read_bytes())
    payload[200:260] = b"\xff" * 60
    file.write_bytes(payload)
    with pytest.raises(StoreError, match=file.name):
        FeatureStore(store.path).to_arrow()


def test_damaged_name_of_a_column_raises_store_error(store: FeatureStore) -> None:
    """Arrow decodes names of columns when a file is opened."""
    store.write(rows(["a", "b"]))
    file = Path(store.path) / store.table.files[0].path
    file.write_bytes(file.read_bytes().replace(b"element", b"elem\xff\xfet"))
    with pytest.raises(StoreError, match=file.name):
        FeatureStore(store.path).to_arrow()
    with pytest.raises(StoreError, match=file.name):
        FeatureStore(store.path).to_numpy()


def test_polars_reads_a_store(store: FeatureStore) -> None:
    import polars as pl

    store.write(rows(["b", "a"], label=["x", "y"]))
    X = store.to_numpy()
    frame = pl.read_delta(store.path).sort("id")
    assert frame.schema["embedding"] == pl.List(pl.Float32)
    np.testing.assert_array_equal(np.array(frame["embedding"].to_list(), np.float32), X)


def test_duckdb_queries_a_store(store: FeatureStore) -> None:
    import duckdb

    store.write(rows(["b", "a"], label=["x", "y"]))
    features = store.to_dataset()
    result = duckdb.sql("select id, label, embedding from features order by id").fetchall()
    assert features.count_rows() == 2
    assert [row[:2] for row in result] == [("a", "y"), ("b", "x")]
    np.testing.assert_array_equal(np.array([row[2] for row in result], np.float32), store.to_numpy())
    assert duckdb.sql("select typeof(embedding) from features limit 1").fetchall() == [("FLOAT[]",)]
    assert duckdb.sql("select id from features where label = 'x'").fetchall() == [("b",)]
    assert duckdb.sql("select id from features where label is null or id = 'a'").fetchall() == [("a",)]
    assert store.to_dataset().count_rows(filter=pc.field("label").isin(["x", "z"])) == 1


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("id", ["b", "b"], "ids of new rows of .* must be unique, and 'b' occurs twice"),
        ("id", ["b", None], "must have a value in column 'id' each"),
        ("content_hash", [None, "x"], "must have a value in column 'content_hash' each"),
        ("embedding", [[1.0] * 4, [1.0] * 3], "must have 4 values in 'embedding' each"),
        ("embedding", [[1.0] * 4, [1.0] * 3 + [None]], "must have 4 values in 'embedding' each"),
    ],
)
def test_rows_that_would_make_a_store_unreadable_are_refused(
    store: FeatureStore, column: str, values: list[object], message: str
) -> None:
    store.write(rows(["a"]))
    bad = rows(["b", "c"])
    bad = bad.set_column(bad.column_names.index(column), column, pa.array(values, bad.schema.field(column).type))
    with pytest.raises(StoreError, match=message):
        store.write(bad)
    assert (store.refresh().ids(), store.to_numpy().shape) == (["a"], (1, 4))


def test_pandas_reads_a_store(store: FeatureStore) -> None:
    import pandas as pd

    store.write(rows(["b", "a"], label=["x", "y"]))
    frame = store.to_pandas(["id", "label"])
    assert isinstance(frame, pd.DataFrame)
    assert frame["label"].tolist() == ["y", "x"]


def test_frames_of_pandas_label_and_exclude_rows(store: FeatureStore) -> None:
    import pandas as pd

    store.write(rows(["a", "b", "c"]))
    frame = pd.DataFrame({"label": ["x", "y"], "excluded": ["blurred", None]}, pd.Index(["c", "b"], name="id"))
    assert store.label(frame).replaced == 2
    assert store.exclude(frame).replaced == 1
    assert store.to_arrow(["label"])["label"].to_pylist() == [None, "y", "x"]
    with pytest.raises(SourceError, match="the table cannot be read as an Arrow table"):
        store.label({"id": ["a"], "label": ["z"]})


def old_versions(store: FeatureStore) -> tuple[int, int]:
    """Write three versions, let all their files be old, and return the numbers of the first two."""
    versions = []
    for extra in ({}, {"label": ["new"]}, {"label": ["newer"]}):
        store.write(rows(["a"], **extra))
        versions.append(store.version)
    for path in Path(store.path).glob("*.parquet"):
        os.utime(path, (time.time() - 1000,) * 2)
    return versions[0], versions[1]


def test_vacuum_keeps_files_of_kept_versions(store: FeatureStore) -> None:
    kept, gone = old_versions(store)
    assert store.vacuum() == []
    assert len(store.vacuum(older_than_hours=0, keep_versions=[kept])) == 1
    version = store.version
    assert store.vacuum(older_than_hours=0, keep_versions=[kept]) == []
    assert store.version == version
    assert FeatureStore(store.path, kept).to_arrow(["id"]).num_rows == 1
    assert FeatureStore(store.path).to_arrow(["label"])["label"].to_pylist() == ["newer"]
    with pytest.raises(StoreError, match=r"missing or damaged: no such file \(vacuum deletes"):
        FeatureStore(store.path, gone).to_numpy()


@pytest.mark.parametrize("version", [-1, 99])
def test_vacuum_refuses_versions_that_do_not_exist(store: FeatureStore, version: int) -> None:
    with pytest.raises(UsageError, match=rf"keep_versions must be versions from 0 to \d+, got {version}"):
        store.vacuum(keep_versions=[version])


def test_vacuum_refuses_negative_hours(store: FeatureStore) -> None:
    with pytest.raises(UsageError, match="older_than_hours must be >= 0, got -1"):
        store.vacuum(older_than_hours=-1)


def test_vacuum_deletes_old_orphans_and_keeps_other_files(store: FeatureStore) -> None:
    store.write(rows(["a"]))
    old, young = (Path(store.path) / f"part-{seed * 8}-{seed * 32}-{seed * 8}.parquet" for seed in "01")
    notes = Path(store.path) / "notes.txt"
    for path in (old, young, notes):
        path.write_bytes(b"from a killed run, or of the user")
    for path in (old, notes):
        os.utime(path, (time.time() - 4000,) * 2)
    assert store.vacuum() == []
    assert store.vacuum(older_than_hours=0) == [old.name]
    assert not old.exists()
    assert young.exists(), "another process may be about to commit it"
    assert notes.exists()


def test_vacuum_of_a_store_that_was_opened_long_ago_keeps_what_others_committed_since(store: FeatureStore) -> None:
    store.write(rows(["a"]))
    opened = FeatureStore(store.path)
    store.write(rows(["b"]))
    for path in Path(store.path).glob("*.parquet"):
        os.utime(path, (time.time() - 4000,) * 2)
    assert opened.vacuum(older_than_hours=0) == []
    assert FeatureStore(store.path).to_numpy().shape == (2, 4)
    with pytest.raises(StoreError, match="open read-only at version"):
        FeatureStore(store.path, 1).vacuum()


def test_vacuum_keeps_files_of_a_run_that_goes_on(store: FeatureStore) -> None:
    def touch(path: Path, hours: float) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (time.time() - 3600 * hours,) * 2)
        return path

    folder = Path(store.path)
    before, during = (
        touch(folder / f"part-{seed * 8}-{seed * 32}-{seed * 8}.parquet", hours) for seed, hours in (("0", 9), ("1", 7))
    )
    signs = [touch(folder / "_runs" / "run" / task / "attempt-0", hours) for task, hours in (("0", 8), ("1", 6))]
    assert store.vacuum(older_than_hours=0) == [before.name]
    assert during.exists()
    for path in signs:
        touch(path, 25)
        touch(path.parent, 25)
    assert store.vacuum(older_than_hours=0) == [during.name], "a run that was killed keeps nothing for ever"
    assert not (folder / "_runs").exists()
    assert store.vacuum(older_than_hours=0) == []


def test_vacuum_between_write_and_commit_keeps_the_written_files(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(rows(["a"]))
    other = FeatureStore(store.path)
    write_files = keyed_table.write_files

    def then_vacuum(*args: object, **options: bool) -> list:
        actions = write_files(*args, **options)
        other.vacuum(older_than_hours=0)
        return actions

    monkeypatch.setattr(keyed_table, "write_files", then_vacuum)
    store.write(rows(["b"]))
    store.label(pa.table({"id": ["a"], "label": ["x"]}))
    assert FeatureStore(store.path).to_numpy().shape == (2, 4)


def test_vacuum_keeps_failures(store: FeatureStore) -> None:
    from embedpipe.errors import DecodeError, Failure

    store.write(rows(["a"]))
    store.failures_table.record([Failure.of("x", None, DecodeError("torn"))], "r")
    store.vacuum(older_than_hours=0)
    assert store.failures().to_pylist()[0]["message"] == "torn"


def test_missing_store_and_version_are_errors(tmp_path: Path, store: FeatureStore) -> None:
    with pytest.raises(StoreNotFoundError, match="embedpipe embed"):
        FeatureStore(tmp_path / "nowhere")
    KeyedTable.create(str(tmp_path / "plain"), pa.schema([pa.field("id", pa.string())]))
    with pytest.raises(StoreError, match="not a feature store"):
        FeatureStore(tmp_path / "plain")
    with pytest.raises(StoreNotFoundError, match=r"version must be 0 to 0 for .*, got 7"):
        FeatureStore(store.path, version=7)
    with pytest.raises(UsageError, match="limit must be >= 0, got -1"):
        store.history(-1)


def test_truncated_file_is_named(store: FeatureStore) -> None:
    store.write(rows(["a", "b"]))
    file = Path(store.path) / store.table.files[0].path
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(StoreError, match=file.name):
        FeatureStore(store.path).to_numpy()


def test_vectors_of_another_length_are_refused(store: FeatureStore) -> None:
    bad = rows(["a"]).set_column(4, "embedding", vector_column(np.ones((1, 3), np.float32)))
    store.table.upsert(bad)  # as another tool may write them
    with pytest.raises(StoreError, match="not 4 long"):
        store.to_numpy()


@given(st.integers(0, 5), st.integers(1, 7))
def test_vector_column_round_trips(count: int, dim: int) -> None:
    X = np.random.default_rng(count).normal(size=(count, dim)).astype(np.float32)
    np.testing.assert_array_equal(matrix(vector_column(X), dim, "x"), X)
    chunked = pa.chunked_array([vector_column(X), vector_column(X)])
    np.testing.assert_array_equal(matrix(chunked, dim, "x"), np.concatenate([X, X]))
    np.testing.assert_array_equal(matrix(vector_column(X)[1:], dim, "x"), X[1:])


@settings(deadline=None)
@given(
    st.sampled_from(
        [
            pa.array([1, None], pa.uint8()),
            pa.array([2**40, 1], pa.uint64()),
            pa.array(["a", None]).dictionary_encode(),
            pa.array(["a", "b"], pa.large_string()),
            pa.array([1, 2], pa.timestamp("ns")),
            pa.array([1, 2], pa.timestamp("s", tz="Europe/Paris")),
            pa.array([1, 2], pa.date64()),
            pa.array([1, 2], pa.time32("s")),
            pa.array([1.5, None], pa.float16()),
            pa.array([b"ab", b"cd"], pa.binary(2)),
            pa.array([True, None]),
        ]
    )
)
def test_scalar_columns_can_be_stored(column: pa.Array) -> None:
    table = storable(pa.table({"x": column}))
    assert table["x"].null_count == column.null_count
    assert conform(table, table.schema).equals(table)


def test_truth_values_as_python_writes_them_fit_their_column() -> None:
    schema = pa.schema([pa.field("x", pa.bool_())])
    assert conform(pa.table({"x": ["True", "false", None]}), schema)["x"].to_pylist() == [True, False, None]
    with pytest.raises(StoreError, match="do not fit the type bool"):
        conform(pa.table({"x": ["1"]}), schema)


def test_nested_metadata_is_refused() -> None:
    with pytest.raises(StoreError, match=r"cannot hold column 'tags' of type list<"):
        storable(pa.table({"tags": [[1, 2]]}))


def test_spec_round_trips(store: FeatureStore) -> None:
    assert store.spec == SPEC
    assert store.spec.fingerprint() == SPEC.fingerprint()
    assert pickle.loads(pickle.dumps(SPEC)) == SPEC
