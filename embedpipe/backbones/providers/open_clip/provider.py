"""``open_clip/MODEL:TAG``: images and texts in one space, by the networks of open_clip.

Other names are ``hf-hub:ORG/NAME``, a hub repository with a model of open_clip, and ``local-dir:FOLDER``.

Features are the library's ``encode_image`` and ``encode_text``, with the preprocessing with which the weights of that
tag were trained; the library itself uses its default if weights come from a file.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from embedpipe._utils.importing import import_extra
from embedpipe._utils.option_names import option
from embedpipe.backbones.network import ImageNetwork, StateDict, StoredWeights, TextNetwork, Weights
from embedpipe.backbones.providers.hugging_face.library import no_remote_code
from embedpipe.backbones.providers.open_clip.names import CONFIG, FOLDER_FILES, LOCAL, NamedModel, find_model
from embedpipe.backbones.providers.open_clip.tokenizer import make_tokenizer
from embedpipe.backbones.providers.open_clip.tokens import token_layout
from embedpipe.backbones.spec import TextPreprocessing
from embedpipe.backbones.weights.checkpoint import read_checkpoint, unpacked
from embedpipe.backbones.weights.download import fetch_from_hub, fetch_from_url, with_revision
from embedpipe.backbones.weights.tensors import find_resampled, load_strictly, misfit, resize_notes, seeded
from embedpipe.decoding.recipe import Fit, Preprocessing
from embedpipe.errors import BackboneError, MissingExtraError, UsageError, WeightsError


class OpenClipProvider:
    """Provider of the networks of open_clip, with both encoders."""

    reads_files = True
    takes_image_size = True

    def names(self) -> list[str]:
        """Return every architecture, alone and with each tag of its weights; none if the library is missing."""
        try:
            library = import_extra("open_clip", "clip")
        except MissingExtraError:
            return []
        return sorted({*library.list_models(), *library.list_pretrained(as_str=True)})

    def load(self, name: str, weights: Weights, offline: bool, image_size: int | None = None) -> ImageNetwork:
        """Build a network; see `Provider.load`."""
        with unpacked(weights, CONFIG) as weights:
            return _load(name, weights, offline, image_size)


def _load(name: str, weights: Weights, offline: bool, image_size: int | None) -> ImageNetwork:
    library = import_extra("open_clip", "clip")
    model = find_model(library, name, weights, offline)
    stored = _weights(library, model, weights, offline)
    image_size = None if image_size == model.config["vision_cfg"].get("image_size", 224) else image_size
    module = _build(library, model, offline, image_size)
    notes: tuple[str, ...] = ()
    originals: StateDict = {}
    if stored is not None:
        try:
            load_strictly(module, _converted(library, module, stored.state), stored.origin)
        except WeightsError as error:
            raise error if image_size is None else misfit(error, stored.origin, image_size) from error
    if image_size is not None and hasattr(module.visual, "set_input_size"):  # of timm's networks, after the weights
        _resize(module.visual, model.name, image_size)
    if stored is not None:
        originals = find_resampled(module, stored.state)
        notes = (*stored.notes, *resize_notes(module, originals, asked=image_size is not None))
    origin = "random, seeded" if stored is None else stored.origin
    pretrained = stored is not None
    text = model.config["text_cfg"]
    known = model.files is not None and not any(text.get(key) for key in ("hf_model_name", "hf_tokenizer_name"))
    files = (*(model.files or ()), *(() if stored is None else stored.files)) if known else None
    tokenizer, sha256, length = make_tokenizer(text, model.text_folder, offline)
    visual: Any = module.visual
    recipe = _preprocessing(visual.preprocess_cfg, model.name)
    return ImageNetwork(
        name=model.name,
        module=module,
        preprocessing=recipe,
        origin=origin,
        pretrained=pretrained,
        features=_encode_image,
        channels_last=getattr(getattr(visual, "trunk", None), "output_fmt", "NCHW") == "NHWC",
        image_size=image_size,
        originals=originals,
        text=TextNetwork(
            name=model.name,
            module=module,
            preprocessing=TextPreprocessing(sha256, length),
            tokenizer=tokenizer,
            origin=origin,
            pretrained=pretrained,
            features=_encode_text,
            normalised=isinstance(module, library.CoCa),
            libraries=("open_clip_torch", "ftfy", "transformers" if text.get("hf_tokenizer_name") else "regex"),
            notes=notes,
            files=files,
        ),
        config_sha256=model.config_sha256,
        settings=model.settings,
        libraries=("open_clip_torch", "timm", "torchvision", "pillow"),
        notes=notes,
        files=files,
        **token_layout(visual, recipe.crop),
    )


def _encode_image(module: Any, pixels: Tensor) -> Any:
    return module.encode_image(pixels)


def _encode_text(module: Any, batch: dict[str, Tensor]) -> Any:
    return module.encode_text(batch["tokens"])


def _weights(library: Any, model: NamedModel, weights: Weights, offline: bool) -> StoredWeights | None:
    """Return the published weights, those of the model's folder, or the user's; None for random weights."""
    if weights == "none":
        return None
    if isinstance(weights, StoredWeights):
        return weights
    if isinstance(weights, Path) and not weights.is_dir():
        return read_checkpoint(weights).weights
    folder = weights if isinstance(weights, Path) else model.folder
    if folder is not None:
        files = [folder / name for name in FOLDER_FILES if (folder / name).is_file()]
        if not files:
            raise WeightsError(
                f"the folder {str(folder)!r} has no weights: it must have one of {', '.join(FOLDER_FILES)}"
            )
        return read_checkpoint(files[0]).weights
    published = model.published or {}
    if not published.get("hf_hub"):
        file = fetch_from_url(str(published["url"]), offline)
        return StoredWeights(read_checkpoint(file).weights.state, f"open_clip's download, {file.name}", files=(file,))
    repository, _, name = published["hf_hub"].rpartition("/")
    constants = library.constants
    names = [constants.HF_SAFE_WEIGHTS_NAME, constants.HF_WEIGHTS_NAME]
    if name:
        names = [str(Path(name).with_suffix(".safetensors")), name]
    file = fetch_from_hub(repository, names, offline)
    return StoredWeights(read_checkpoint(file).weights.state, f"the hub, {repository}", files=with_revision(file))


def _build(library: Any, model: NamedModel, offline: bool, image_size: int | None) -> Any:
    """Build the network with random weights, the same every time."""
    changes: dict[str, Any] = {}
    text = model.config["text_cfg"]
    if repository := text.get("hf_model_name"):
        folder = model.text_folder
        if folder is None or not (folder / "config.json").is_file():
            folder = fetch_from_hub(repository, ["config.json"], offline).parent
        changes["text_cfg"] = {**text, "hf_model_name": str(folder), "hf_model_pretrained": False}
    if image_size is not None and "timm_model_name" not in model.config["vision_cfg"]:
        changes["force_image_size"] = image_size
    name = model.name.partition(":")[0] if model.folder is None else f"{LOCAL}{model.folder}"
    try:
        with seeded(), _silent(), no_remote_code():
            module: nn.Module = library.create_model(
                name, load_weights=False, pretrained_text=False, force_preprocess_cfg=model.recipe, **changes
            )
    except Exception as error:  # the libraries raise many types of errors for a wrong configuration
        raise BackboneError(
            f"open_clip cannot build {model.name}{f' from {str(model.folder)!r}' if model.folder else ''}: "
            f"{type(error).__name__}: {error}"
        ) from error
    return module


def _resize(visual: Any, name: str, image_size: int) -> None:
    try:
        visual.set_input_size(image_size)
    except Exception as error:  # timm's networks raise many types of errors
        raise UsageError(
            f"{option('image_size')} must be a size that {name} can embed, got {image_size}: "
            f"{type(error).__name__}: {error}"
        ) from error
    visual.preprocess_cfg = {**visual.preprocess_cfg, "size": image_size}


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Suppress the library's warning about random weights, and its configuration of the root logger."""
    handler, root = logging.NullHandler(), logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


def _converted(library: Any, module: Any, state: StateDict) -> StateDict:
    """Convert older weights for the module, as the library's ``load_checkpoint`` does."""
    model, convert = library.model, library.convert
    state = dict(convert.convert_state_dict(module, state))
    if "positional_embedding" in state and not hasattr(module, "positional_embedding"):
        state = model.convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):
        parameter = getattr(module, name, None)
        if parameter is not None and name in state:
            state[name] = state[name].reshape(parameter.shape)
    if getattr(module, "logit_bias", None) is not None and "logit_bias" not in state:
        state["logit_bias"] = torch.zeros_like(module.logit_bias)
    state.pop("text.transformer.embeddings.position_ids", None)  # older transformers saved them
    model.resize_pos_embed(state, module)
    model.resize_text_pos_embed(state, module)
    return state


def _preprocessing(config: dict[str, Any], name: str) -> Preprocessing:
    """Return ``open_clip.image_transform(..., is_train=False)`` as a recipe."""
    size, mode = config["size"], config["resize_mode"]
    height, width = crop = (size, size) if isinstance(size, int) else (size[0], size[-1])
    mean, std = (tuple(v) if isinstance(v, list | tuple) else (v,) * 3 for v in (config["mean"], config["std"]))
    fits: dict[str, Fit] = {"squash": "squash", "shortest": "cover", "longest": "border"}
    if mode == "longest" and any(round(255 * value) != config["fill_color"] for value in mean):
        raise BackboneError(
            f"{name} scales the longer side and pads with the colour {config['fill_color']}, which is not supported"
        )
    square = height == width
    # The library uses bicubic for shapes that are not square, whatever the configuration says.
    bilinear = config["interpolation"] == "bilinear" and (square or mode != "shortest")
    return Preprocessing(
        resize=(height,) if square and mode == "shortest" else crop,
        crop=crop,
        interpolation="bilinear" if bilinear else "bicubic",
        mean=mean,
        std=std,
        fit="squash" if square and mode == "shortest" else fits[mode],
    )
