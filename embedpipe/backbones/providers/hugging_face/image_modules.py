"""The images of a model of sentence-transformers: its own preprocessing, and the vectors of its ``encode``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor, nn

from embedpipe._utils.option_names import option
from embedpipe.backbones.layers.dry_run import trial_batch, try_out
from embedpipe.backbones.network import Gaps, ImageNetwork
from embedpipe.backbones.providers.hugging_face.folder import hash_files
from embedpipe.backbones.providers.hugging_face.processor import find_recipe
from embedpipe.errors import UsageError, WeightsError

#: Files, at any depth, that decide the vectors of images beside the weights and the preprocessing.
_CONFIGURATION = ("modules.json", "router_config.json", "config.json", "sentence_bert_config.json")


def describe_images(model: Any, folder: Path, origin: str, image_size: int | None, gaps: Gaps) -> ImageNetwork:
    """Return the network of a model of sentence-transformers for images.

    Name and provenance are left to the caller. Features are the vectors of its ``encode``.

    Raises
    ------
    WeightsError
        If its preprocessing has no recipe, or it does not embed the pixels that it gives.
    UsageError
        If it does not embed images of the user's size.
    """
    part = _module_of_images(model, origin)
    processor = getattr(part.processor, "image_processor", part.processor)
    recipe, notes, resized = find_recipe(processor, origin, image_size, partial(_pixels, model))
    image_size = image_size if resized else None
    settings: dict[str, Any] = {"modality": "image"}
    if image_size is not None:
        settings["interpolate_pos_encoding"] = True
    network = ImageNetwork(
        name="",
        module=model.eval(),
        preprocessing=recipe,
        origin=origin,
        pretrained=True,
        features=partial(_features, settings),
        config_sha256=hash_files(folder, sorted(file for name in _CONFIGURATION for file in folder.rglob(name))),
        image_size=image_size,
        libraries=("sentence-transformers", "transformers", "torchvision", "pillow"),
        gaps=gaps,
        notes=notes,
    )
    try:
        try_out(network, lambda tried: network.features(tried.module, trial_batch(tried)))
    except Exception as error:  # networks raise many types of errors
        height, width = recipe.crop
        if image_size is not None:
            raise UsageError(
                f"{option('image_size')} must be a size that {origin} can embed, got {image_size}: "
                f"{type(error).__name__}: {error}"
            ) from error
        raise WeightsError(
            f"the network of {origin} must embed images of {height} x {width}, to which its preprocessing scales them, "
            f"but got {type(error).__name__}: {error}"
        ) from error
    return network


def _module_of_images(model: Any, origin: str) -> Any:
    """Return the module that takes images, which may be behind one that chooses a module by the input."""
    routes = getattr(model[0], "sub_modules", None)
    firsts = [model[0]] if routes is None else [modules[0] for modules in routes.values()]
    for module in firsts:
        if "image" in getattr(module, "modality_config", {}):
            return module
    raise WeightsError(
        f"the files of {origin} must have a module that takes images, as they say, but sentence-transformers loads "
        f"{', '.join(type(module).__name__ for module in firsts)} without one: the model's folder lacks its "
        "preprocessor_config.json"
    )


def _pixels(model: Any, image: Image.Image) -> npt.NDArray[np.float64]:
    features: Mapping[str, Any] = model.preprocess([image])
    if others := [name for name, value in features.items() if isinstance(value, Tensor) and name != "pixel_values"]:
        raise ValueError(f"it gives {', '.join(others)} beside the pixels")
    pixels: npt.NDArray[np.float64] = np.asarray(features["pixel_values"], np.float64)[0]
    return pixels


def _features(settings: Mapping[str, Any], module: nn.Module, pixels: Tensor) -> Any:
    vectors = module({"pixel_values": pixels, **settings})["sentence_embedding"]
    return vectors[:, : getattr(module, "truncate_dim", None)]
