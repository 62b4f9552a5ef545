"""One process at a time in a run's folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from embedpipe.errors import UsageError

LOCK = ".lock.part"


@contextmanager
def working_alone(folder: Path) -> Iterator[None]:
    """Hold a folder while the block runs; a process that ends in any way lets go of it.

    Raises UsageError if another one holds it.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UsageError(
            f"another process is at work in {str(folder)!r}: wait for it, or name another folder (--to)"
        ) from error
    except OSError as error:
        raise UsageError(f"cannot write in {str(folder)!r}: {error}") from error
    try:
        yield
    finally:
        lock.release()
