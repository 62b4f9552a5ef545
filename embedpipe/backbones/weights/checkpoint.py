"""Reading checkpoint files without running their code: the tensors, and the architecture if the file names it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import pickle
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from embedpipe._utils.checksums import checksum
from embedpipe._utils.messages.json_values import parse_json
from embedpipe.backbones.network import StateDict, StoredWeights, Weights
from embedpipe.backbones.spec import read_recipe
from embedpipe.backbones.weights.tensors import hash_tensors
from embedpipe.decoding.recipe import Preprocessing
from embedpipe.errors import WeightsError

#: Keys under which training scripts save the weights, in order of preference: averaged ones first, as in timm.
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state", "model_state_dict", "model")

#: Key of the checksum in the metadata of the safetensors files of fine-tuned networks.
CHECKSUM = "embedpipe.checksum"

#: Key of the configuration of a network in that metadata.
SETTINGS = "embedpipe.settings"

#: Names of a folder's weights file, in order of preference.
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")

_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file: its weights, and its architecture, preprocessing and size of images if the file names them."""

    weights: StoredWeights
    arch: str | None = None
    preprocessing: Preprocessing | None = None
    image_size: int | None = None


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a ``.pth``, ``.pt``, ``.bin`` or ``.safetensors`` file, or a folder with timm's ``config.json``.

    The architecture comes from the folder's configuration, from the metadata of a safetensors file
    (``architecture``, ``image_size``, and ``preprocessing`` as JSON), or from the entry ``arch`` or ``architecture``
    that training scripts save beside the weights.

    Raises
    ------
    WeightsError
        If the file does not exist, is not a checkpoint, or can only be read by running its code.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise WeightsError(f"the weights file {str(path)!r} does not exist: check the path")
    refuse_pointer(path)
    state, metadata, notes = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    state, prefix = _strip(state)
    if prefix:
        notes = (*notes, f"the prefix {prefix!r} of the training was removed from the names of the weights")
    arch = metadata.get("arch") or metadata.get("architecture")
    recipe, side = metadata.get("preprocessing"), str(metadata.get("image_size", ""))
    return Checkpoint(
        StoredWeights(state, str(path), notes=notes, files=(path,), settings=_settings(metadata, path)),
        _with_provider(arch) if isinstance(arch, str) else None,
        _preprocessing(recipe, path) if recipe else None,
        int(side) if side.isdecimal() else None,
    )


def refuse_pointer(path: Path) -> None:
    """Raise WeightsError for the small text file that Git LFS leaves in place of a file that it has not fetched."""
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise WeightsError(f"{str(path)!r} is a pointer of Git LFS, not the file itself: run `git lfs pull`")


def _with_provider(arch: str) -> str:
    """Return ``timm/resnet18`` for ``resnet18``, which timm's training script saves."""
    return arch if "/" in arch or ":" in arch else f"timm/{arch}"


def _read_folder(folder: Path) -> Checkpoint:
    config = folder / "config.json"
    files = [folder / name for name in FOLDER_FILES if (folder / name).is_file()]
    if not config.is_file() or not files:
        missing = config if not config.is_file() else folder / FOLDER_FILES[0]
        raise WeightsError(
            f"the folder of a model must have timm's config.json and one of {', '.join(FOLDER_FILES)}, but "
            f"{str(missing)!r} does not exist"
        )
    try:
        arch = parse_json(config.read_text(encoding="utf-8"))["architecture"]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{str(config)!r} must be a timm configuration with 'architecture'") from error
    weights = read_checkpoint(files[0]).weights
    weights = dataclasses.replace(weights, folder=folder, files=(*weights.files, config))
    return Checkpoint(weights, f"timm/{arch}")


_Content = tuple[StateDict, Mapping[str, Any], tuple[str, ...]]


def _read_safetensors(path: Path) -> _Content:
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{str(path)!r} is not a safetensors file, or is damaged: {error}") from error
    if CHECKSUM in metadata and metadata[CHECKSUM] != weights_checksum(state, metadata):
        raise WeightsError(
            f"{str(path)!r} is damaged or was changed, as its weights do not have the checksum that it holds: copy it "
            "again, or train again"
        )
    return state, metadata, ()


def weights_checksum(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return the checksum of the weights and metadata of a safetensors file, without the one among the metadata."""
    rest = sorted((key, value) for key, value in metadata.items() if key != CHECKSUM)
    return checksum(json.dumps([hash_tensors(state), rest]).encode())


def _read_pickle(path: Path) -> _Content:
    try:
        # timm's training script saves its command line as an argparse.Namespace, which holds no code.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about pickle protocols before it refuses them
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise WeightsError(
                f"{str(path)!r} holds Python objects, and reading them would run code from the file. If you trust it, "
                "save its state_dict as .safetensors (safetensors.torch.save_file) and use that"
            ) from error
        raise WeightsError(f"{str(path)!r} is not a torch checkpoint, or is damaged: {error}") from error
    except Exception as error:  # on invalid bytes torch raises many types, also IndexError and RecursionError
        raise WeightsError(f"{str(path)!r} is not a torch checkpoint, or is damaged: {error}") from error
    state = content
    notes: tuple[str, ...] = ()
    if isinstance(content, Mapping) and (entries := [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]):
        state = content[entries[0]]
        if len(entries) > 1:
            notes = (f"of the weights in {path.name} ({', '.join(entries)}) those of {entries[0]!r} are used",)
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)} if isinstance(state, Mapping) else {}
    if not tensors:
        raise WeightsError(
            f"{str(path)!r} must hold tensors by name, got {type(content).__name__}: save a model's state_dict()"
        )
    return tensors, content, notes


def _strip(state: StateDict) -> tuple[StateDict, str]:
    """Remove the prefix that data-parallel or compiled training adds to every name; also return the prefix."""
    removed = ""
    for prefix in ("module.", "_orig_mod.", "module."):
        if state and all(name.startswith(prefix) for name in state):
            state, removed = {name.removeprefix(prefix): tensor for name, tensor in state.items()}, removed + prefix
    return state, removed


@contextmanager
def unpacked(weights: Weights, name: str) -> Iterator[Weights]:
    """Put the configuration that a file of weights holds into a folder, as a file of that name, inside the block."""
    if not isinstance(weights, StoredWeights) or not weights.settings:
        yield weights
        return
    with TemporaryDirectory() as folder:
        (Path(folder) / name).write_text(json.dumps(weights.settings), encoding="utf-8")
        yield dataclasses.replace(weights, folder=Path(folder))


def _settings(metadata: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the configuration of a fine-tuned network that a library does not know by its name."""
    try:
        settings: dict[str, Any] = parse_json(metadata.get(SETTINGS) or "{}")
        return {**settings}
    except (TypeError, ValueError) as error:
        raise WeightsError(f"the {SETTINGS!r} of {str(path)!r} must be a configuration as JSON: {error}") from error


def _preprocessing(recipe: Any, path: Path) -> Preprocessing:
    try:
        return read_recipe(parse_json(recipe) if isinstance(recipe, str) else recipe)
    except (TypeError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"the 'preprocessing' of {str(path)!r} is not a recipe of embedpipe ({error}). "
            'Write it like {"resize": [256], "crop": [224, 224], "interpolation": "bicubic", "mean": [...], '
            '"std": [...]}'
        ) from error
