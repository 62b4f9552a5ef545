"""`KeyedTable`: unique ids, atomic commits, reads in id order."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from embedpipe.errors import StoreError, StoreNotFoundError
from embedpipe.store import data_files, delta_log, keyed_table, maintenance
from embedpipe.store.delta_log import Change
from embedpipe.store.keyed_table import KeyedTable
from embedpipe.store.maintenance import compact
from embedpipe.store.schema import VECTOR, vector_column

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("content_hash", pa.string(), nullable=False),
        pa.field("embedding", VECTOR, nullable=False, metadata={b"embedpipe.spec": b"{}"}),
    ]
)


def rows(ids: list[str], content: str = "a", dim: int = 3, **extra: list) -> pa.Table:
    values = np.arange(len(ids) * dim, dtype=np.float32).reshape(-1, dim)
    return pa.table({"id": ids, "content_hash": [content] * len(ids), "embedding": vector_column(values), **extra})


@pytest.fixture
def table(tmp_path: Path) -> KeyedTable:
    return KeyedTable.create(str(tmp_path / "t"), SCHEMA)


def test_upsert_adds_replaces_and_keeps_equal_rows(table: KeyedTable) -> None:
    assert table.upsert(rows(["b", "a"])) == Change(added=2)
    assert table.read(["id"])["id"].to_pylist() == ["a", "b"]
    version = table.version
    assert table.upsert(rows(["a", "b"])) == Change(unchanged=2)
    assert table.version == version, "no change must mean no commit"
    assert table.upsert(rows(["b", "c"], content="new")) == Change(added=1, replaced=1)
    assert table.read().select(["id", "content_hash"]).to_pylist() == [
        {"id": "a", "content_hash": "a"},
        {"id": "b", "content_hash": "new"},
        {"id": "c", "content_hash": "new"},
    ]


def test_delete_drops_rows(table: KeyedTable) -> None:
    table.upsert(rows(["a", "b", "c"]))
    assert table.delete(pa.array(["b", "nowhere"])) == Change(removed=1)
    assert KeyedTable(table.path).read(["id"])["id"].to_pylist() == ["a", "c"]
    assert table.delete(pa.array(["a", "c"])) == Change(removed=2)
    assert len(table) == 0
    assert table.read().num_rows == 0


def test_upsert_adds_columns_with_null_in_older_rows(table: KeyedTable) -> None:
    table.upsert(rows(["a"]))
    table.upsert(rows(["b"], label=["cat"], weight=pa.array([1], pa.uint8()), empty=pa.nulls(1)))
    assert table.read(["id", "label", "weight"]).to_pylist() == [
        {"id": "a", "label": None, "weight": None},
        {"id": "b", "label": "cat", "weight": 1},
    ]
    assert "empty" not in table.schema.names
    assert table.schema.field("embedding").metadata == {b"embedpipe.spec": b"{}"}
    with pytest.raises(StoreError, match=r"'weight'.*do not fit the type int32"):
        table.upsert(rows(["c"], weight=["heavy"]))


def test_nan_metadata_counts_as_unchanged(table: KeyedTable) -> None:
    table.upsert(rows(["a", "b", "c"], score=[float("nan"), None, 1.0]))
    assert table.upsert(rows(["c", "a", "b"], score=[1.0, float("nan"), None])) == Change(unchanged=3)
    assert table.upsert(rows(["a", "b", "c"], score=[None, float("nan"), None])) == Change(replaced=3)


def test_old_version_is_read_only(table: KeyedTable) -> None:
    table.upsert(rows(["a"]))
    version = table.version
    table.upsert(rows(["b"]))
    old = KeyedTable(table.path, version)
    assert old.read(["id"])["id"].to_pylist() == ["a"]
    with pytest.raises(StoreError, match="open read-only at version"):
        old.upsert(rows(["c"]))
    with pytest.raises(StoreNotFoundError, match=r"version must be 0 to .*, got 99"):
        KeyedTable(table.path, 99)


def test_time_in_the_place_of_a_version_is_refused_at_once(table: KeyedTable, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int | None] = []

    def open_delta(path: str, version: int | None = None) -> DeltaTable:
        opened.append(version)
        return delta_log.open_delta(path, None if version and version > 1000 else version)

    monkeypatch.setattr(keyed_table, "open_delta", open_delta)
    with pytest.raises(StoreNotFoundError, match=r"version must be 0 to 0 for .*, got 1796077474"):
        KeyedTable(table.path, version=1796077474)
    assert opened == [None, None]


def test_compact_keeps_rows_and_merges_files(table: KeyedTable) -> None:
    for id in "gbdacfe":
        table.upsert(rows([id], content=id))
    before = table.read().to_pylist()
    assert compact(table) == 7
    assert len(table.files) == 1
    assert table.read().to_pylist() == before
    assert compact(table) == 0


def test_file_size_is_bounded(table: KeyedTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_files, "FILE_BYTES", 3 * (512 + 12))
    table.upsert(rows([f"{i:02d}" for i in range(10)]))
    assert sorted(file.rows for file in table.files) == [1, 3, 3, 3]
    table.upsert(rows(["04"], content="new"))
    assert len(table) == 10
    assert len(set(table.read(["id"])["id"].to_pylist())) == 10


def test_ids_that_are_not_kept_are_read_again(table: KeyedTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyed_table, "KEPT_BYTES", 1)
    for ids in ("ac", "bd", "ce"):
        table.upsert(rows([*ids]))
    assert table.upsert(rows(["a", "d", "f"], content="new")) == Change(added=1, replaced=2)
    assert table.read(["id"])["id"].to_pylist() == [*"abcdef"]


def test_missing_file_is_named(table: KeyedTable) -> None:
    table.upsert(rows(["a"]))
    (Path(table.path) / table.files[0].path).unlink()
    with pytest.raises(StoreError, match=table.files[0].path):
        table.read()


def test_missing_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match="there is no feature store at"):
        KeyedTable(str(tmp_path / "nowhere"))


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["upsert", "delete", "compact"]),
            st.sets(st.sampled_from(["a", "b", "c", "é", "z\n", "\U0001f600", ""])),
            st.sampled_from(["x", "y"]),
        ),
        max_size=6,
    )
)
def test_table_behaves_like_a_dict(tmp_path_factory: pytest.TempPathFactory, steps: list) -> None:
    table = KeyedTable.create(str(tmp_path_factory.mktemp("t")), SCHEMA)
    expected: dict[str, str] = {}
    for action, ids, content in steps:
        if action == "upsert":
            table.upsert(rows(sorted(ids), content))
            expected.update(dict.fromkeys(ids, content))
        elif action == "delete":
            table.delete(pa.array(sorted(ids), pa.string()))
            expected = {id: c for id, c in expected.items() if id not in ids}
        else:
            compact(table)
    stored = KeyedTable(table.path).read(["id", "content_hash"])
    assert stored["id"].to_pylist() == sorted(expected)
    assert dict(zip(stored["id"].to_pylist(), stored["content_hash"].to_pylist(), strict=True)) == expected


WRITER = """
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
import pyarrow as pa
from embedpipe.store.keyed_table import KeyedTable
from embedpipe.store.maintenance import compact
from embedpipe.store.schema import vector_column
import numpy as np

path, start = sys.argv[1], int(sys.argv[2])
table = KeyedTable(path)
for i in range(start, start + 60, 6):
    ids = [f"{j:03d}" for j in range(i, i + 9)]
    vectors = vector_column(np.ones((9, 3), np.float32))
    table.upsert(pa.table({"id": ids, "content_hash": ["a"] * 9, "embedding": vectors}))
table.delete(pa.array([f"{start:03d}"]))
compact(table)
"""


def test_concurrent_writers_lose_and_repeat_no_row(table: KeyedTable) -> None:
    command = [sys.executable, "-c", WRITER, table.path]
    processes = [subprocess.Popen([*command, start]) for start in ("0", "20", "40")]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    ids = KeyedTable(table.path).read(["id"])["id"].to_pylist()
    assert len(ids) == len(set(ids))
    maybe_deleted = {"000", "020", "040"}
    assert set(ids) | maybe_deleted == {f"{i:03d}" for i in range(103)}
    assert "000" not in ids
    files = {path.name for path in Path(table.path).glob("*.parquet")}
    assert {file.path for file in KeyedTable(table.path).files} <= files


def test_writers_that_create_a_table_at_once_make_one(tmp_path: Path) -> None:
    for number in range(5):
        path, together = str(tmp_path / f"t{number}"), threading.Barrier(4)

        def create(path: str = path, together: threading.Barrier = together) -> str:
            together.wait()
            return str(KeyedTable.create(path, SCHEMA).delta.metadata().id)

        with ThreadPoolExecutor(4) as pool:
            ids = {made.result() for made in [pool.submit(create) for _ in range(4)]}
        assert ids == {str(KeyedTable(path).delta.metadata().id)}
        assert KeyedTable(path).version == 0


def test_end_of_a_run_leaves_the_signs_of_another(table: KeyedTable, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Path(table.path) / maintenance.RUNS
    for run in ("ended", "begun"):
        (runs / run / "00000000").mkdir(parents=True)
    monkeypatch.setattr(maintenance, "runs_noted", lambda table: [])  # before the other run began
    for _ in range(2):  # as vacuum does at the same time
        maintenance.forget_run(table, "ended")
    assert [path.name for path in runs.iterdir()] == ["begun"]
