"""The folder of an exported model: ``model.json`` with settings and checksums, the script, the card."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embedpipe._utils.checksums import file_sha256, with_checksum
from embedpipe._utils.folder_kinds import EXPORTED, check_replaceable, refuse_url
from embedpipe._utils.version import __version__
from embedpipe.backbones.backbone import Backbone
from embedpipe.backbones.network import TextNetwork
from embedpipe.errors import UsageError
from embedpipe.estimators.wrappers.rejection import RejectingClassifier
from embedpipe.exporting.exported_model import FORMAT, SETTINGS
from embedpipe.exporting.network import output_kind
from embedpipe.exporting.script.bundling import bundle
from embedpipe.exporting.script.table import row_of
from embedpipe.heads.head import Head

SCRIPT, CARD, TOKENIZER = "predict.py", "README.md", "tokenizer.json"

_STAND_INS = {
    "errors": ("EmbedpipeError", "DecodeError", "SourceError", "UsageError", "MissingExtraError", "require_one_of"),
    "_utils.importing": ("import_extra",),
    "_utils.option_names": ("option",),
    "sources.boxes": ("Crop",),
    "decoding.image": ("count_pages", "count_frames"),
    "decoding.jpeg": ("decode_jpeg",),
    "decoding.picture": ("_part_of",),
    "decoding.resizing": ("_by_torch",),
}


def check_target(to: str | os.PathLike[str]) -> Path:
    """Return the folder to write. Raises UsageError unless it is new, empty or that of an exported model."""
    refuse_url(to, "a model is exported into a local folder")
    folder = Path(to).resolve()
    check_replaceable(folder, EXPORTED)
    return folder


def settings_of(head: Head, backbone: Backbone, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the settings by which `predict.py` and embedpipe prepare items and name outputs."""
    network, recipe = backbone.network, head.spec.preprocessing
    estimator = head.estimator
    settings: dict[str, Any] = {
        "format_version": FORMAT,
        "embedpipe": __version__,
        "head": head.name,
        "task": head.task,
        "label": head.label,
        "column": head.label,
        "separator": head.label_separator,
        "classes": None if head.classes is None else head.classes.tolist(),
        "output": output_kind(head),
        "outputs": 1 if head.classes is None else len(head.classes),
        "reject_above": estimator.threshold_ if isinstance(estimator, RejectingClassifier) else None,
        "modality": head.spec.modality,
        "backbone": head.spec.title,
        "weights_sha256": head.spec.weights_sha256,
        "inputs": list(names),
    }
    if settings["output"] == "scores" and head.task == "classification" and settings["outputs"] == 2:
        settings["outputs"] = 1
    others = ("id", "uri", "error", "actual", "fitted_on", "text")
    if head.label in (*others, *row_of(np.zeros(settings["outputs"]), {**settings, "column": ""})):
        settings["column"] = "prediction"  # as in the table of `Head.predict`
    if isinstance(network, TextNetwork):
        return {**settings, "tokens": {**network.tokenizer.settings, "inputs": list(names)}}  # type: ignore[attr-defined]
    assert recipe is not None
    return {**settings, "preprocessing": dataclasses.asdict(recipe)}


def write_tokenizer(backbone: Backbone, folder: Path) -> None:
    """Write ``tokenizer.json`` of a network for texts, with its limit of tokens."""
    network = backbone.network
    if isinstance(network, TextNetwork):
        (folder / TOKENIZER).write_text(network.tokenizer.to_json(), encoding="utf-8")  # type: ignore[attr-defined]


def require_tokenizer(backbone: Backbone) -> None:
    """Raise UsageError for a network for texts whose tokens no ``tokenizer.json`` gives."""
    network = backbone.network
    if isinstance(network, TextNetwork) and not hasattr(network.tokenizer, "to_json"):
        raise UsageError(
            f"a model of texts is exported with a tokenizer.json, and {backbone.spec.title} has none: embed with a "
            "transformer of sentence-transformers/ or transformers/"
        )


def write_script(modality: str, folder: Path) -> None:
    """Write ``predict.py``. It is never read or run by embedpipe."""
    stand_ins = "embedpipe.exporting.script.stand_ins"
    replaced = {
        f"embedpipe.{module}.{name}": f"{stand_ins}.{name}" for module, names in _STAND_INS.items() for name in names
    }
    module = {"image": "pictures", "text": "texts"}[modality]
    (folder / SCRIPT).write_text(bundle(f"embedpipe.exporting.script.{module}", replaced), encoding="utf-8")


def write_settings(settings: Mapping[str, Any], folder: Path) -> None:
    """Write ``model.json``, with the hashes of all other files and a checksum of its own; the last file of all."""
    files = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
    text = json.dumps(with_checksum({**settings, "files": files}), indent=2, ensure_ascii=False)
    (folder / SETTINGS).write_text(text + "\n", encoding="utf-8")
