"""A small head that was exported, and the script of such a folder as a module."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import embedpipe
from embedpipe.exporting import Export
from embedpipe.exporting.folder import SCRIPT, write_script


class Exported(NamedTuple):
    """Photos, the head that was fitted on two thirds of them, and what was exported."""

    photos: Path
    head: embedpipe.Head
    export: Export

    @property
    def folder(self) -> Path:
        return self.export.folder


def script_in(folder: Path) -> ModuleType:
    """Import the script of a folder under a name of its own."""
    spec = importlib.util.spec_from_file_location("exported_script", folder / SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def script_of(modality: str, folder: Path) -> ModuleType:
    """Write a script without a model, and import it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_script(modality, folder)
    return script_in(folder)
