"""Folders that another process deletes while they are listed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest


def delete_when_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a folder appear in its parent's listing, and be gone when it is listed itself."""
    listed = os.scandir

    def scandir(path: Any = ".") -> Any:
        if not isinstance(path, int) and Path(path) == folder:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
