"""The cache of exported networks, so that each network is exported once."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from embedpipe._utils.cache import find_cache, keep_limit, mark_used, open_cache
from embedpipe._utils.config import cache_folder
from embedpipe._utils.importing import import_without_telemetry
from embedpipe.backbones.spec import BackboneSpec

#: The part of the cache folder that holds exported networks.
PART = "engines"
#: Exported networks that stay in the cache folder: the last used ones.
CACHED_MODELS = 8


class SavedModel:
    """An exported network in the cache folder, for one spec and one set of library versions.

    Parameters
    ----------
    spec : BackboneSpec
        The way of decoding is ignored, and the precision as well, except int8, which needs a quantised network.
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
        find_cache(PART)  # refuses a folder of somebody else
        self.folder = cache_folder() / PART / hashlib.sha256(key.encode()).hexdigest()[:32]

    def read(self) -> Any | None:
        """Return the network, or None if it is missing or cannot be read."""
        file = self.folder / "model.xml"
        if not file.exists():
            return None
        try:
            model = self._library.Core().read_model(file)
            mark_used(self.folder)
        except (RuntimeError, OSError):
            self.drop()
            return None
        return model

    def drop(self) -> None:
        """Delete the network."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, model: Any) -> None:
        """Save a network atomically; the first of several writers wins. A folder that cannot be written is ignored."""
        if (models := open_cache(PART)) is None:
            return
        temporary = Path(tempfile.mkdtemp(prefix="new-", dir=models))
        try:
            self._library.save_model(model, temporary / "model.xml", compress_to_fp16=False)
            temporary.rename(self.folder)
        except (RuntimeError, OSError):
            shutil.rmtree(temporary, ignore_errors=True)
        _delete_oldest(models)
        keep_limit()

    @property
    def speedups(self) -> dict[str, float]:
        """The measured speed relative to torch, by processor, threads and precision."""
        try:
            speedups = json.loads((self.folder / "speedups.json").read_text())
            return {str(key): float(value) for key, value in speedups.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def note(self, key: str, speedup: float) -> None:
        """Save a measurement."""
        try:
            (self.folder / "speedups.json").write_text(json.dumps({**self.speedups, key: speedup}))
        except OSError:
            return


def _delete_oldest(folder: Path) -> None:
    try:
        oldest = sorted(folder.iterdir(), key=lambda path: -path.stat().st_mtime)[CACHED_MODELS:]
    except OSError:
        return
    for old in oldest:
        shutil.rmtree(old, ignore_errors=True)
