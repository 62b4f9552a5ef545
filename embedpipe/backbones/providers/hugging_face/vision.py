"""The image encoders of transformers: the network, its tokens, and the poolings that it has."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from embedpipe.backbones.network import Features, ImageNetwork
from embedpipe.backbones.providers.hugging_face.folder import hash_files
from embedpipe.backbones.providers.hugging_face.processor import find_recipe
from embedpipe.backbones.spec import Pooling
from embedpipe.decoding.recipe import Preprocessing
from embedpipe.errors import WeightsError

#: Files of which one describes the preprocessing.
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")

#: Files of which one holds the weights, or names the files that do.
_WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip

#: Parameters of tokens before the patches. The first is the class token, whose name depends on the model.
_CLASS = ("cls_token", "class_embedding")
_PREFIX = (*_CLASS, "register_tokens", "distillation_token")


def require_files(folder: Path, random: bool) -> None:
    """Raise WeightsError, which names the file, unless the folder of an image model is complete."""
    if not any((folder / name).is_file() for name in _PROCESSORS):
        raise WeightsError(
            f"the folder of an image model must have its preprocessing, but {str(folder / _PROCESSORS[0])!r} does not "
            "exist: get it from where the weights come from, or save it with AutoImageProcessor.save_pretrained"
        )
    if random:
        return
    found = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise WeightsError(
            f"the folder of a model must have its weights, but {str(folder / _WEIGHTS[0])!r} does not exist"
        )
    if found.suffix == ".json":
        try:
            parts = sorted(set(json.loads(found.read_bytes())["weight_map"].values()))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise WeightsError(f"{str(found)!r} must list the tensors of each file: {error}") from error
        if missing := [part for part in parts if not (folder / part).is_file()]:
            raise WeightsError(
                f"{found.name} names {len(parts)} files of weights, but {str(folder / missing[0])!r} does not exist"
            )


def describe_vision(module: Any, processor: Any, folder: Path, origin: str) -> ImageNetwork:
    """Return the network of a module of transformers with its own preprocessing and poolings.

    Name and provenance are left to the caller. Features are the last hidden state: tokens or feature maps.

    Raises
    ------
    WeightsError
        If the module does not embed images, or not those of the processor.
    """
    recipe, notes = find_recipe(processor, origin)
    tower = hasattr(module, "get_image_features")  # a text encoder is beside it
    config = getattr(module.config, "vision_config", module.config)
    if getattr(config, "num_channels", 3) != 3:
        raise WeightsError(f"{origin} must take images of 3 channels, got num_channels {config.num_channels}")
    if config.model_type == "vit_mae":
        module.config.mask_ratio = 0.0
    run = _call(tower, config.model_type)
    names = [name for name, _ in module.named_parameters() if not name.startswith("text_")]
    prefix = {end: module.get_parameter(name) for name in names if (end := name.rpartition(".")[2]) in _PREFIX}
    class_token = any(name in prefix for name in _CLASS)
    pooler = run if _has_pooler(module, run, recipe, origin) else None
    # Class tokens are what publications probe, except where a projection or a norm comes after them.
    trained = pooler is not None and (tower or not class_token or config.model_type.endswith("_vision_model"))
    default: Pooling | None = "pooler" if trained else None
    return ImageNetwork(
        name="",
        module=module,
        preprocessing=recipe,
        origin=origin,
        pretrained=True,
        features=partial(_take, run, "last_hidden_state"),
        prefix_tokens=sum(1 if token.ndim == 1 else token.shape[-2] for token in prefix.values()),
        class_token=class_token,
        pooler=None if pooler is None else partial(_take, run, "pooler_output"),
        default_pooling=default,
        config_sha256=hash_files(folder, [folder / "config.json"]),
        libraries=("transformers", "torchvision", "pillow"),
        notes=notes,
    )


def _call(tower: bool, model_type: str) -> Features:
    """Return how a module is called: without the masks of pretraining, and the image encoder of two."""
    if model_type == "vit_mae":
        return _without_masks
    return _image_features if tower else nn.Module.__call__


def _image_features(module: Any, pixels: Tensor) -> Any:
    return module.get_image_features(pixels)


def _without_masks(module: Any, pixels: Tensor) -> Any:
    """Run ViT-MAE with its patches in their order: it shuffles them even if it masks none."""
    count = module.embeddings.patch_embeddings.num_patches
    order = torch.arange(count, dtype=torch.float32, device=pixels.device)
    return module(pixels, noise=order.expand(pixels.shape[0], count))


def _take(run: Features, name: str, module: Any, pixels: Tensor) -> Any:
    output = getattr(run(module, pixels), name)
    return output.flatten(1) if name == "pooler_output" else output


def _has_pooler(module: Any, run: Features, recipe: Preprocessing, origin: str) -> bool:
    """Run the network once, and return whether its output has vectors beside the tokens."""
    try:
        with torch.inference_mode():
            output = run(module.eval(), torch.zeros(1, 3, *recipe.crop, dtype=module.dtype))
    except Exception as error:  # networks raise many types of errors
        raise WeightsError(
            f"the network of {origin} must embed images of {recipe.crop[0]} x {recipe.crop[1]}, to which its "
            f"preprocessing scales them, but got {type(error).__name__}: {error}"
        ) from error
    if getattr(output, "last_hidden_state", None) is None:
        raise WeightsError(f"the network of {origin} must return last_hidden_state, got {type(output).__name__}")
    return getattr(output, "pooler_output", None) is not None
