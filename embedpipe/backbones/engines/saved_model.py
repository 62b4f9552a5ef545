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

from embedpipe._utils.cache import cache_entries, drop_entry, find_cache, keep_limit, mark_used, open_cache
from embedpipe._utils.checksums import file_checksum
from embedpipe._utils.config import cache_folder
from embedpipe._utils.importing import import_without_telemetry
from embedpipe._utils.messages.json_values import parse_json
from embedpipe.backbones.spec import BackboneSpec

#: The part of the cache folder that holds exported networks.
PART = "engines"
#: Exported networks that stay in the cache folder: the last used ones.
CACHED_MODELS = 8

#: The files of an exported network, and the file with their checksums.
_FILES, _MANIFEST = ("model.xml", "model.bin"), "manifest.json"


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
        for name in ("decode", "range", "channels"):
            declared["preprocessing"].pop(name, None)
        versions = [library.__version__, torch.__version__]
        if spec.precision == "int8":
            versions.append(importlib.metadata.version("nncf"))
        else:
            del declared["precision"]
        key = json.dumps([declared, versions], sort_keys=True)
        self._library, self._key = library, hashlib.sha256(key.encode()).hexdigest()
        #: What was wrong with the network in the cache, for the user; empty if nothing was.
        self.damage = ""
        find_cache(PART)  # refuses a folder of somebody else
        self.folder = cache_folder() / PART / self._key[:32]

    def read(self) -> Any | None:
        """Return the network, or None if it is missing; a damaged one is deleted."""
        if not self.folder.exists():
            return None
        try:
            if (damaged := self._damaged_file()) is not None:
                self.drop(f"{damaged} was damaged")
                return None
            model = self._library.Core().read_model(self.folder / _FILES[0])
            mark_used(self.folder)
        except (RuntimeError, OSError) as error:
            self.drop(f"it could not be read: {error}")
            return None
        return model

    def _damaged_file(self) -> str | None:
        """Return the name of a file that is not as it was written, as OpenVINO runs any values that it finds."""
        try:
            manifest = parse_json((self.folder / _MANIFEST).read_text(encoding="utf-8"))
            written, key = [manifest["files"][name] for name in _FILES], manifest["key"]
        except (OSError, ValueError, KeyError, TypeError):
            return _MANIFEST
        if key != self._key:
            return _MANIFEST
        for name, expected in zip(_FILES, written, strict=True):
            file = self.folder / name
            if not file.is_file() or file_checksum(file) != expected:
                return name
        return None

    def drop(self, damage: str) -> None:
        """Delete the network, and note why."""
        self.damage = f"the exported network in the cache was deleted, as {damage}"
        shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, model: Any) -> None:
        """Save a network atomically; the first of several writers wins. A folder that cannot be written is ignored."""
        if (models := open_cache(PART)) is None:
            return
        temporary = Path(tempfile.mkdtemp(prefix="new-", dir=models))
        try:
            self._library.save_model(model, temporary / _FILES[0], compress_to_fp16=False)
            manifest = {"key": self._key, "files": {name: file_checksum(temporary / name) for name in _FILES}}
            (temporary / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
            temporary.rename(self.folder)
        except (RuntimeError, OSError):
            shutil.rmtree(temporary, ignore_errors=True)
        _delete_oldest()
        keep_limit()

    @property
    def speedups(self) -> dict[str, float]:
        """The measured speed relative to torch, by processor, threads and precision."""
        try:
            speedups = parse_json((self.folder / "speedups.json").read_text())
            return {str(key): float(value) for key, value in speedups.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def note(self, key: str, speedup: float) -> None:
        """Save a measurement."""
        try:
            (self.folder / "speedups.json").write_text(json.dumps({**self.speedups, key: speedup}))
        except OSError:
            return


def _delete_oldest() -> None:
    networks = [entry for entry in cache_entries() if entry.path.parent.name == PART]
    for entry in networks[CACHED_MODELS:]:
        drop_entry(entry.path)
