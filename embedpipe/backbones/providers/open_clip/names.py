"""From the name of an open_clip network to its configuration, its preprocessing and the location of its weights."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from embedpipe._utils.messages.json_values import parse_json
from embedpipe._utils.option_names import option
from embedpipe.backbones.network import StoredWeights, Weights
from embedpipe.backbones.weights.download import fetch_files, pinned, split_revision, with_revision
from embedpipe.errors import UnknownBackboneError, UsageError, WeightsError, nearest

#: open_clip's prefix of a folder with ``open_clip_config.json``, weights and possibly a tokenizer.
LOCAL = "local-dir:"

#: Its prefix of a hub repository with such a folder, ``ORG/NAME`` or ``ORG/NAME@REVISION``.
HUB = "hf-hub:"

CONFIG = "open_clip_config.json"

#: Names of a folder's weights file, in the library's order of preference.
FOLDER_FILES = (
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth", "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth",
)  # fmt: skip

#: The keys of a tag's entry that are preprocessing.
_RECIPE = ("mean", "std", "interpolation", "resize_mode", "fill_color")


@dataclass(frozen=True)
class NamedModel:
    """The network of a name: its configuration, its preprocessing and the location of its files.

    ``text_folder`` holds the tokenizer and a text encoder's ``config.json``; None for the hub repositories that the
    configuration names. ``files`` are those that decide the network, if they are known. ``config_sha256`` is the hash
    of a repository's configuration, ``settings`` the content of a folder's.
    """

    name: str
    config: dict[str, Any]
    recipe: dict[str, Any]
    published: dict[str, Any] | None = None
    folder: Path | None = None
    text_folder: Path | None = None
    files: tuple[Path, ...] | None = None
    config_sha256: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


def find_model(library: Any, name: str, weights: Weights, offline: bool) -> NamedModel:
    """Return the network of a name. Raises UnknownBackboneError, UsageError or WeightsError."""
    if name.startswith(HUB):
        return _of_repository(library, name.removeprefix(HUB), weights, offline)
    if name.startswith(LOCAL):
        if (copy := _copy(weights)) is not None:
            return _in_folder(library, copy)
        return _in_folder(library, Path(name.removeprefix(LOCAL)).expanduser())
    architecture, _, tag = name.replace("/", "-").partition(":")
    if architecture not in (known := library.list_models()):
        raise UnknownBackboneError(
            f"open_clip {library.__version__} has no model {architecture!r}{nearest(architecture, known) or '.'} "
            "`embedpipe backbones open_clip/` lists them"
        )
    tags = library.list_pretrained_tags_by_model(architecture)
    available = f"available: {', '.join(tags)}" if tags else "it has none"
    if tag:
        tag = tag.lower().replace("-", "_")  # as the library reads tags
        if tag not in tags:
            raise UnknownBackboneError(
                f"open_clip's {architecture!r} has no weights tagged {tag!r}{nearest(tag, tags)} ({available})"
            )
        architecture = _as_trained(library, architecture, tag)
        published = library.get_pretrained_cfg(architecture, tag)
        config = library.get_model_config(architecture)
        return NamedModel(f"{architecture}:{tag}", config, _recipe(published), published, files=())
    if weights == "default":
        raise WeightsError(
            f"open_clip/{architecture} needs the tag of its weights, as in open_clip/{architecture}:TAG ({available}). "
            f"Or pass your own with {option('weights', 'PATH')}, or use random weights with {option('weights', 'none')}"
        )
    if isinstance(weights, Path) and weights.is_dir():
        model = _in_folder(library, weights)
        if model.name != architecture:
            raise WeightsError(f"the folder {str(weights)!r} must hold {architecture!r}, but holds {model.name!r}")
        return model
    recipes = {json.dumps(_recipe(library.get_pretrained_cfg(architecture, tag))) for tag in tags}
    if len(recipes) > 1 and weights != "none":
        raise UsageError(
            f"open_clip/{architecture} was trained with more than one preprocessing: name the tag of the weights, or "
            f"of those they were fine-tuned from, as in open_clip/{architecture}:TAG ({available})"
        )
    recipe = parse_json(recipes.pop()) if len(recipes) == 1 else {}
    return NamedModel(architecture, library.get_model_config(architecture), recipe, files=())


def _as_trained(library: Any, architecture: str, tag: str) -> str:
    """Return the architecture with the activation of a tag's training, which may have another name in the library.

    ``ViT-B-32:openai`` and ``ViT-B-32-quickgelu:openai`` are the same weights, which were trained with the latter.
    """
    twin = f"{architecture}-quickgelu"
    trained = library.get_pretrained_cfg(architecture, tag).get("quick_gelu", False)
    built = (library.get_model_config(architecture) or {}).get("quick_gelu", False)
    return twin if trained and not built and tag in library.list_pretrained_tags_by_model(twin) else architecture


def _recipe(published: dict[str, Any]) -> dict[str, Any]:
    return {key: published[key] for key in _RECIPE if key in published}


def _of_repository(library: Any, repository: str, weights: Weights, offline: bool) -> NamedModel:
    """Fetch the folder of a hub repository, or take the user's copy of it."""
    copy = _copy(weights)
    groups = [[CONFIG], FOLDER_FILES] if weights == "default" else [[CONFIG]]
    folder = fetch_files(repository, groups, offline) if copy is None else copy
    model = _in_folder(library, folder)
    digest = _digest(model.config)
    commit = pinned(repository, folder)
    if model.config["text_cfg"].get("hf_tokenizer_name") == split_revision(repository)[0]:
        model.config["text_cfg"]["hf_tokenizer_name"] = commit
    return replace(
        model,
        name=f"{HUB}{commit}",
        text_folder=copy,
        files=None if copy is not None else with_revision(folder / CONFIG, repository),
        config_sha256=digest,
    )


def _copy(weights: Weights) -> Path | None:
    """Return the user's folder of a model, or that with the configuration that a file of weights holds."""
    if isinstance(weights, StoredWeights):
        return weights.folder
    return weights if isinstance(weights, Path) and weights.is_dir() else None


def _in_folder(library: Any, folder: Path) -> NamedModel:
    """Read the folder that open_clip's ``local-dir:`` takes; a known architecture keeps its name."""
    file = folder / CONFIG
    try:
        content = parse_json(file.read_text(encoding="utf-8"))
        config = content["model_cfg"]
        recipe = _recipe(content.get("preprocess_cfg", {}))
        if not isinstance(config["vision_cfg"], dict) or not isinstance(config["text_cfg"], dict):
            raise TypeError("vision_cfg and text_cfg must be objects")
        _refuse_places(config)
    except FileNotFoundError as error:
        raise WeightsError(
            f"{str(folder)!r} must be the folder of an open_clip model, but has no {CONFIG}: pass "
            f"the folder with {option('weights', 'PATH')}"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{str(file)!r} is not a configuration of open_clip: {type(error).__name__}: {error}"
        ) from error
    known = (name for name in library.list_models() if library.get_model_config(name) == config)
    name = next(known, f"{LOCAL}{_digest(config)[:16]}")
    return NamedModel(name, config, recipe, folder=folder, text_folder=folder, settings=content)


def _refuse_places(config: dict[str, Any]) -> None:
    """Raise ValueError if a configuration names files, folders or repositories that the library would read."""
    network = str(config["vision_cfg"].get("timm_model_name", ""))
    if ":" in network:
        raise ValueError(f"timm_model_name must be a network of timm itself, got {network!r}")
    for name in config["text_cfg"].get("tokenizer_kwargs", {}):
        if re.search(r"(file|path|dir|folder|proxies)$", str(name)):
            raise ValueError(f"tokenizer_kwargs must not name files, got {name!r}")


def _digest(config: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
