"""The cache folder belongs to the user alone, stays below its limit, and is not needed."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest
from deleted import delete_when_listed

from embedpipe._utils import cache
from embedpipe._utils.cache import cache_entries, find_cache, keep_limit, name_of, open_cache
from embedpipe.errors import UsageError

needs_owners = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owner here")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "new" / "cache"
    monkeypatch.setenv("EMBEDPIPE_CACHE", str(folder))
    return folder


def fill(part: str, name: str, size: int, hours_ago: float) -> Path:
    """Write an entry that was last used some hours ago."""
    opened = open_cache(part)
    assert opened is not None
    path = opened / (name * 32)
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - 3600 * hours_ago,) * 2)
    return path


@needs_owners
def test_folders_are_made_for_the_user_alone(folder: Path) -> None:
    assert find_cache("maps") is None
    assert not folder.exists()  # a read makes nothing
    assert open_cache("maps") == folder / "maps" == find_cache("maps")
    for each in (folder, folder / "maps"):
        assert stat.S_IMODE(each.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.parent.stat().st_mode) & 0o500 == 0o500


@needs_owners
@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757, 0o1777])
@pytest.mark.parametrize("part", ["", "maps"])
def test_folder_that_others_can_write_is_refused(folder: Path, part: str, mode: int) -> None:
    open_cache("maps")
    (folder / part).chmod(mode)
    for use in (find_cache, open_cache):
        with pytest.raises(
            UsageError, match=rf"others can write it: run `chmod go-w {folder / part}`.* EMBEDPIPE_CACHE"
        ):
            use("maps")
    (folder / part).chmod(0o755)
    assert find_cache("maps") is not None


@needs_owners
def test_folder_of_another_user_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_cache("maps")
    owner = folder.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner:
        with pytest.raises(UsageError, match=f"it belongs to user {owner}: set the environment variable"):
            find_cache("maps")
    else:
        assert find_cache("maps") is not None  # root can write everywhere anyway
        os.chown(folder, 4321, -1)
        with pytest.raises(UsageError, match="it belongs to user 4321: set the environment variable"):
            find_cache("maps")


def test_folder_that_cannot_be_written_is_reported_once(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_reported", set())
    folder.parent.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match=r"cannot be written \(.*\): nothing is cached.*EMBEDPIPE_CACHE"):
        assert open_cache("maps") is None
    assert open_cache("evaluations") is None  # without a second warning, which would be an error here
    assert find_cache("maps") is None


def test_least_recently_used_entries_go_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDPIPE_CACHE_GB", "0.000001")  # 1,000 bytes
    old, newer, newest = (fill("evaluations", f"{hours}", 400, hours) for hours in (9, 5, 2))
    of_a_wrong_clock = fill("evaluations", "f", 400, -90_000)
    in_use = fill("vectors", "a", 5_000, 0)
    assert [entry.name[:-31] for entry in cache_entries()] == [
        "vectors/a",
        "evaluations/2",
        "evaluations/5",
        "evaluations/9",
        "evaluations/f",
    ]
    keep_limit()
    assert [path.exists() for path in (in_use, newest, newer, old)] == [True, False, False, False]
    assert not of_a_wrong_clock.exists()
    newer = fill("evaluations", "5", 400, 5)
    in_use.unlink()
    keep_limit()
    assert newer.exists()


def test_files_of_others_in_the_folder_are_neither_listed_nor_deleted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDPIPE_CACHE_GB", "0")
    mine = fill("vectors", "a", 5_000, 9)
    others = [folder / "photos" / "cat.jpg", folder / "vectors" / "mine.npy", folder / "engines" / "diesel" / "a.txt"]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not of the cache")
        for each in (path, path.parent):
            os.utime(each, (time.time() - 9 * 3600,) * 2)
    assert [entry.path for entry in cache_entries()] == [mine]
    keep_limit()
    assert not mine.exists()
    assert all(path.exists() for path in others)


def test_entry_that_another_process_deletes_is_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = fill("vectors", "a", 5_000, 9)
    inside = folder / "vectors" / ("b" * 32) / "inside"
    inside.mkdir(parents=True)
    delete_when_listed(inside, monkeypatch)
    assert {entry.path for entry in cache_entries()} == {mine, inside.parent}


def test_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDPIPE_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(UsageError, match=r"cache folder is not known .*: set EMBEDPIPE_CACHE to a folder of yours"):
        find_cache("vectors")


@pytest.mark.parametrize("value", ["much", "-1", "nan", "inf"])
def test_limit_must_be_a_size(folder: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("EMBEDPIPE_CACHE_GB", value)
    with pytest.raises(UsageError, match=r"EMBEDPIPE_CACHE_GB must be a number of gigabytes >= 0, got"):
        keep_limit()


def test_names_are_not_paths() -> None:
    assert {len(name_of(id)) for id in ("../../elsewhere", "a", "\ud800", "")} == {32}
