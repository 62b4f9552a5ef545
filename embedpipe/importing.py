"""Modules of the user's own: what they type is theirs to run."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType


def import_user_module(name: str) -> ModuleType:
    """Import a module from the working folder or among the installed packages. Raises whatever its import raises."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(here)
