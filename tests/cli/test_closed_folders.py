"""Stores and heads that this user may not open: messages say so, and nothing takes them for missing or damaged."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from closed import closed
from command import run
from deltalake.exceptions import DeltaError
from stored import clusters, make_store

from embedpipe import FeatureStore, repair
from embedpipe._utils.atomic import names_file
from embedpipe._utils.folder_kinds import check_file
from embedpipe.errors import HeadError, StoreError, UsageError, WriteError
from embedpipe.heads import load_head
from embedpipe.store.data_files import reason

MUST = "must be open to this user, and permission is denied: change it (chmod), or ask its owner"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("open")
    X, y = clusters(30)
    make_store(folder / "a.features", X, label=[f"class {number}" for number in y])
    run("fit", folder / "a.features", "--head", "centroid", "--to", folder / "a.head")
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "parent"))


@pytest.mark.parametrize(
    ("verb", "place"),
    [
        *((verb, "a.features") for verb in ("info", "verify", "repair", "compact", "vacuum", "clean")),
        *((verb, place) for verb in ("info", "repair") for place in (".", "a.features/_delta_log")),
    ],
)
def test_verb_names_the_closed_folder_of_a_store(folder: Path, verb: str, place: str) -> None:
    with closed(folder / place):
        result = run(verb, folder / "a.features")
    assert result.exit_code == 1
    assert f"{str(folder / place)!r} {MUST}" in result.stderr
    assert "Errno" not in result.output


@pytest.mark.parametrize("verb", ["verify", "repair", "clean"])
def test_closed_data_file_is_not_damaged(folder: Path, verb: str) -> None:
    file = next(folder.glob("a.features/*.parquet"))
    with closed(file):
        result = run(verb, folder / "a.features")
    assert result.exit_code == 1
    assert f"{str(file)!r} {MUST}" in result.stderr
    assert "damaged" not in result.output
    assert len(FeatureStore(folder / "a.features")) == 30


def test_closed_entry_of_the_log_is_not_undone(folder: Path) -> None:
    *_, last = sorted(folder.glob("a.features/_delta_log/*.json"))
    with closed(last), pytest.raises(StoreError) as raised:
        repair(folder / "a.features")
    assert f"{str(last)!r} {MUST}" in str(raised.value)
    assert last.exists()


@pytest.mark.parametrize("place", [".", "a.head", "a.head/manifest.json", "a.head/head.skops"])
def test_closed_head_is_named(folder: Path, place: str) -> None:
    with closed(folder / place), pytest.raises(HeadError) as raised:
        load_head(folder / "a.head")
    assert f"{str(folder / place)!r} {MUST}" in str(raised.value)


@pytest.mark.parametrize("to", ["closed/head", "closed/table.csv"])
def test_closed_folder_of_a_result_is_named(folder: Path, to: str) -> None:
    target = folder / "closed"
    target.mkdir()
    with closed(target), pytest.raises(UsageError) as raised:
        check_file(folder / to) if to.endswith(".csv") else load_head(folder / "a.head").save(folder / to)
    assert f"{str(target)!r} {MUST}" in str(raised.value)


def test_file_that_may_not_be_written_is_named(folder: Path) -> None:
    file = folder / "table.csv"
    file.touch()
    with closed(file), pytest.raises(WriteError) as raised, names_file(file):
        file.write_text("")
    assert f"{str(file)!r} {MUST}" in str(raised.value)


def test_any_other_closed_folder_is_named_in_text_and_json(folder: Path) -> None:
    target = folder / "closed"
    target.mkdir()
    arguments = "pull", "hf://datasets/lab/photos", target
    with closed(target):
        results = run(*arguments), run(*arguments, "--json")
    assert [result.exit_code for result in results] == [1, 1]
    assert f"{str(target)!r} {MUST}" in results[0].stderr
    assert "must be open to this user" in results[1].stdout


def test_store_that_may_only_be_read_is_named_when_it_is_written(folder: Path) -> None:
    store = FeatureStore(folder / "a.features")
    rows = store.to_arrow().slice(0, 2)
    changed = rows.set_column(rows.column_names.index("label"), "label", pa.array(["new", "new"]))
    with closed(folder / "a.features", mode=0o555), pytest.raises(StoreError) as raised:
        store.write(changed)
    assert str(raised.value).endswith(f"{str(folder / 'a.features')!r} {MUST}")


@pytest.mark.parametrize("said", ["Unable to open file {}/3.json#1", "Unable to walk dir IO error for operation on {}"])
def test_denials_of_delta_rs_are_named(tmp_path: Path, said: str) -> None:
    error = DeltaError(f"Generic error\n{said.format(tmp_path)}\n Permission denied (os error 13)")
    assert reason(error) == f"{str(tmp_path)!r} {MUST}"


def test_full_disk_says_what_to_do() -> None:
    error = OSError(errno.ENOSPC, "No space left on device")
    assert reason(error).endswith("No space left on device. Make room, and run this again")
