"""`repair`: a damaged store is noticed by every verb, goes back to what is whole, and says what was lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from command import run
from deltalake import DeltaTable
from stored import make_store

import embedpipe
from embedpipe import FeatureStore
from embedpipe.errors import DecodeError, Failure, StoreError, StoreNotFoundError, WriteError

X = np.random.default_rng(0).standard_normal((12, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three commits of four rows, labels of the first four, and a failure."""
    folder = tmp_path_factory.mktemp("original")
    whole = make_store(folder / "whole", X)
    table = whole.to_arrow(["id", "content_hash", "source_root", "embedding"])
    store = FeatureStore.create(folder / "store", whole.spec)
    for first in (0, 4, 8):
        store.write(table.slice(first, 4))
    store.label(pa.table({"id": store.refresh().ids()[:4], "label": list("abcd")}))
    store.failures_table.record([Failure.of("x", None, DecodeError("torn"))], "r")
    return folder / "store"


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "store"))


def entry(path: Path, back: int = 0) -> Path:
    return sorted(path.glob("_delta_log/*.json"))[-1 - back]


def newest(path: Path) -> Path:
    """Return the data file of the last commit, which set labels of the first four rows."""
    added = [json.loads(line)["add"] for line in entry(path).read_text().splitlines() if "add" in json.loads(line)]
    return path / added[0]["path"]


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def halved(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def zeroed(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def without_last_line(file: Path) -> None:
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))


def with_another_id(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"row-003", b"row-002"))


def missing(file: Path) -> None:
    file.unlink()


def flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [emptied, halved, zeroed, without_last_line, with_another_id])
def test_damaged_last_entry_is_noticed_and_undone(path: Path, damage: Callable[[Path], None]) -> None:
    opened = FeatureStore(path, version=FeatureStore(path).version - 1)
    damage(entry(path))
    with pytest.raises(StoreError, match=rf"run `embedpipe repair {path}`"):
        FeatureStore(path)
    np.testing.assert_array_equal(opened.to_numpy(), X)
    report = embedpipe.repair(path)
    assert report.lost == 0
    assert "is undone" in report.done[0]
    store = FeatureStore(path)
    np.testing.assert_array_equal(store.to_numpy(), X)
    assert store.to_arrow(["label"])["label"].null_count == 12
    assert embedpipe.repair(path).done == ()
    store.label(pa.table({"id": ["row-003"], "label": ["again"]}))
    assert embedpipe.verify(store, sample=0).ok


@pytest.mark.parametrize("damage", [emptied, halved, without_last_line, missing])
def test_emptied_entry_is_noticed_by_an_open_store(path: Path, damage: Callable[[Path], None]) -> None:
    store = FeatureStore(path)
    entry(path).with_name(f"{store.version + 1:020}.json").write_bytes(entry(path).read_bytes())
    damage(entry(path))
    if damage is missing:
        assert store.refresh().version == FeatureStore(path).version
        return
    with pytest.raises(StoreError, match="run `embedpipe repair"):
        store.remove(["row-001"])


@pytest.mark.parametrize("back", [1, 2, 3])
@pytest.mark.parametrize("damage", [emptied, halved, without_last_line, flipped])
def test_commits_after_a_damaged_entry_are_kept(path: Path, damage: Callable[[Path], None], back: int) -> None:
    lines = entry(path, back).read_bytes()
    damage(entry(path, back))
    with pytest.raises(StoreError, match="run `embedpipe repair"):
        FeatureStore(path)
    report = embedpipe.repair(path)
    store = FeatureStore(path)
    assert report.lost == 0
    np.testing.assert_array_equal(store.to_numpy(), X)
    assert store.to_arrow(["label"])["label"].to_pylist()[:4] == list("abcd")
    assert embedpipe.repair(path).done == ()
    assert embedpipe.verify(path, sample=0).ok
    assert any("was kept" in each for each in report.done)
    kept = list(path.glob("_damaged/*.json"))
    assert lines not in [file.read_bytes() for file in kept]
    assert len(kept) == back + 1


@pytest.mark.parametrize("damage", [emptied, halved, zeroed, missing, flipped])
def test_damaged_file_is_dropped_and_its_rows_come_from_the_one_before(
    path: Path, damage: Callable[[Path], None]
) -> None:
    file = newest(path)
    damage(file)
    report = embedpipe.verify(path, sample=0)
    assert not report.ok
    assert file.name in report.checks[0].detail
    assert f"run `embedpipe repair {path}`" in report.checks[0].detail
    repaired = embedpipe.repair(path)
    assert (repaired.rows, repaired.lost, repaired.restored) == (12, 0, 4)
    store = FeatureStore(path)
    np.testing.assert_array_equal(store.to_numpy(), X)
    assert store.to_arrow(["label"])["label"].null_count == 12


def test_rows_without_an_earlier_file_are_lost_and_counted(path: Path) -> None:
    store = FeatureStore(path)
    store.vacuum(older_than_hours=0)
    newest(path).unlink()
    with pytest.raises(StoreError, match=rf"{newest(path).name}.* no such file: run `embedpipe repair"):
        FeatureStore(path).ids()
    report = embedpipe.repair(path)
    assert (report.rows, report.lost, report.restored) == (8, 4, 0)
    np.testing.assert_array_equal(FeatureStore(path).to_numpy(), X[4:])


@pytest.mark.parametrize("part", ["_last_checkpoint", "*.checkpoint.parquet"])
@pytest.mark.parametrize("damage", [emptied, halved, zeroed, missing])
def test_damaged_checkpoint_is_put_aside(path: Path, part: str, damage: Callable[[Path], None]) -> None:
    DeltaTable(path).create_checkpoint()
    store = FeatureStore(path)
    store.remove(["row-011"])
    (file,) = path.glob(f"_delta_log/{part}")
    damage(file)
    embedpipe.repair(path)
    np.testing.assert_array_equal(FeatureStore(path).to_numpy(), X[:-1])
    assert FeatureStore(path).remove(["row-010"]).removed == 1


def test_store_whose_creation_was_cut_off_can_be_made_again(tmp_path: Path) -> None:
    spec = make_store(tmp_path / "other", X).spec
    FeatureStore.create(tmp_path / "store", spec)
    emptied(entry(tmp_path / "store"))
    with pytest.raises(StoreError, match="run `embedpipe repair"):
        FeatureStore.create(tmp_path / "store", spec)
    report = embedpipe.repair(tmp_path / "store")
    assert (report.version, report.lost) == (-1, 0)
    assert len(FeatureStore.create(tmp_path / "store", spec)) == 0


@pytest.mark.parametrize("damage", [emptied, halved, missing])
def test_damaged_first_entry_is_made_again_from_a_data_file(path: Path, damage: Callable[[Path], None]) -> None:
    spec = FeatureStore(path).spec
    damage(path / "_delta_log" / f"{0:020}.json")
    with pytest.raises(StoreError, match="run `embedpipe repair"):
        FeatureStore(path)
    assert embedpipe.repair(path).lost == 0
    store = FeatureStore(path)
    assert store.spec == spec
    np.testing.assert_array_equal(store.to_numpy(), X)
    assert store.to_arrow(["label"])["label"].to_pylist()[:4] == list("abcd")


def test_store_without_a_whole_version_is_refused(tmp_path: Path) -> None:
    path = Path(make_store(tmp_path / "store", X).path)
    emptied(path / "_delta_log" / f"{0:020}.json")
    for file in path.glob("*.parquet"):
        file.unlink()
    with pytest.raises(StoreError, match=rf"{path}' cannot be repaired: .* no data file tells .* into a new store"):
        embedpipe.repair(path)
    with pytest.raises(StoreNotFoundError, match="there is no feature store"):
        embedpipe.repair(path / "nowhere")


@pytest.mark.parametrize("field", ["dataChange", "modificationTime", "partitionValues", "path"])
def test_field_of_an_action_with_another_name_is_noticed(path: Path, field: str) -> None:
    file = entry(path)
    file.write_text(file.read_text().replace(f'"{field}"', f'"{field[:-1]}_"'))
    with pytest.raises(StoreError, match="run `embedpipe repair"):
        FeatureStore(path)
    embedpipe.repair(path)
    np.testing.assert_array_equal(FeatureStore(path).to_numpy(), X)


def test_repeated_ids_keep_their_newest_row(path: Path) -> None:
    again = FeatureStore(path).to_arrow().slice(2, 2)
    again = again.set_column(again.schema.get_field_index("label"), "label", pa.array(["new", "new"]))
    pl.from_arrow(again).write_delta(str(path), mode="append")
    assert not embedpipe.verify(path, sample=0).ok
    report = embedpipe.repair(path)
    assert report.done == ("dropped, as a newer row has the same id: 2 rows",)
    store = FeatureStore(path)
    np.testing.assert_array_equal(store.to_numpy(), X)
    assert store.to_arrow(["label"])["label"].to_pylist()[:4] == ["a", "b", "new", "new"]


def test_failures_are_repaired_or_put_aside(path: Path) -> None:
    emptied(entry(path / "_failures", 1))
    assert embedpipe.repair(path).done[0].startswith("failures: ")
    assert FeatureStore(path).failures().num_rows == 1
    for file in (path / "_failures").rglob("*.*"):
        emptied(file)
    report = embedpipe.repair(path)
    assert report.done[0].startswith("failures: cannot be repaired and were put aside")
    assert FeatureStore(path).failures().num_rows == 0
    assert report.lost == 0


def test_leftovers_of_killed_commits_are_deleted(path: Path) -> None:
    old, young = (path / "_delta_log" / f"_commit_{name}.json.tmp" for name in ("old", "young"))
    for file in (old, young):
        file.write_bytes(b"{")
    os.utime(old, (time.time() - 4000,) * 2)
    assert embedpipe.repair(path).done == ("1 temporary files of commits that were killed: deleted",)
    assert not old.exists()
    assert young.exists()


def test_flipped_column_name_is_noticed(path: Path) -> None:
    file = newest(path)
    data = file.read_bytes()
    assert data.count(b"content_hash")
    file.write_bytes(data.replace(b"content_hash", b"content_hasi"))
    with pytest.raises(StoreError, match=r"the store has no columns \['content_hasi'\]: run `embedpipe repair"):
        FeatureStore(path).to_arrow()
    assert not embedpipe.verify(path, sample=0).ok


@pytest.mark.long
def test_command_says_what_was_done(path: Path) -> None:
    emptied(entry(path))
    result = run("fit", path)
    assert (result.exit_code, f"run `embedpipe repair {path}`" in result.output) == (1, True)
    result = run("repair", path)
    assert result.exit_code == 0
    assert result.output.endswith("is empty: version 5 is undone\nthe store is whole again: 12 rows at version 5\n")
    assert run("repair", path).output == "nothing is damaged: 12 rows at version 5\n"
    assert json.loads(run("repair", path, "--json").output)["lost"] == 0


def test_repair_on_a_full_disk_names_the_file_and_works_later(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    halved(entry(path))
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}

    def full(*_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name in ("write_bytes", "write_text", "mkdir"):
        with monkeypatch.context() as patched:
            patched.setattr(Path, name, full)
            with pytest.raises(WriteError, match=rf"cannot write '{path}.*No space left on device.*Make room"):
                embedpipe.repair(path)
        assert {file: file.read_bytes() for file in before} == before
    embedpipe.repair(path)
    np.testing.assert_array_equal(FeatureStore(path).to_numpy(), X)


TOO_MANY = OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("store.data_files.open_input", TOO_MANY),
        ("store.data_files.open_input", pa.lib.ArrowMemoryError("malloc of size 64 failed")),
        ("store.data_files.open_input", OSError("AWS Error ACCESS_DENIED during GetObject operation")),
        ("store.repairing.damage.file_checksum", TOO_MANY),
    ],
)
def test_file_that_cannot_be_read_for_now_is_not_dropped(
    path: Path, error: Exception, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    halved(entry(path, 1))

    def fail(*_: Any) -> NoReturn:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(f"embedpipe.{where}", fail)
        with pytest.raises((StoreError, OSError, MemoryError), match=r"open files|malloc|refuses the request"):
            embedpipe.repair(path)
    assert embedpipe.repair(path).lost == 0
    np.testing.assert_array_equal(FeatureStore(path).to_numpy(), X)
