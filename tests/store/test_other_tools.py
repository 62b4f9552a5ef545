"""Stores that delta-rs or Polars changed: their rows are read, or refused in one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, TableFeatures, write_deltalake
from deltalake.transaction import AddAction
from stored import make_store

from embedpipe import FeatureStore
from embedpipe.errors import StoreError
from embedpipe.store.schema import matrix

X = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
IDS = [f"row-{i:03d}" for i in range(9)]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return make_store(tmp_path / "store", X, label=["a", "b", "c"] * 3).path


def delete(path: str) -> None:
    DeltaTable(path).delete("id = 'row-003'")


def update(path: str) -> None:
    DeltaTable(path).update({"label": "'z'"}, predicate="id = 'row-003'")


def merge(path: str) -> None:
    rows = FeatureStore(path).to_arrow().slice(3, 1)
    rows = rows.set_column(rows.schema.get_field_index("label"), "label", pa.array(["z"]))
    merged = DeltaTable(path).merge(rows, "s.id = t.id", "s", "t")
    merged.when_matched_update_all().when_not_matched_insert_all().execute()


def append_by_polars(path: str) -> None:
    FeatureStore(path).remove(["row-003"])
    frame = pl.from_arrow(FeatureStore(path).to_arrow().slice(3, 1))
    frame = frame.with_columns(id=pl.lit("row-003"), label=pl.lit("z"))
    frame = frame.with_columns(embedding=pl.Series([X[3].tolist()], dtype=pl.List(pl.Float32)))
    frame.write_delta(path, mode="append")


def optimize(path: str) -> None:
    FeatureStore(path).label(pa.table({"id": ["row-003"], "label": ["z"]}))
    DeltaTable(path).optimize.z_order(["id"])


def overwrite_with_large_types(path: str) -> None:
    rows = FeatureStore(path).to_arrow()
    rows = rows.set_column(rows.schema.get_field_index("label"), "label", pa.array(["z"] * 9))
    rows = rows.set_column(0, "id", rows.column("id").cast(pa.large_string()))
    at = rows.schema.get_field_index("embedding")
    rows = rows.set_column(at, "embedding", rows.column("embedding").cast(pa.large_list(pa.float32())))
    write_deltalake(path, rows, mode="overwrite")


@pytest.mark.parametrize("change", [delete, update, merge, append_by_polars, optimize, overwrite_with_large_types])
def test_rows_that_other_tools_changed_are_read_and_written(path: str, change: Callable[[str], None]) -> None:
    change(path)
    left = [i for i in range(9) if change is not delete or i != 3]
    ids = [IDS[i] for i in left]
    store = FeatureStore(path)
    assert store.ids() == ids
    np.testing.assert_array_equal(store.to_numpy(), X[left])
    np.testing.assert_array_equal(store.take(["row-005", "row-001"]), X[[5, 1]])
    if change is not delete:
        assert store.to_arrow(["label"])["label"][3].as_py() == "z"
    store.label(pa.table({"id": ["row-008"], "label": ["new"]}))
    assert store.remove(["row-001"]).removed == 1
    FeatureStore(path).compact()
    healed = FeatureStore(path)
    assert all(file.is_own for file in healed.table.files)
    assert healed.to_arrow(["label"])["label"][-1].as_py() == "new"
    np.testing.assert_array_equal(healed.to_numpy(), X[[i for i in left if i != 1]])


def test_compact_heals_a_single_file_of_another_tool(path: str) -> None:
    delete(path)
    assert FeatureStore(path).compact() == 1
    assert FeatureStore(path).compact() == 0


def test_restored_version_is_read(path: str) -> None:
    version = FeatureStore(path).version
    FeatureStore(path).remove(["row-003"])
    DeltaTable(path).restore(version)
    np.testing.assert_array_equal(FeatureStore(path).to_numpy(), X)


def test_ids_that_another_tool_doubled_are_refused(path: str) -> None:
    pl.from_arrow(FeatureStore(path).to_arrow().slice(0, 2)).write_delta(path, mode="append")
    store = FeatureStore(path)
    for read in (store.ids, store.to_numpy, store.to_arrow, store.compact, lambda: store.take(["row-001"])):
        with pytest.raises(StoreError, match="must be unique, and one occurs twice: run `embedpipe repair"):
            read()


def test_vectors_with_missing_values_are_refused(path: str) -> None:
    store = FeatureStore(path)
    file = Path(path) / store.table.files[0].path
    rows = pq.read_table(file, partitioning=None)
    holes = [None if i else 1.0 for i in range(4)]
    at = rows.schema.get_field_index("embedding")
    column = pa.array([holes] * 9, pa.list_(pa.float32()))
    with pytest.raises(StoreError, match="vectors with missing values"):
        matrix(column, 4, "embedding")
    pq.write_table(rows.set_column(at, "embedding", column), file)
    with pytest.raises(StoreError, match=rf"{file.name}.* columns \['embedding'\] of another type"):
        FeatureStore(path).to_numpy()


@pytest.mark.parametrize(
    ("feature", "name"),
    [
        (TableFeatures.DeletionVectors, "deletionVectors"),
        (TableFeatures.ColumnMapping, "columnMapping"),
        (TableFeatures.VariantType, "variantType"),
    ],
)
def test_features_that_change_what_rows_mean_are_refused(path: str, feature: TableFeatures, name: str) -> None:
    DeltaTable(path).alter.add_feature(feature, allow_protocol_versions_increase=True)
    with pytest.raises(StoreError, match=rf"another tool gave .* the Delta features \['{name}'\], which"):
        FeatureStore(path)


def test_feature_that_only_writers_must_know_is_read_and_not_written(path: str) -> None:
    DeltaTable(path).alter.add_feature(TableFeatures.ChangeDataFeed, allow_protocol_versions_increase=True)
    store = FeatureStore(path)
    np.testing.assert_array_equal(store.to_numpy(), X)
    with pytest.raises(StoreError, match=r"\['changeDataFeed'\], with which embedpipe cannot write"):
        store.remove(["row-003"])


def test_partitions_and_another_schema_are_refused(path: str, tmp_path: Path) -> None:
    rows = FeatureStore(path).to_arrow()
    write_deltalake(tmp_path / "parts", rows, partition_by=["label"])
    with pytest.raises(StoreError, match=r"partitioned .* by \['label'\], and a store has no partitions"):
        FeatureStore(tmp_path / "parts")
    pl.from_arrow(rows).write_delta(path, mode="overwrite", delta_write_options={"schema_mode": "overwrite"})
    with pytest.raises(StoreError, match="If another tool overwrote its columns, open an earlier"):
        FeatureStore(path)
    np.testing.assert_array_equal(FeatureStore(path, version=2).to_numpy(), X)


def edit_log(path: str, kind: str, key: str, value: object) -> None:
    """Change one value of an action in the whole log, and drop the checksums as an attacker would.

    A restored version has none.
    """
    for entry in Path(path, "_delta_log").glob("*.json"):
        actions = [json.loads(line) for line in entry.read_text().splitlines()]
        for action in actions:
            information = action.get("commitInfo", {})
            for setting in [name for name in information if name.startswith("embedpipe.")]:
                del information[setting]
            information |= {"operation": "RESTORE"} if information else {}
            if kind in action:
                action[kind][key] = value
        entry.write_text("".join(json.dumps(action) + "\n" for action in actions))


@pytest.mark.parametrize("name", ["../other/x.parquet", "/etc/x.parquet", "a/../../x.parquet", "s3://bucket/x.parquet"])
def test_log_that_names_files_elsewhere_is_refused(path: str, name: str) -> None:
    edit_log(path, "add", "path", name)
    with pytest.raises(StoreError, match=r"files of a store lie in its folder, and the log of .* names"):
        FeatureStore(path)


@pytest.mark.parametrize("id", ["../../../tmp/x", "/tmp/x", "a b", ""])
def test_table_id_that_is_a_path_is_refused(path: str, id: str) -> None:
    edit_log(path, "metaData", "id", id)
    with pytest.raises(StoreError, match="the id of a Delta table must be letters, digits and hyphens"):
        FeatureStore(path).mapped()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("use", ["open", "change", "exists"])
def test_forked_child_of_a_process_that_opened_a_store_is_refused(path: str, use: str) -> None:
    """In a process of its own, which has none of the locks and threads that other tests leave behind."""
    code = f"""
import os, sys
from embedpipe import FeatureStore
from embedpipe.errors import StoreError
path = {path!r}
store = FeatureStore(path)
actions = {{"open": lambda: FeatureStore(path), "change": store.refresh, "exists": lambda: FeatureStore.exists(path)}}
child = os.fork()
if not child:
    try:
        actions[{use!r}]()
    except StoreError as error:
        os._exit(42 if "forked from one that had opened a store" in str(error) else 1)
    os._exit(3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=100).returncode == 42


@pytest.mark.parametrize(
    "stats", [{"numRecords": -5}, {"minValues": {"id": "z"}, "maxValues": {"id": "a"}}], ids=["count", "order"]
)
def test_statistics_that_cannot_be_are_refused(path: str, stats: dict[str, object]) -> None:
    (file,) = FeatureStore(path).table.files
    statistics = {"numRecords": file.rows, "minValues": {"id": file.first}, "maxValues": {"id": file.last}, **stats}
    edit_log(path, "add", "path", "x.parquet")  # a name that holds no checksum, as those of other tools
    edit_log(path, "add", "stats", json.dumps(statistics | {"nullCount": {"id": 0}}))
    with pytest.raises(StoreError, match=r"the log of .* is damaged where it names 'x.parquet'"):
        FeatureStore(path)


def test_version_that_is_refused_is_refused_again(path: str) -> None:
    store, table = FeatureStore(path), DeltaTable(path)
    (file,) = store.table.files
    without_ids = AddAction("x.parquet", file.size, {}, 0, True, json.dumps({"numRecords": file.rows}))
    table.create_write_transaction([without_ids], "append", table.schema())
    for _ in range(2):
        with pytest.raises(StoreError, match=r"lack .* in the log: another tool wrote them"):
            store.refresh()
