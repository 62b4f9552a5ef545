"""Checkpoint files: tensors and what a file says about its own architecture, read without running any code."""

from __future__ import annotations

import argparse
import json
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from embedpipe.backbones.network import StateDict, StoredWeights
from embedpipe.backbones.spec import read_recipe
from embedpipe.decoding.recipe import Preprocessing
from embedpipe.errors import WeightsError

#: Where training scripts put the weights, in order of preference: averaged ones first, as timm's loader has it.
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state", "model_state_dict", "model")

#: What a folder may hold its weights in, in order of preference.
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file: its weights, and its architecture and preprocessing where it says them."""

    weights: StoredWeights
    arch: str | None = None
    preprocessing: Preprocessing | None = None


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a ``.pth``, ``.pt``, ``.bin`` or ``.safetensors`` file, or a folder with timm's ``config.json``.

    The architecture comes from the folder's configuration, from the metadata of a safetensors file
    (``architecture``, and ``preprocessing`` as JSON), or from the ``arch`` or ``architecture`` entry that
    training scripts save beside the weights.

    Raises
    ------
    WeightsError
        If there is no such file, it is not a checkpoint, or it could only be read by running its code.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise WeightsError(f"there is no weights file {str(path)!r}: check the path")
    if path.suffix == ".safetensors":
        state, said = _read_safetensors(path)
    else:
        state, said = _read_pickle(path)
    arch = said.get("arch") or said.get("architecture")
    recipe = said.get("preprocessing")
    return Checkpoint(
        StoredWeights(state, str(path)),
        _with_provider(arch) if isinstance(arch, str) else None,
        _preprocessing(recipe, path) if recipe else None,
    )


def _with_provider(arch: str) -> str:
    """Return ``timm/resnet18`` for the bare ``resnet18`` that timm's training script saves."""
    return arch if "/" in arch or ":" in arch else f"timm/{arch}"


def _read_folder(folder: Path) -> Checkpoint:
    config = folder / "config.json"
    found = [folder / name for name in FOLDER_FILES if (folder / name).is_file()]
    if not config.is_file() or not found:
        raise WeightsError(
            f"the folder {str(folder)!r} has no {'weights' if config.is_file() else 'config.json'}: it needs "
            f"timm's config.json and one of {', '.join(FOLDER_FILES)}"
        )
    try:
        arch = json.loads(config.read_text(encoding="utf-8"))["architecture"]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{str(config)!r} is not a timm configuration: it names no 'architecture'") from error
    weights = read_checkpoint(found[0]).weights
    return Checkpoint(StoredWeights(weights.state, weights.origin, folder), f"timm/{arch}")


def _read_safetensors(path: Path) -> tuple[StateDict, Mapping[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return _strip({name: file.get_tensor(name) for name in names}), file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{str(path)!r} is not a safetensors file, or a damaged one: {error}") from error


def _read_pickle(path: Path) -> tuple[StateDict, Mapping[str, Any]]:
    try:
        # timm's training script saves its command line, an argparse.Namespace: data, no code.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch wonders at other pickle protocols before it refuses them
            said = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise WeightsError(
                f"{str(path)!r} holds Python objects, and reading them would run code from the file: where you trust "
                "it, save its state_dict as .safetensors (safetensors.torch.save_file) and use that"
            ) from error
        raise WeightsError(f"{str(path)!r} is not a torch checkpoint, or a damaged one: {error}") from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(f"{str(path)!r} is not a torch checkpoint, or a damaged one: {error}") from error
    state = said
    if isinstance(said, Mapping):
        state = next((said[key] for key in WRAPPERS if isinstance(said.get(key), Mapping)), said)
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)} if isinstance(state, Mapping) else {}
    if not tensors:
        raise WeightsError(
            f"{str(path)!r} holds no tensors by name, but {type(said).__name__}: save a model's state_dict()"
        )
    return _strip(tensors), said


def _strip(state: StateDict) -> StateDict:
    """Take off the prefix that data-parallel or compiled training puts before every name."""
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _preprocessing(recipe: Any, path: Path) -> Preprocessing:
    try:
        return read_recipe(json.loads(recipe) if isinstance(recipe, str) else recipe)
    except (TypeError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"the 'preprocessing' that {str(path)!r} states is not a recipe of embedpipe's ({error}): "
            'it looks like {"resize": [256], "crop": [224, 224], "interpolation": "bicubic", "mean": [...], '
            '"std": [...]}'
        ) from error
