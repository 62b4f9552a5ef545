"""Files and folders are written completely or not at all, and an error names them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedpipe._utils.atomic import whole_file, whole_folder
from embedpipe.errors import EmbedpipeError, UsageError, WriteError


@pytest.mark.parametrize("whole", [whole_file, whole_folder])
def test_full_disk_is_an_error_that_names_the_file(tmp_path: Path, whole: Callable[[Path], Any]) -> None:
    with (
        pytest.raises(
            WriteError, match=r"cannot write '.*/new/place': .*No space left on device.* Make room"
        ) as caught,
        whole(tmp_path / "new" / "place"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert isinstance(caught.value, EmbedpipeError)
    assert isinstance(caught.value, OSError)
    assert not [*(tmp_path / "new").iterdir()]


@pytest.mark.parametrize("whole", [whole_file, whole_folder])
def test_place_that_no_folder_can_be_is_an_error_that_names_it(tmp_path: Path, whole: Callable[[Path], Any]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="file/place"), whole(tmp_path / "file" / "place"):
        pass


def test_other_errors_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^wrong$"), whole_file(tmp_path / "place"):
        raise UsageError("wrong")


def test_two_threads_that_write_a_file_at_once_leave_one_of_the_two(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with whole_file(path) as first:
        first.write_text("first")
        with whole_file(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert [*tmp_path.iterdir()] == [path]
