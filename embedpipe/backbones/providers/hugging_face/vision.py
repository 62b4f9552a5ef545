"""The image encoders of transformers: the network, its tokens, and the poolings that it has."""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from embedpipe._utils.messages.json_values import parse_json
from embedpipe._utils.option_names import option
from embedpipe.backbones.layers.dry_run import trial_batch, try_out
from embedpipe.backbones.network import Features, ImageNetwork
from embedpipe.backbones.providers.hugging_face.folder import hash_files
from embedpipe.backbones.providers.hugging_face.processor import find_recipe
from embedpipe.backbones.spec import Pooling
from embedpipe.errors import UsageError, WeightsError

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
            parts = sorted(set(parse_json(found.read_bytes())["weight_map"].values()))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise WeightsError(f"{str(found)!r} must list the tensors of each file: {error}") from error
        if missing := [part for part in parts if not (folder / part).is_file()]:
            raise WeightsError(
                f"{found.name} names {len(parts)} files of weights, but {str(folder / missing[0])!r} does not exist"
            )


def describe_vision(
    module: Any, processor: Any, folder: Path, origin: str, image_size: int | None = None
) -> ImageNetwork:
    """Return the network of a module of transformers with its own preprocessing and poolings.

    Name and provenance are left to the caller. Features are the last hidden state: tokens or feature maps.

    Raises
    ------
    WeightsError
        If the module does not embed images, or not those of the processor.
    UsageError
        If it does not embed images of the user's size.
    """
    recipe, notes, resized = find_recipe(processor, origin, image_size)
    image_size = image_size if resized else None
    tower = hasattr(module, "get_image_features")  # a text encoder is beside it
    config = getattr(module.config, "vision_config", module.config)
    if getattr(config, "num_channels", 3) != 3:
        raise WeightsError(f"{origin} must take images of 3 channels, got num_channels {config.num_channels}")
    if config.model_type == "vit_mae":
        module.config.mask_ratio = 0.0
    run = _call(module, tower, config.model_type, resized)
    names = [name for name, _ in module.named_parameters() if not name.startswith("text_")]
    prefix = {end: module.get_parameter(name) for name in names if (end := name.rpartition(".")[2]) in _PREFIX}
    network = ImageNetwork(
        name="",
        module=module.eval(),
        preprocessing=recipe,
        origin=origin,
        pretrained=True,
        features=partial(_take, run, "last_hidden_state"),
        prefix_tokens=sum(1 if token.ndim == 1 else token.shape[-2] for token in prefix.values()),
        class_token=any(name in prefix for name in _CLASS),
        config_sha256=hash_files(folder, [folder / "config.json"]),
        image_size=image_size,
        libraries=("transformers", "torchvision", "pillow"),
        notes=notes,
    )
    tokens, pooled = _outputs(network, run)
    if tokens.ndim == 3:
        _require_patches(getattr(config, "patch_size", None), image_size)
        network = replace(network, patches=tokens.shape[1] - network.prefix_tokens)
    if pooled is None:
        return network
    # Class tokens are what publications probe, except where a projection or a norm comes after them.
    is_published = tower or not network.class_token or config.model_type.endswith("_vision_model")
    default: Pooling | None = "pooler" if is_published else None
    return replace(network, pooler=partial(_take, run, "pooler_output"), default_pooling=default)


def _require_patches(patch: Any, image_size: int | None) -> None:
    if image_size is not None and isinstance(patch, int) and image_size % patch:
        below = image_size - image_size % patch
        raise UsageError(
            f"{option('image_size')} must be a multiple of {patch}, the side of a patch, got {image_size}: use "
            f"{f'{below} or ' if below else ''}{below + patch}"
        )


def _call(module: Any, tower: bool, model_type: str, resized: bool) -> Features:
    """Return how a module is called: the image encoder of two, without the masks of pretraining.

    With ``resized``, position embeddings are resampled, where the module has an argument for that.
    """
    method = module.get_image_features if tower else module.forward
    takes_sizes = tower or "interpolate_pos_encoding" in inspect.signature(method).parameters
    options = {"interpolate_pos_encoding": True} if resized and takes_sizes else {}
    if model_type == "vit_mae":
        return partial(_without_masks, options)
    return partial(_image_features if tower else _forward, options)


def _image_features(options: dict[str, bool], module: Any, pixels: Tensor) -> Any:
    return module.get_image_features(pixels, **options)


def _forward(options: dict[str, bool], module: Any, pixels: Tensor) -> Any:
    return module(pixels, **options)


def _without_masks(options: dict[str, bool], module: Any, pixels: Tensor) -> Any:
    """Run ViT-MAE with its patches in their order: it shuffles them even if it masks none."""
    patch = module.config.patch_size
    count = (pixels.shape[-2] // patch) * (pixels.shape[-1] // patch)
    order = torch.arange(count, dtype=torch.float32, device=pixels.device)
    return module(pixels, noise=order.expand(pixels.shape[0], count), **options)


def _take(run: Features, name: str, module: Any, pixels: Tensor) -> Any:
    output = getattr(run(module, pixels), name)
    return output.flatten(1) if name == "pooler_output" else output


def _outputs(network: ImageNetwork, run: Features) -> tuple[Tensor, Tensor | None]:
    """Try the network out, and return its tokens, and its vectors if it has them beside the tokens."""
    try:
        output = try_out(network, lambda tried: run(tried.module, trial_batch(tried)))
    except Exception as error:  # networks raise many types of errors
        height, width = network.preprocessing.crop
        if network.image_size is not None:
            raise UsageError(
                f"{option('image_size')} must be a size that {network.origin} can embed, got {network.image_size}: "
                f"{type(error).__name__}: {error}"
            ) from error
        raise WeightsError(
            f"the network of {network.origin} must embed images of {height} x {width}, to which its "
            f"preprocessing scales them, but got {type(error).__name__}: {error}"
        ) from error
    tokens = getattr(output, "last_hidden_state", None)
    if tokens is None:
        raise WeightsError(
            f"the network of {network.origin} must return last_hidden_state, got {type(output).__name__}"
        )
    return tokens, getattr(output, "pooler_output", None)
