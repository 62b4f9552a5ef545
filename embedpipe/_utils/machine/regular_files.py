"""Files that are opened only if they are regular: a named pipe would wait for its other end, a device may never end."""

from __future__ import annotations

import os
import stat
from io import FileIO
from pathlib import Path

# O_NONBLOCK keeps the open of a named pipe from waiting for its other end.
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def open_regular(path: str | Path) -> FileIO:
    """Open a file to read its bytes, without a buffer. Raises OSError, also for what is no regular file."""
    descriptor = os.open(path, _OPEN_FLAGS)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise OSError(f"{describe_mode(mode)}, not a file")
    return FileIO(descriptor)


def read_regular(path: str | Path) -> bytes:
    """Return the bytes of a file. Raises OSError, also for what is no regular file."""
    with open_regular(path) as file:
        return file.read()


def describe_mode(mode: int) -> str:
    """Return a name for the kind of file of a file mode."""
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"))
    return next((words for test, words in kinds if test(mode)), "a device")
