"""Modules of the user's own: what they type is theirs to run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


@contextmanager
def working_folder_importable() -> Iterator[None]:
    """Let imports find modules in the working folder, before the installed packages."""
    try:
        here = str(Path.cwd())
    except FileNotFoundError:  # it was deleted
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def import_user_module(name: str) -> ModuleType:
    """Import a module from the working folder or among the installed packages. Raises whatever its import raises."""
    with working_folder_importable():
        return importlib.import_module(name)
