"""Files and folders that this user may not open, also if the tests run as root."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

#: Version 3 of Linux's structures for capabilities, and the bits of those that open every file.
_VERSION, _OPENS_ALL = 0x20080522, 1 << 1 | 1 << 2


@contextmanager
def closed(*paths: Path, mode: int = 0) -> Iterator[None]:
    """Give paths a mode, by default none, during the block, and take from the calling thread what root may do."""
    if os.name == "nt" or (os.geteuid() == 0 and sys.platform != "linux"):
        pytest.skip("every file is open to this user")
    before = [path.stat().st_mode for path in paths]
    for path in reversed(paths):
        path.chmod(mode)
    kept = _without(_OPENS_ALL) if os.geteuid() == 0 else None
    try:
        yield
    finally:
        if kept is not None:
            _set(kept)
        for path, old in zip(paths, before, strict=True):
            path.chmod(old)


def _without(bits: int) -> list[int]:
    header, sets = (ctypes.c_uint32 * 2)(_VERSION, 0), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capget(header, sets) == 0
    kept = list(sets)
    _set([kept[0] & ~bits, *kept[1:]])
    return kept


def _set(sets: list[int]) -> None:
    header = (ctypes.c_uint32 * 2)(_VERSION, 0)
    assert ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)(*sets)) == 0
