"""A named pipe in place of a file that embedpipe made is refused, where an open would wait for its other end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from embedpipe import FeatureStore, load_evaluation, load_head, load_splits
from embedpipe._utils.machine.regular_files import open_regular, read_regular
from embedpipe.errors import EmbedpipeError
from embedpipe.exporting import load_exported

RELEASED = Path(__file__).parents[1] / "released" / "0.2.0"
STORE = "photos.features"

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are of Unix")


def test_bytes_of_a_regular_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\x00\r\n\xff")
    assert read_regular(tmp_path / "file") == b"\x00\r\n\xff"
    with open_regular(str(tmp_path / "file")) as file:
        assert file.read(1) == b"\x00"


@pytest.mark.parametrize(("name", "kind"), [("pipe", "a named pipe"), ("", "a folder"), ("/dev/null", "a device")])
def test_other_kinds_are_named(tmp_path: Path, name: str, kind: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=rf"^{kind}, not a file$"):
        read_regular(tmp_path / name)


def test_missing_file_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none")


def _rows(path: Path) -> None:
    FeatureStore(path).to_numpy()


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("logreg.head/manifest.json", lambda path: load_head(path.parent)),
        ("logreg.head/head.skops", lambda path: load_head(path.parent)),
        ("model/model.json", lambda path: load_exported(path.parent)),
        ("splits.parquet", load_splits),
        ("evaluation.json", load_evaluation),
        (f"{STORE}/_delta_log/00000000000000000003.json", lambda path: _rows(path.parents[1])),
        (f"{STORE}/*.parquet", lambda path: _rows(path.parent)),
    ],
)
def test_a_named_pipe_is_refused(tmp_path: Path, name: str, read: Callable[[Path], object]) -> None:
    folder = shutil.copytree(RELEASED, tmp_path / "released")
    (folder / "model").mkdir()
    places = [*folder.glob(name)] or [folder / name]
    for place in places:
        place.unlink(missing_ok=True)
        os.mkfifo(place)
    with pytest.raises(EmbedpipeError, match=r"a named pipe, not a file|is not a file|has no head\.skops"):
        read(places[0])
