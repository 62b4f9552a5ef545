"""The folder of a Hugging Face model: finding it, and the hash of its configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from embedpipe._utils.importing import package_folder
from embedpipe._utils.messages.json_values import parse_json
from embedpipe.backbones.network import StoredWeights, Weights
from embedpipe.backbones.providers.hugging_face.packages import PACKAGES
from embedpipe.backbones.weights.checkpoint import refuse_pointer
from embedpipe.backbones.weights.download import fetch_repository, pinned
from embedpipe.errors import WeightsError

#: Parts of a configuration that do not affect the vectors.
_REMARKS = (
    "_name_or_path", "name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "__version__",
    "special_tokens_map_file", "tokenizer_file",
)  # fmt: skip


def find_folder(name: str, repository: str, weights: Weights, offline: bool) -> tuple[Path, str, str]:
    """Find a model's folder: the user's, a package's, or the hub's.

    Parameters
    ----------
    name : str
        The name that the user typed, which may be a folder.
    repository : str
        The hub repository of that name, ``ORG/NAME`` or ``ORG/NAME@REVISION``.
    weights : Path, or "default" or "none"
        The tensors of a file are refused: a model's folder has what decides the vectors beside them.
    offline : bool

    Returns
    -------
    folder : Path
    name : str
        The name for the spec, which does not depend on where the folder is, with the commit of a hub repository.
    origin : str
        The origin of the weights, for the user.

    Raises
    ------
    WeightsError
        If the folder does not exist and cannot be downloaded, or the weights are those of a file.
    """
    if isinstance(weights, StoredWeights):
        raise WeightsError(
            f"the weights of {name} must be the folder of a model, with config.json, got the file {weights.origin!r}: "
            "save the model with save_pretrained, and use that folder as the backbone"
        )
    folder = weights if isinstance(weights, Path) else Path(name).expanduser()
    if isinstance(weights, Path) or (folder.is_dir() and _is_model(folder)):
        if not _is_model(folder):
            raise WeightsError(f"{str(folder)!r} must be the folder of a model, with config.json or modules.json")
        for file in (*folder.glob("*.*"), *folder.glob("*/*.*")):
            if file.is_file():
                refuse_pointer(file)
        if (folder / "adapter_config.json").is_file():
            raise WeightsError(
                f"{str(folder)!r} must be the folder of a whole model, but adapter_config.json says that it is an "
                "adapter of another one: merge them (peft: merge_and_unload) and save the result"
            )
        return folder, folder.resolve().name if folder == Path(name).expanduser() else name, str(folder)
    if repository in PACKAGES:
        package, inside = PACKAGES[repository]
        return package_folder(package, "text") / inside, name, f"the package {package}"
    folder = fetch_repository(repository, offline)
    return folder, pinned(name, folder), f"the hub, {repository}"


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("modules.json", "config.json"))


def says_matryoshka(folder: Path) -> bool:
    """Return whether a model's card or configuration names Matryoshka training, for which there is no one key."""
    files = (folder / name for name in ("README.md", "config.json", "config_sentence_transformers.json"))
    return any(b"matryoshka" in file.read_bytes().lower() for file in files if file.is_file())


def hash_configuration(folder: Path) -> str:
    """Return the SHA-256, in hex, of everything beside the weights that decides a model's vectors.

    It covers the JSON files of the folder and of its modules' folders, without remarks such as version numbers, and the
    tokenizer's vocabulary if there is no ``tokenizer.json``. Raises WeightsError for invalid JSON.
    """
    names = ["config.json", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"]
    names += ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]
    vocabulary = ["tokenizer.json"]
    if not (folder / "tokenizer.json").is_file():
        vocabulary = ["vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model"]
    files = [folder / name for name in (*names, *vocabulary)]
    files += sorted(folder.glob("*/config.json")) + sorted(folder.glob("*/tokenizer.json"))
    return hash_files(folder, files)


def hash_files(folder: Path, files: Iterable[Path]) -> str:
    """Return the SHA-256, in hex, of those files of a model's folder that exist, without remarks in JSON files.

    Raises WeightsError for invalid JSON.
    """
    digest = hashlib.sha256()
    for file in files:
        if not file.is_file():
            continue
        content = file.read_bytes()
        if file.suffix == ".json" and file.name not in ("tokenizer.json", "vocab.json"):
            try:
                content = json.dumps(_without_remarks(parse_json(content)), sort_keys=True).encode()
            except (ValueError, RecursionError) as error:
                raise WeightsError(f"{str(file)!r} is not valid JSON: {error}") from error
        digest.update(f"{file.relative_to(folder).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _without_remarks(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {k: _without_remarks(v) for k, v in value.items() if k not in _REMARKS}
