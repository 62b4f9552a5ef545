"""The folder of a fine-tuning run: its lock, the trained weights, the head on their features, and the result."""

from __future__ import annotations

import dataclasses
import json
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from embedpipe._utils.atomic import names_file, whole_file
from embedpipe._utils.checksums import read_json, write_json
from embedpipe._utils.folder_kinds import refuse_url
from embedpipe._utils.option_names import option
from embedpipe._utils.version import __version__, other_format
from embedpipe.backbones.backbone import Backbone
from embedpipe.backbones.network import ImageNetwork
from embedpipe.backbones.options import BackboneOptions
from embedpipe.backbones.providers.hugging_face.saving import save_model
from embedpipe.backbones.reload import options_from_spec
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.backbones.weights.checkpoint import CHECKSUM, SETTINGS, weights_checksum
from embedpipe.errors import BusyError, UsageError
from embedpipe.finetuning.options import Method
from embedpipe.finetuning.result import FineTuneResult

#: The version of the format of `RESULT`.
FORMAT = 1
#: The weights of the best and the last epoch: a file, or for Hugging Face's libraries a folder without the suffix.
BEST, LAST = "backbone.safetensors", "last.safetensors"
#: Providers whose networks are saved as a model's folder, as only their libraries can build them.
HUGGING_FACE = ("sentence-transformers", "transformers")
FEATURES, HEAD, RESULT, SPLITS = "features", "head", "result.json", "splits.parquet"
#: Which source the store `FEATURES` is of. A run that was killed before it had a store has this file alone.
CLAIM = "features.json"
#: The state of an unfinished run by its method: a file, or the checkpoints of sentence-transformers' trainer.
STATES: dict[Method, str] = {"lp-ft": "state.pt", "contrastive": "checkpoints"}
LOCK = ".lock.part"


def check_folder(to: str | Path) -> Path:
    """Return the folder of a run, which may hold an earlier run. Raises UsageError if it holds anything else."""
    refuse_url(to, f"{option('to')} must be a local folder")
    folder = Path(to)  # as given, so that results and messages name it so
    names = (*STATES.values(), RESULT, CLAIM, FEATURES, BEST, LAST, Path(BEST).stem)
    has_run = any((folder / name).exists() for name in names)
    if any(path.is_file() for path in (folder, *folder.absolute().parents)) or (
        folder.is_dir() and any(not file.name.endswith(".part") for file in folder.iterdir()) and not has_run
    ):
        raise UsageError(
            f"{option('to')} must be a new folder, an empty one or one of an earlier `finetune` run, got "
            f"{str(folder)!r}"
        )
    return folder


def require_method(folder: Path, method: Method) -> None:
    """Raise UsageError if a folder holds the state of an unfinished run with another method."""
    for name, state in STATES.items():
        if name != method and (folder / state).exists():
            raise UsageError(
                f"{str(folder)!r} holds a run with {option('method', name)} that is not finished, got "
                f"{option('method', method)}: continue it with the same, or give another folder ({option('to', ...)})"
            )


def delete_state(folder: Path) -> None:
    """Delete the state of a run that is finished."""
    for state in STATES.values():
        (folder / state).unlink() if (folder / state).is_file() else shutil.rmtree(folder / state, ignore_errors=True)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Make a folder, if it is new, and keep other processes out; the lock ends with the block or the process.

    A new folder is deleted again if the block fails before it writes a file.

    Raises BusyError if another process holds the lock, and WriteError if nothing can be written there.
    """
    is_new = not folder.exists()
    with names_file(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise BusyError(
                f"another process is using {str(folder)!r}: wait until it ends, or give another folder "
                f"({option('to', ...)})"
            ) from error
    try:
        yield
    except BaseException:
        files = [path for path in folder.rglob("*") if not path.is_dir()]
        if is_new and [path.name for path in files] in ([], [LOCK]):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        lock.release()


def architecture(spec: BackboneSpec) -> str:
    """Return the ``--arch`` of the backbone, such as ``timm/resnet18``."""
    if spec.provider == "checkpoint":
        return spec.name
    return f"python:{spec.name}" if spec.provider == "python" else f"{spec.provider}/{spec.name}"


def is_hugging_face(spec: BackboneSpec) -> bool:
    """Return whether the network is one of Hugging Face's libraries."""
    return spec.provider in HUGGING_FACE


def provider_of_weights(spec: BackboneSpec) -> str:
    """Return the provider that loads the saved weights of a backbone."""
    return spec.provider if is_hugging_face(spec) else "checkpoint"


def options_of_weights(spec: BackboneSpec, path: Path) -> BackboneOptions:
    """Return the options that load the saved weights of a backbone with its layers."""
    if is_hugging_face(spec):
        options = options_from_spec(spec, str(path), trust=True)
        return dataclasses.replace(options, backbone=f"{spec.provider}/{path}", weights="default", precision="fp32")
    arch = architecture(spec)
    return BackboneOptions(
        backbone=f"checkpoint/{path}",
        arch=arch if arch.startswith("python:") else None,
        layer=tuple(layer.name for layer in spec.layers),
        dimensions=spec.dimensions,
    )


def weights_path(spec: BackboneSpec, folder: Path, name: str) -> Path:
    """Return the file or folder of weights in the folder of a run; ``name`` is `BEST` or `LAST`."""
    return folder / (Path(name).stem if is_hugging_face(spec) else name)


def save_backbone(state: dict[str, Tensor], frozen: Backbone, path: Path) -> None:
    """Write weights of a network as a backbone of `provider_of_weights`."""
    if is_hugging_face(frozen.spec):
        save_model(frozen.network, state, path)
    else:
        settings = frozen.network.settings if isinstance(frozen.network, ImageNetwork) else {}
        _save_checkpoint(state, frozen.spec, settings, path)


def _save_checkpoint(state: Mapping[str, Tensor], spec: BackboneSpec, settings: Mapping[str, Any], path: Path) -> None:
    """Write the weights of a network, with architecture and preprocessing, as a file for ``checkpoint/PATH``."""
    assert spec.preprocessing is not None  # imported vectors have no network to train
    metadata = {"preprocessing": json.dumps(dataclasses.asdict(spec.preprocessing))}
    if not (arch := architecture(spec)).startswith("python:"):  # a file must not choose which code runs
        metadata["architecture"] = arch
    if settings:
        metadata[SETTINGS] = json.dumps(settings)
    if spec.image_size is not None:
        metadata["image_size"] = str(spec.image_size)
    metadata[CHECKSUM] = weights_checksum(state, metadata)
    with whole_file(path) as part:
        part.touch()
        mode = stat.S_IMODE(part.stat().st_mode)
        # safetensors refuses tensors that share memory, hence the clones.
        tensors = {name: tensor.cpu().clone().contiguous() for name, tensor in state.items()}
        try:
            save_file(tensors, part, metadata=metadata)
        except SafetensorError as error:  # such as a full disk
            raise OSError(str(error)) from error
        part.chmod(mode)  # safetensors puts a file in this place that only its owner can read


def write_result(values: Mapping[str, Any], folder: Path) -> None:
    """Write the result of a run; this file marks the run as finished."""
    write_json({"format": FORMAT, "embedpipe": __version__, **values}, folder / RESULT, indent=2)


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return what `write_result` wrote, or None if no run has finished. Raises UsageError if the file is damaged."""
    path = folder / RESULT
    if not path.exists():
        return None
    try:
        values = read_json(path)
        found, writer = values.pop("format"), values.pop("embedpipe")
        settings = values["settings"]
    except (ValueError, KeyError, OSError) as error:
        raise _damaged(path) from error
    if found != FORMAT:
        raise UsageError(f"{str(path)!r} {other_format(found, FORMAT, writer)}. Or give another folder")
    return {**values, "settings": settings}


def load_result(values: dict[str, Any], folder: Path, spec: BackboneSpec) -> FineTuneResult:
    """Make the result of a finished run from its dict. Raises UsageError if files of the run are damaged or missing."""
    path = folder / RESULT
    backbone = weights_path(spec, folder, BEST)
    if missing := [path.name for path in (backbone, folder / HEAD, folder / SPLITS) if not path.exists()]:
        raise UsageError(
            f"{' and '.join(missing)} of the finished run in {str(folder)!r} must exist: delete {str(path)!r} to train "
            "again"
        )
    try:
        # The folder may have moved, and is named as it is given now.
        places = {"folder": str(folder), "backbone": str(backbone), "head": str(folder / HEAD)}
        return FineTuneResult.from_dict({**values, **places})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> UsageError:
    return UsageError(f"{str(path)!r} is damaged: delete it to train again")
