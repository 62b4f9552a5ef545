"""The script of an exported folder: which files it reads, where it writes, and a folder that was damaged."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from exported_script import Exported, script_in, script_of

from embedpipe.exporting import load_exported
from embedpipe.sources import SourceOptions, open_source
from embedpipe.sources.file_types import IMAGE_SUFFIXES


@pytest.fixture
def folder(exported: Exported, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported.folder, tmp_path / "model"))


def run(folder: Path, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-E", str(folder / "predict.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)  # type: ignore[call-overload,no-any-return]


def lay_out(photos: Path, names: list[str]) -> None:
    for name in names:
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(b"photo")


LAYOUTS: dict[str, list[str]] = {
    "classes": ["cat/b.jpg", "cat/a/z.JPG", "dog/1.png", "top.jpg", "notes.txt", ".hidden.jpg", ".cache/x.jpg"],
    "splits": ["training/cat/1.jpg", "dev/dog/2.jpg"],
    "splits and a stray": ["train/cat/1.jpg", "test/dog/2.jpg", "extra/3.jpg"],
    "one split and a class": ["train/cat/1.jpg", "dog/2.jpg"],
    "folders of systems": ["cat/1.jpg", "@eaDir/1.jpg", "__MACOSX/cat/1.jpg", "cat/lost+found/2.jpg"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_and_labels_are_those_of_embedpipe(tmp_path: Path, layout: str) -> None:
    lay_out(tmp_path / "new", LAYOUTS[layout])
    items = script_of("image", tmp_path / "model").files_in(str(tmp_path / "new"), IMAGE_SUFFIXES, "label")
    listing = open_source(str(tmp_path / "new"), SourceOptions(), "image").table
    assert [item["id"] for item in items] == listing["id"].to_pylist()
    assert [item.get("actual") for item in items] == listing["label"].to_pylist()


def test_links_are_followed_once_and_what_is_no_file_is_listed(tmp_path: Path) -> None:
    lay_out(tmp_path, ["new/cat/1.jpg", "elsewhere/2.jpg"])
    for name, target in {"new/a": "../elsewhere", "new/b": "../elsewhere", "new/up": "..", "new/gone.jpg": "x"}.items():
        (tmp_path / name).symlink_to(target)
    (tmp_path / "new" / "empty.jpg").mkdir()
    os.mkfifo(tmp_path / "new" / "pipe.jpg")
    items = script_of("image", tmp_path / "model").files_in(str(tmp_path / "new"), IMAGE_SUFFIXES, "label")
    listing = open_source(str(tmp_path / "new"), SourceOptions(), "image")
    expected = [*listing.table["id"].to_pylist(), *(failure.id for failure in listing.failures)]
    assert sorted(item["id"] for item in items) == sorted(expected)
    assert {"a/2.jpg", "gone.jpg", "pipe.jpg", "empty.jpg"} <= {*expected}


def test_pipes_and_devices_are_rows_with_the_reason(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    done = run(folder, tmp_path / "pipe.jpg", "/dev/zero")
    assert done.returncode == 3
    assert "OSError: a named pipe, not a file" in done.stdout
    assert "OSError: a device, not a file" in done.stdout


@pytest.mark.parametrize(
    ("to", "reason"),
    [("t.xlsx", "its name must end in .csv"), ("folder.csv", "it is a folder"), ("none/t.csv", "does not exist")],
)
def test_tables_that_cannot_be_written_end_it_early(exported: Exported, tmp_path: Path, to: str, reason: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    script = script_in(exported.folder)
    with pytest.raises(SystemExit, match=reason):
        script.require_writable(str(tmp_path / to))


def test_source_without_photos_is_an_error(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    done = run(folder, tmp_path / "new", "--to", tmp_path / "t.csv")
    assert done.returncode == 1
    assert "nothing to predict in" in done.stderr
    assert not (tmp_path / "t.csv").exists()
    assert "a source must have a name" in run(folder, "").stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_standard_output_that_takes_nothing_is_an_error(exported: Exported, folder: Path) -> None:
    photo = exported.photos / "test" / "cat" / "00.jpg"
    command = f"'{sys.executable}' -E '{folder / 'predict.py'}' '{photo}'"
    for redirect, reason in ((">/dev/full", "No space left"), (">&-", "standard output is closed")):
        done = subprocess.run(["sh", "-c", command + redirect], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert reason in done.stderr
        assert "Traceback" not in done.stderr


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def add_class(path: Path) -> None:
    path.write_text(path.read_text().replace('"classes": [', '"classes": ["bee", '))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.onnx", flip),
        ("model.onnx", Path.unlink),
        ("model.json", Path.unlink),
        ("model.json", lambda path: path.write_text("[]")),
        ("model.json", lambda path: path.write_bytes(path.read_bytes()[:300])),
        ("model.json", add_class),
    ],
)
def test_folder_that_was_damaged_is_refused(
    exported: Exported, folder: Path, name: str, damage: Callable[[Path], object]
) -> None:
    damage(folder / name)
    done = run(folder, exported.photos / "test")
    assert done.returncode == 1
    assert f"{folder / name} is missing, or was changed" in done.stderr
    assert "copy the folder again, or export the head again" in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_script_and_card_may_be_changed(exported: Exported, folder: Path) -> None:
    for name in ("predict.py", "README.md"):
        with (folder / name).open("a") as file:
            file.write("\n# mine\n")
    assert run(folder, exported.photos / "test").returncode == 0
    assert load_exported(folder).task == "classification"
