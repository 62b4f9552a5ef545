"""What a finished hand-off leaves on disk: weights that are a backbone again, a head of them, and how it went."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from embedpipe._utils.atomic import whole_file
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.errors import UsageError
from embedpipe.finetuning.result import FineTuneResult

BEST, LAST = "backbone.safetensors", "last.safetensors"
FEATURES, HEAD, RESULT, STATE, SPLITS = "features", "head", "result.json", "state.pt", "splits.parquet"


def check_folder(to: str | Path) -> Path:
    """Make the folder of a run, new or of an earlier one. Raises UsageError if something else is there."""
    if "://" in os.fspath(to):
        raise UsageError(f"{os.fspath(to)!r} is a URL: a network is saved in a local folder")
    folder = Path(to).resolve()
    ours = any((folder / name).exists() for name in (STATE, RESULT, FEATURES, BEST, LAST))
    if any(place.is_file() for place in (folder, *folder.parents)) or (
        folder.is_dir() and any(not file.name.endswith(".part") for file in folder.iterdir()) and not ours
    ):
        raise UsageError(f"{str(folder)!r} is there and holds no run of `finetune`: give a new or empty folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {str(folder)!r}: {error}") from error
    return folder


def architecture(spec: BackboneSpec) -> str:
    """Return what ``--arch`` takes for a backbone of this spec: ``timm/resnet18``."""
    if spec.provider == "checkpoint":
        return spec.name
    return f"python:{spec.name}" if spec.provider == "python" else f"{spec.provider}/{spec.name}"


def save_backbone(state: Mapping[str, Tensor], spec: BackboneSpec, path: Path) -> None:
    """Write a network's tensors as a file that `checkpoint/PATH` loads, with its architecture and preprocessing."""
    about = {"preprocessing": json.dumps(dataclasses.asdict(spec.preprocessing))}
    if not (arch := architecture(spec)).startswith("python:"):  # code that a file must not name
        about["architecture"] = arch
    with whole_file(path) as part:
        # Clones: tensors that are two names for one cannot be saved as they are.
        save_file({name: tensor.cpu().clone().contiguous() for name, tensor in state.items()}, part, metadata=about)


def write_result(result: Mapping[str, Any], folder: Path) -> None:
    """Write what came of a run; where this file is, the run is finished."""
    with whole_file(folder / RESULT) as part:
        part.write_text(json.dumps(result, indent=2), encoding="utf-8")


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return what `write_result` wrote, or None where no run is finished. Raises UsageError if it is damaged."""
    path = folder / RESULT
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {**found, "key": found["key"]}
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UsageError(f"{str(path)!r} is damaged: delete it to train anew") from error


def hand_off_of(values: dict[str, Any], folder: Path) -> FineTuneResult:
    """Return what a finished run came to. Raises UsageError if its files are damaged or gone."""
    path = folder / RESULT
    if missing := [name for name in (BEST, HEAD) if not (folder / name).exists()]:
        raise UsageError(f"{str(folder)!r} has lost {' and '.join(missing)}: delete {str(path)!r} to train anew")
    try:
        return FineTuneResult.from_dict(values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{str(path)!r} is damaged: delete it to train anew") from error
