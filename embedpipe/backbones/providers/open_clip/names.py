"""From the name of an open_clip network to its configuration, its preprocessing and the location of its weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedpipe._utils.option_names import option
from embedpipe.backbones.network import Weights
from embedpipe.errors import UnknownBackboneError, UsageError, WeightsError, nearest

#: open_clip's prefix of a folder with ``open_clip_config.json``, weights and possibly a tokenizer.
LOCAL = "local-dir:"

#: The keys of a tag's entry that are preprocessing.
_RECIPE = ("mean", "std", "interpolation", "resize_mode", "fill_color")


@dataclass(frozen=True)
class NamedModel:
    """The network of a name: its configuration, its preprocessing and the location of its files."""

    name: str
    config: dict[str, Any]
    recipe: dict[str, Any]
    published: dict[str, Any] | None = None
    folder: Path | None = None


def find_model(library: Any, name: str, weights: Weights) -> NamedModel:
    """Return the network of a name. Raises UnknownBackboneError, UsageError or WeightsError."""
    if name.startswith(LOCAL):
        if isinstance(weights, Path) and weights.is_dir():
            return _in_folder(library, weights)
        return _in_folder(library, Path(name.removeprefix(LOCAL)).expanduser())
    architecture, _, tag = name.replace("/", "-").partition(":")
    if architecture not in (known := library.list_models()):
        raise UnknownBackboneError(
            f"open_clip {library.__version__} has no model {architecture!r}{nearest(architecture, known)}; "
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
        return NamedModel(f"{architecture}:{tag}", config, _recipe(published), published)
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
    recipe = json.loads(recipes.pop()) if len(recipes) == 1 else {}
    return NamedModel(architecture, library.get_model_config(architecture), recipe)


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


def _in_folder(library: Any, folder: Path) -> NamedModel:
    """Read the folder that open_clip's ``local-dir:`` takes; a known architecture keeps its name."""
    file = folder / "open_clip_config.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        config = content["model_cfg"]
        recipe = _recipe(content.get("preprocess_cfg", {}))
        if not isinstance(config["vision_cfg"], dict) or not isinstance(config["text_cfg"], dict):
            raise TypeError("vision_cfg and text_cfg must be objects")
    except FileNotFoundError as error:
        raise WeightsError(
            f"{str(folder)!r} must be the folder of an open_clip model, but has no open_clip_config.json: "
            f"pass the folder with {option('weights', 'PATH')}"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{str(file)!r} is not a configuration of open_clip: {type(error).__name__}: {error}"
        ) from error
    known = (name for name in library.list_models() if library.get_model_config(name) == config)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    return NamedModel(next(known, LOCAL + digest[:16]), config, recipe, folder=folder)
