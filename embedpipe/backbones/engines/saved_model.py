"""Exported networks in the cache folder, so that one is exported once."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from embedpipe._utils.config import cache_folder
from embedpipe._utils.importing import import_without_telemetry
from embedpipe.backbones.spec import BackboneSpec

#: Exported networks that stay in the cache folder: the last used ones.
KEPT = 8


class SavedModel:
    """An exported network in the cache folder, of one spec and of one set of library versions.

    Parameters
    ----------
    spec : BackboneSpec
        Decoding does not matter, nor a precision but int8, whose network is another one.
    """

    def __init__(self, spec: BackboneSpec) -> None:
        library = import_without_telemetry("openvino")
        declared = spec.to_dict()
        declared["preprocessing"].pop("decode", None)
        versions = [library.__version__, torch.__version__]
        if spec.precision == "int8":
            versions.append(importlib.metadata.version("nncf"))
        else:
            del declared["precision"]
        key = json.dumps([declared, versions], sort_keys=True)
        self._library = library
        self.folder = cache_folder() / "engines" / hashlib.sha256(key.encode()).hexdigest()[:32]

    def read(self) -> Any | None:
        """Return the network, or None if it is not there or cannot be read."""
        file = self.folder / "model.xml"
        if not file.exists():
            return None
        try:
            model = self._library.Core().read_model(file)
            self.folder.touch()
        except (RuntimeError, OSError):
            self.drop()
            return None
        return model

    def drop(self) -> None:
        """Forget the network, which is not what it should be."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, model: Any) -> None:
        """Keep a network, in one step; whoever was first wins. A cache that cannot be written is none."""
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            made = Path(tempfile.mkdtemp(prefix="new-", dir=self.folder.parent))
        except OSError:
            return
        try:
            self._library.save_model(model, made / "model.xml", compress_to_fp16=False)
            made.rename(self.folder)
        except (RuntimeError, OSError):
            shutil.rmtree(made, ignore_errors=True)
        _forget_old(self.folder.parent)

    @property
    def speedups(self) -> dict[str, float]:
        """What was measured here: how many times as fast as torch, by processor, threads and precision."""
        try:
            found = json.loads((self.folder / "speedups.json").read_text())
            return {str(key): float(value) for key, value in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def note(self, key: str, speedup: float) -> None:
        """Keep a measurement."""
        try:
            (self.folder / "speedups.json").write_text(json.dumps({**self.speedups, key: speedup}))
        except OSError:
            return


def _forget_old(folder: Path) -> None:
    try:
        oldest = sorted(folder.iterdir(), key=lambda one: -one.stat().st_mtime)[KEPT:]
    except OSError:
        return
    for old in oldest:
        shutil.rmtree(old, ignore_errors=True)
