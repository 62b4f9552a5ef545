"""``timm/NAME``: every network of the timm library, with or without a tag.

Features are ``model.forward_head(model.forward_features(x), pre_logits=True)``, and preprocessing is
``timm.data.resolve_model_data_config(model)``: timm's own recipe for feature extraction.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

from torch import Tensor

from embedpipe._utils.importing import compiler_deferred
from embedpipe._utils.option_names import option
from embedpipe.backbones.network import ImageNetwork, StateDict, StoredWeights, Weights
from embedpipe.backbones.providers.timm.names import CONFIG, NamedModel, find_model
from embedpipe.backbones.providers.timm.packages import read_package
from embedpipe.backbones.providers.timm.tokens import require_patches, token_layout
from embedpipe.backbones.weights.checkpoint import read_checkpoint, unpacked
from embedpipe.backbones.weights.download import fetch_from_hub, fetch_from_url, with_revision
from embedpipe.backbones.weights.tensors import find_resampled, misfit, require_floats, resize_notes, seeded
from embedpipe.decoding.recipe import Fit, Preprocessing
from embedpipe.errors import BackboneError, UsageError, WeightsError

with compiler_deferred():
    import timm
    from timm.data.config import resolve_model_data_config
    from timm.models import PretrainedCfg


class TimmProvider:
    """Provider of the networks of timm."""

    takes_image_size = True

    def names(self) -> list[str]:
        """Return every architecture, and every name with a tag."""
        return sorted({*timm.list_models(), *timm.list_pretrained()})

    def load(self, name: str, weights: Weights, offline: bool, image_size: int | None = None) -> ImageNetwork:
        """Build a network; see `Provider.load`. The name may be one of a hub repository or a folder."""
        with unpacked(weights, CONFIG) as weights:
            return _load(name, weights, offline, image_size)


def _load(name: str, weights: Weights, offline: bool, image_size: int | None) -> ImageNetwork:
    named = find_model(name, weights, offline)
    image_size = None if image_size == named.image_size else image_size
    if weights == "default":
        weights = _published(named, offline)
    model: Any
    notes: tuple[str, ...] = ()
    originals: StateDict = {}
    files = named.files
    if isinstance(weights, StoredWeights):
        state = dict(weights.state)
        model, origin = _with_weights(named, weights, image_size), weights.origin
        files = (*files, *weights.files)
        require_floats(model, state, origin)
        classifiers = model.pretrained_cfg.get("classifier") or ()
        classifiers = (classifiers,) if isinstance(classifiers, str) else classifiers
        originals = find_resampled(model, state, classifiers)
        notes = (*weights.notes, *resize_notes(model, originals, asked=image_size is not None))
    else:
        model, origin = _build(named, image_size), "random, seeded"
    recipe = _preprocessing(_data_config(model, {"img_size": image_size}))
    require_patches(model, recipe.crop, image_size)
    return ImageNetwork(
        name=named.name,
        module=model,
        preprocessing=recipe,
        origin=origin,
        pretrained=isinstance(weights, StoredWeights),
        features=_features,
        channels_last=getattr(model, "output_fmt", "NCHW") == "NHWC",
        config_sha256=named.config_sha256,
        settings=named.settings,
        image_size=image_size,
        originals=originals,
        notes=notes,
        files=files,
        **token_layout(model, named.name, recipe.crop),
    )


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


def _published(named: NamedModel, offline: bool) -> StoredWeights:
    """Return the weights of a folder, or the published ones of a name with its tag."""
    if named.folder is not None:
        return named.read_weights()
    name, config = named.name, named.config
    if config is None or not config.has_weights:
        raise WeightsError(
            f"timm publishes no weights for {name!r}: pass a file with {option('weights', 'FILE')}, or use random "
            f"weights with {option('weights', 'none')}"
        )
    if weights := read_package(name):
        return weights
    if config.hf_hub_id:
        names = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
        file, origin = fetch_from_hub(config.hf_hub_id, names, offline), f"the hub, {config.hf_hub_id}"
    else:
        file = fetch_from_url(str(config.url), offline)
        origin = f"timm's download, {file.name}"
    return StoredWeights(read_checkpoint(file).weights.state, origin, files=with_revision(file))


def _build(named: NamedModel, image_size: int | None, **options: Any) -> Any:
    """Build a model. Raises BackboneError if the configuration of a folder does not fit timm."""
    size: dict[str, Any] = {"img_size": image_size} if image_size is not None and named.is_built_for_a_size else {}
    try:
        with seeded(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"timm\.")  # of resampling relative positions
            return timm.create_model(named.source, **options, **size)
    except Exception as error:
        if size and "img_size" in str(error):
            raise UsageError(
                f"{option('image_size')} does not apply to {named.name}, which timm builds for images of "
                f"{named.image_size} x {named.image_size} only: leave it out"
            ) from error
        if named.folder is None or options:
            raise
        raise BackboneError(
            f"timm {timm.__version__} cannot build the network of {str(named.folder / CONFIG)!r}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _with_weights(named: NamedModel, weights: StoredWeights, image_size: int | None) -> Any:
    """Build a model and load weights by timm's own loader, with the number of classes of the weights."""
    problem: Exception | None = None
    for changes in _classifiers(named.config, weights.state):
        overlay = {"source": "", "custom_load": False, "state_dict": dict(weights.state), **changes}
        try:
            model = _build(named, image_size, pretrained=True, pretrained_cfg_overlay=overlay)
        except UsageError:
            raise
        except Exception as error:  # timm's converters raise many types of errors
            problem = problem or error
            continue
        model.pretrained_cfg.pop("state_dict")  # frees the memory of the second copy
        return model
    raise misfit(problem, weights.origin, image_size) from problem


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
