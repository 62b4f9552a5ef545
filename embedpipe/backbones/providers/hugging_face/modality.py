"""Whether a model of Hugging Face embeds images or texts, by the files of its folder; needs no torch for most."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from embedpipe._utils.messages.json_values import parse_json
from embedpipe.backbones.providers.hugging_face.packages import PACKAGES
from embedpipe.errors import WeightsError
from embedpipe.sources.options import Modality

#: Settings of networks that see images.
_OF_IMAGES = ("image_size", "num_channels")

#: A setting of networks that read texts too; a vocabulary alone may be that of BEiT's visual tokens.
_OF_TEXTS = "max_position_embeddings"


#: Types of models with an encoder for images and one for texts, whose vectors lie in one space.
_TWO_ENCODERS = ("clip", "metaclip_2", "siglip", "siglip2")

#: Files of which one holds the words of a tokenizer.
_VOCABULARIES = ("tokenizer.json", "spiece.model", "vocab.json", "vocab.txt", "sentencepiece.bpe.model")

#: Files of which one holds the template by which a model of chats puts images between words.
_CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json")

#: Modules of sentence-transformers that are a model of transformers, and those that choose a module by the input.
_MODELS, _ROUTERS = ("Transformer", "CLIPModel"), ("Router", "Asym")


def modalities_in(name: str, weights: str, offline: bool) -> tuple[Modality, ...]:
    """Return what a model of transformers embeds: both if it has an encoder for each, such as CLIP, and a tokenizer.

    Parameters
    ----------
    name : str
        A folder, or a hub repository.
    weights : str
        ``default``, ``none``, or a folder.
    offline : bool

    Raises
    ------
    WeightsError
        If there is no ``config.json``, or it is not valid.
    """
    return _of_model(_find_folder(name, name, weights, offline, "config.json"))


def modules_in(name: str, repository: str, weights: str, offline: bool) -> dict[Modality, Path]:
    """Return the folder of the module that takes each modality of a model of sentence-transformers, images first.

    Of models that put images into chats only the texts are embedded.

    Raises
    ------
    WeightsError
        If a file that says so does not exist, or is not valid.
    """
    folder = _find_folder(name, repository, weights, offline, "modules.json")
    if not (folder / "modules.json").is_file():
        if not (folder / "config.json").is_file():
            raise WeightsError(f"{str(folder)!r} must be the folder of a model, with config.json or modules.json")
        return dict.fromkeys(_of_model(folder, any_pair=True), folder)
    try:
        first = min(parse_json((folder / "modules.json").read_bytes()), key=lambda module: module["idx"])
        found = _of_module(folder, first["path"], first["type"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise WeightsError(f"{str(folder / 'modules.json')!r} must list the modules of a model: {error}") from error
    return {modality: found[modality] for modality in sorted(found)}


def library_modalities(name: str, weights: str, offline: bool) -> tuple[Modality, ...]:
    """Return what a model of sentence-transformers embeds, by the name that the user typed; see `modules_in`."""
    repository = repository_of(name)
    if weights == "none" or (weights == "default" and repository in PACKAGES and not Path(name).is_dir()):
        return ("text",)
    return tuple(modules_in(name, repository, weights, offline))


def repository_of(name: str) -> str:
    """Return the hub repository of a model of sentence-transformers: those of the library itself have short names."""
    return name if "/" in name else f"sentence-transformers/{name}"


def _of_module(root: Path, path: str, kind: str) -> dict[Modality, Path]:
    folder, name = root / path, kind.rpartition(".")[2]
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError(f"a module must be in the folder, got {path!r}")
    if name in _ROUTERS:
        files = [folder / each for each in ("router_config.json", "config.json")]  # the second before 2025
        router = parse_json(next((each for each in files if each.is_file()), files[0]).read_bytes())
        firsts = [modules[0] for modules in router["structure"].values()]
        routes = [_of_module(folder, first, router["types"][first]) for first in firsts]
        return {modality: place for route in reversed(routes) for modality, place in route.items()}
    if name not in _MODELS:
        return {"text": folder}
    file = folder / "sentence_bert_config.json"
    settings = parse_json(file.read_bytes()) if file.is_file() else {}
    known = settings.get("modality_config")
    if known is None:
        return dict.fromkeys(_of_model(folder, any_pair=True), folder)
    taken: tuple[Modality, ...] = ("text",) if "message" in known else ("image", "text")
    return {modality: folder for modality in taken if modality in known or "message" in known}


def _of_model(folder: Path, any_pair: bool = False) -> tuple[Modality, ...]:
    """Return what a model of transformers embeds; with ``any_pair``, also by a pair of encoders of another type."""
    file = folder / "config.json"
    try:
        config: dict[str, Any] = parse_json(file.read_bytes())
        is_pair = "vision_config" in config
        of_images = is_pair or (_OF_TEXTS not in config and any(key in config for key in _OF_IMAGES))
        of_both = of_images and (config.get("model_type") in _TWO_ENCODERS or (any_pair and is_pair))
    except FileNotFoundError as error:
        raise WeightsError(f"the folder of a model must have config.json, but {str(file)!r} does not exist") from error
    except (OSError, ValueError, TypeError) as error:
        from embedpipe.backbones.weights.checkpoint import refuse_pointer  # needs torch

        if file.is_file():
            refuse_pointer(file)
        raise WeightsError(f"{str(file)!r} is not valid JSON: {error}") from error
    if any_pair and any((folder / template).is_file() for template in _CHAT_TEMPLATES):
        return ("text",)
    if of_both and any((folder / vocabulary).is_file() for vocabulary in _VOCABULARIES):
        return ("image", "text")
    return ("image",) if of_images else ("text",)


def _find_folder(name: str, repository: str, weights: str, offline: bool, file: str) -> Path:
    """Return the folder of a model: the user's, or that of the hub's cache with this file, or one to download."""
    folder = Path(name if weights in ("default", "none") else weights).expanduser()
    if weights not in ("default", "none") or folder.is_dir():
        return folder
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    with contextlib.suppress(HFValidationError):
        stem, _, revision = repository.partition("@")
        if isinstance(cached := try_to_load_from_cache(stem, file, revision=revision or None), str):
            return Path(cached).parent
    from embedpipe.backbones.providers.hugging_face.folder import find_folder  # needs torch

    return find_folder(name, repository, "default", offline)[0]
