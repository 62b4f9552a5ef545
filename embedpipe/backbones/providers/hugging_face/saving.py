"""Saving a trained network as a model's folder, which transformers or sentence-transformers loads."""

from __future__ import annotations

import copy
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from embedpipe._utils.atomic import whole_folder
from embedpipe._utils.importing import import_extra
from embedpipe.backbones.network import ImageNetwork, StateDict, TextNetwork
from embedpipe.backbones.providers.hugging_face.library import quiet
from embedpipe.backbones.weights.tensors import seeded

#: Suffixes of the files of a tokenizer or of preprocessing.
_COPIED = {".json", ".txt", ".model", ".jinja"}


def save_model(network: ImageNetwork | TextNetwork, state: StateDict, folder: Path) -> None:
    """Write a network with other weights as a folder, or replace the folder.

    Parameters
    ----------
    network : ImageNetwork or TextNetwork
        Of the providers ``sentence-transformers`` or ``transformers``.
    state : dict of str to Tensor
        The tensors of its module.
    folder : path

    Raises
    ------
    WriteError
        If the folder cannot be written.
    """
    module: Any = copy.deepcopy(network.module).cpu()
    module.load_state_dict(state)
    with whole_folder(folder) as part, quiet():
        if "sentence-transformers" in network.libraries:
            module.save_pretrained(str(part), create_model_card=False)
        else:
            original = (network.files or ())[0]
            _save_encoder(module, original, part)
            for file in original.iterdir():
                if file.suffix in _COPIED and not file.name.endswith(".index.json") and not (part / file.name).exists():
                    shutil.copyfile(file, part / file.name)
        for file in part.rglob("*.safetensors"):
            _rewrite(file, network.gaps.names)


def random_weights(module: nn.Module) -> StateDict:
    """Return tensors of the models of transformers inside a module with the random weights of their architecture."""
    library = import_extra("transformers", "text")
    state: StateDict = {}
    with seeded():
        for path, part in _outermost(module, library.PreTrainedModel):
            fresh: nn.Module = type(part)(part.config)
            state |= {f"{path}.{name}" if path else name: tensor for name, tensor in fresh.state_dict().items()}
    return state


def _outermost(module: nn.Module, kind: type[nn.Module]) -> Iterator[tuple[str, Any]]:
    inside: tuple[str, ...] = ()
    for path, part in module.named_modules():
        if isinstance(part, kind) and not path.startswith(inside):
            inside = (*inside, f"{path}." if path else "")
            yield path, part


def _save_encoder(module: Any, original: Path, folder: Path) -> None:
    """Save a model of transformers; an encoder as a part of its model, without the decoder."""
    if not module.config.is_encoder_decoder:
        module.save_pretrained(folder)
        return
    library = import_extra("transformers", "text")
    config = library.AutoConfig.from_pretrained(original, local_files_only=True, trust_remote_code=False)
    whole = library.AutoModel.from_config(config, trust_remote_code=False)
    whole.get_encoder().load_state_dict(module.state_dict())
    own = {tensor.data_ptr() for tensor in whole.get_encoder().state_dict().values()}
    state = {name: tensor for name, tensor in whole.state_dict().items() if tensor.data_ptr() in own}
    whole.save_pretrained(folder, state_dict=state)


def _rewrite(file: Path, gaps: frozenset[str]) -> None:
    """Drop the tensors that the weights lacked before, and give the file the usual permissions."""
    if gaps:
        tensors = {name: tensor for name, tensor in load_file(file).items() if not _is_nan(tensor)}
        save_file(tensors, file, metadata={"format": "pt"})
    usual = file.with_suffix(".mode")
    usual.touch()
    file.chmod(stat.S_IMODE(usual.stat().st_mode))  # safetensors makes files that only their owner can read
    usual.unlink()


def _is_nan(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and bool(tensor.isnan().all())
