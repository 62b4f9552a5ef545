"""Files and folders that are written completely or not at all, also if the process is killed or the power fails."""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from embedpipe._utils.machine.permissions import closed
from embedpipe.errors import EmbedpipeError, WriteError

#: Arguments of Linux's `renameat2`: paths relative to the working folder, and the flag that exchanges two paths.
AT_FDCWD, RENAME_EXCHANGE = -100, 2
#: Seconds after which a leftover ``.part`` folder is taken for one of a killed process, and deleted.
STALE = 3600


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write, and rename it to ``path`` at the end.

    Missing parent folders are created. If the block raises, ``path`` keeps its old content. Raises WriteError.
    """
    part = _part(path)
    try:
        with names_file(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            sync(part)
            part.replace(path)
            sync(path.parent)
    finally:
        with suppress(OSError):  # it was renamed, or never written
            part.unlink()


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill, and rename it to ``folder`` at the end, which it replaces.

    On Linux the two folders are exchanged in one system call, so a complete folder exists at any moment, also when
    several processes save there or one is killed. On other systems the folder is missing for an instant. Raises
    WriteError.
    """
    part = _part(folder)
    try:
        with names_file(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            for leftover in folder.parent.glob(f".{glob.escape(folder.name)}.*.part"):
                with suppress(OSError):
                    if time.time() - leftover.stat().st_mtime > STALE:
                        shutil.rmtree(leftover)
            part.mkdir()
            yield part
            for path in part.rglob("*"):
                sync(path)
            sync(part)
            _exchange(folder, part)
            sync(folder.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def names_file(path: Path) -> Iterator[None]:
    """Raise WriteError with the name of the file or folder if the block cannot write it: the disk may be full."""
    try:
        yield
    except EmbedpipeError:
        raise
    except PermissionError as error:
        raise WriteError(f"cannot write {os.fspath(path)!r}: {closed(error.filename or path)}") from error
    except OSError as error:
        raise WriteError(
            f"cannot write {os.fspath(path)!r}: {error}. Make room, or choose another place, and run this again"
        ) from error


def check_writable(path: Path) -> None:
    """Raise WriteError if a file or folder cannot be made at a path, whose missing parents will be.

    A file without a name is made and closed: permissions alone do not tell what a network or read-only disk allows.
    """
    nearest = next(parent for parent in path.absolute().parents if parent.is_dir())
    with names_file(path), tempfile.TemporaryFile(dir=nearest):
        pass


def sync(path: Path) -> None:
    """Wait until the contents of a file, or the names in a folder, are on the disk.

    A file may be empty after a power cut unless it was synced, and its name missing unless its folder was.
    """
    windows = os.name == "nt"
    if windows and path.is_dir():
        return  # a folder cannot be opened there
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        if sys.platform == "darwin":  # where fsync leaves the data in the cache of the disk
            import fcntl

            with suppress(OSError):  # a filesystem that has no such command
                fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
                return
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # network filesystems cannot sync folders
            raise
    finally:
        os.close(descriptor)


def _part(path: Path) -> Path:
    """Return a temporary path beside another, which no other thread, process or container has."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")


def _exchange(folder: Path, part: Path) -> None:
    with suppress(OSError):
        part.rename(folder)  # works if nothing or an empty folder was there
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
