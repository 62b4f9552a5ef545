"""Files and folders that are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import ctypes
import glob
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: What `renameat2` (Linux) is told: paths as from the working folder, and two that change places.
AT_FDCWD, RENAME_EXCHANGE = -100, 2
#: Seconds after which a part that lies about is of a run that was killed.
STALE = 3600


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield the name of a part to write, and put it in the place of ``path`` at the end.

    Folders on the way are made.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    finally:
        with suppress(OSError):  # there is none
            part.unlink()


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill, and put it in the place of ``folder`` at the end.

    On Linux two folders change places in one step, so that there is a whole one at any moment, whoever else saves there
    or is killed. Elsewhere there is none for an instant.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.*.part"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE:
                shutil.rmtree(left)
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.part")
    part.mkdir()
    try:
        yield part
        _exchange(folder, part)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _exchange(folder: Path, part: Path) -> None:
    with suppress(OSError):
        part.rename(folder)  # nothing, or an empty folder, was there
        return
    if sys.platform == "linux":
        paths = os.fsencode(part), os.fsencode(folder)
        if ctypes.CDLL(None).renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE) == 0:
            return
    old = part.with_suffix(".old.part")
    folder.rename(old)
    try:
        part.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old)
