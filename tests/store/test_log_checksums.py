"""Every piece of the log that embedpipe writes has a checksum, and an error names the file that is damaged."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stored import clusters, make_store

import embedpipe
from embedpipe import FeatureStore
from embedpipe.errors import Failure, StoreError, UsageError
from embedpipe.store.delta_log import Entry
from embedpipe.store.schema import SPEC_CHECKSUM_KEY, SPEC_KEY, spec_of, store_schema

X = clusters(9)[0]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a checkpoint at version 2, and labels that were set at version 4."""
    store = make_store(tmp_path_factory.mktemp("log") / "store", X, label=list("abcabcabc"))
    store.table.delta.create_checkpoint()
    store.label(pa.table({"id": ["row-000"], "label": ["z"]}))
    store.failures_table.record([Failure("x", None, "decode", "ValueError", "torn")], "made up")
    return Path(store.path)


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "store"))


def entry(path: Path, version: int) -> Path:
    return path / "_delta_log" / f"{version:020}.json"


def change(file: Path, old: bytes, new: bytes) -> None:
    data = file.read_bytes()
    assert old in data
    assert len(old) == len(new)
    file.write_bytes(data.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"set label", b"set lacel"),
        (b"embedpipe.operation", b"embedpipe.operatioo"),
        (b"embedpipe.operation", b"ambedpipe.operation"),
        (b"embedpipe.actions", b"embedpipe.actionr"),
        (b"embedpipe.schema", b"embedpipe.schemb"),
    ],
)
def test_note_of_a_commit_has_a_checksum(path: Path, old: bytes, new: bytes) -> None:
    change(entry(path, 4), old, new)
    with pytest.raises(StoreError, match=rf"{entry(path, 4).name} in the log .* does not have the checksum"):
        FeatureStore(path)
    embedpipe.repair(path)
    assert FeatureStore(path).counts("label") == {"a": 3, "b": 3, "c": 3}  # without the commit that cannot be trusted


def test_no_bytes_can_be_cut_out_of_an_entry(path: Path) -> None:
    """The seam may be JSON again, without the checksum and without the files."""

    def files(entry: Entry) -> list[Any]:
        added = [(add["path"], add["size"], add.get("stats")) for add in entry.named("add")]
        return [added, [remove["path"] for remove in entry.named("remove")], [*entry.named("metaData")]]

    data = entry(path, 4).read_bytes()
    ends = [match.start() for match in re.finditer(rb'[,{}":\n]', data)]
    cut = (Entry(data[:start] + data[end:]) for start in range(0, len(data), 3) for end in ends if end > start)
    assert not [left.actions for left in cut if not left.damage and files(left) != files(Entry(data))]


def test_history_before_a_checkpoint_is_compared_with_its_checksums(path: Path) -> None:
    rows = FeatureStore(path).to_arrow()
    change(entry(path, 2), b"embedpipe.schema", b"embedpipe.schemb")
    store = FeatureStore(path)  # the checkpoint holds what the entry said
    with pytest.raises(StoreError, match=rf"{entry(path, 2).name} in the log .*run `embedpipe repair"):
        store.history()
    assert "put aside, as a later checkpoint" in embedpipe.repair(path).done[0]
    store = FeatureStore(path)
    assert store.to_arrow().equals(rows)
    assert [commit["version"] for commit in store.history()] == [4, 3, 1, 0]
    assert store.history(1)[0]["embedpipe.operation"] == "set label"


def edit_checkpoint(folder: Path, kind: str, edit: Callable[[dict[str, Any]], None]) -> Path:
    """Edit the actions of a kind in the checkpoint, without the entries after it; return its file."""
    file = next((folder / "_delta_log").glob("*.checkpoint.parquet"))
    rows = pq.read_table(file, partitioning=None)
    actions = rows.column(kind).to_pylist()
    for each in filter(None, actions):
        edit(each)
    at = rows.schema.get_field_index(kind)
    pq.write_table(rows.set_column(at, rows.field(at), pa.array(actions, rows.field(at).type)), file)
    entry(folder, 3).unlink()
    entry(folder, 4).unlink()
    return file


def test_checkpoint_with_other_columns_is_named(path: Path) -> None:
    def edit(metadata: dict[str, Any]) -> None:
        metadata["schemaString"] = metadata["schemaString"].replace('"label"', '"lacel"')
        metadata["configuration"] = []

    file = edit_checkpoint(path, "metaData", edit)
    with pytest.raises(StoreError, match=rf"{file.name} in the log of .* names other columns than its last commit"):
        FeatureStore(path)


@pytest.mark.parametrize("place", [7, 20])
def test_checkpoint_that_names_another_file_is_named(path: Path, place: int) -> None:
    def edit(add: dict[str, Any]) -> None:
        old = add["path"]
        add["path"] = old[:place] + ("0" if old[place] != "0" else "1") + old[place + 1 :]
        add["partitionValues"] = []

    file = edit_checkpoint(path, "add", edit)
    with pytest.raises(StoreError, match=rf"{file.name} in the log of .* is damaged where it names 'part-"):
        FeatureStore(path)


def test_action_of_an_unknown_kind_is_named(path: Path) -> None:
    change(entry(path, 4), b'"commitInfo"', b'"commItInfo"')
    with pytest.raises(StoreError, match=rf"{entry(path, 4).name} in the log"):
        FeatureStore(path).history()


def test_entry_with_a_schema_that_cannot_be_read_is_named(path: Path) -> None:
    change(entry(path / "_failures", 0), rb"{\"name\":\"message\"", rb"{\"nome\":\"message\"")
    with pytest.raises(StoreError, match=rf"{entry(path, 0).name} in the log of .*_failures"):
        FeatureStore(path).failures()


def test_file_with_a_column_of_another_type_is_named(path: Path) -> None:
    file = next((path / "_failures").glob("*.parquet"))
    rows = pq.read_table(file, partitioning=None)
    numbers = rows.column("when").cast(pa.int64())
    pq.write_table(rows.set_column(rows.schema.get_field_index("when"), "when", numbers), file)
    with pytest.raises(StoreError, match=rf"{file.name}.* columns \['when'\] of another type"):
        FeatureStore(path).failures()


@pytest.mark.parametrize("values", [[1.5], ["no time"], [True], [3]])
def test_value_that_is_not_a_time_is_refused(tmp_path: Path, values: list[Any]) -> None:
    store = make_store(tmp_path / "store", X[:1], taken=pa.array([np.datetime64("2026-01-02T03:04:05", "us")]))
    with pytest.raises(StoreError, match=r"column 'taken' holds .* values that do not fit the type timestamp"):
        store.label(pa.table({"id": ["row-000"], "taken": values}), label="taken", into="taken")


def test_store_whose_spec_lost_its_checksum_is_refused(path: Path) -> None:
    field = store_schema(FeatureStore(path).spec).field("embedding")
    for other in ({SPEC_CHECKSUM_KEY: b"0" * 32}, {b"embedpipe.spec.checksun": field.metadata[SPEC_CHECKSUM_KEY]}):
        metadata = {SPEC_KEY: field.metadata[SPEC_KEY], **other}
        with pytest.raises(StoreError, match="the spec in the log of this store is damaged"):
            spec_of(pa.schema([field.with_metadata(metadata)]))


def test_label_finds_rows_that_were_committed_after_the_store_was_opened(tmp_path: Path) -> None:
    make_store(tmp_path / "store", X[:2])
    opened = FeatureStore(tmp_path / "store")
    rows = FeatureStore(tmp_path / "store")
    rows.write(rows.to_arrow().slice(1).set_column(0, "id", pa.array(["new"])))
    assert opened.label(pa.table({"id": ["new"], "label": ["a"]})).replaced == 1
    with pytest.raises(UsageError, match="none of the 1 ids"):
        opened.label(pa.table({"id": ["other"], "label": ["a"]}))


def test_numbers_in_a_note_stay_exact(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", X[:1], label=["a"])
    values = [*np.random.default_rng(0).standard_normal(200).tolist(), 1e300, 2**70, None]
    store.write(store.to_arrow().set_column(0, "id", pa.array(["new"])), {"embedpipe.values": values})
    assert json.loads(FeatureStore(store.path).history(1)[0]["embedpipe.values"]) == values
