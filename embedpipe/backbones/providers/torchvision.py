"""``torchvision/NAME``: every classification network of the installed torchvision.

Features are the input of the last linear layer (of SqueezeNet's 1x1 convolution, which pooling averages),
and preprocessing is the published weights' ``transforms()``.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import nn

from embedpipe._utils.importing import compiler_deferred
from embedpipe._utils.option_names import option
from embedpipe.backbones.network import ImageNetwork, StateDict, StoredWeights, Weights, input_of, output_of
from embedpipe.backbones.weights.checkpoint import read_checkpoint
from embedpipe.backbones.weights.download import fetch_from_url
from embedpipe.backbones.weights.tensors import find_resampled, load_strictly, resize_notes, seeded
from embedpipe.decoding.recipe import Preprocessing
from embedpipe.errors import UnknownBackboneError, UsageError, nearest

with compiler_deferred():
    import torchvision
    from torchvision import models
    from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

#: Networks with auxiliary classifiers for training -> the prefixes of these classifiers' tensors.
AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}


class TorchvisionProvider:
    """Provider of the classification networks of torchvision."""

    takes_image_size = True

    def names(self) -> list[str]:
        """Return every classification network."""
        return list(models.list_models(module=models))

    def load(self, name: str, weights: Weights, offline: bool, image_size: int | None = None) -> ImageNetwork:
        """Build a network; see `Provider.load`."""
        if name not in self.names():
            raise UnknownBackboneError(
                f"torchvision {torchvision.__version__} has no classification model {name!r}"
                f"{nearest(name, self.names()) or '.'} `embedpipe backbones torchvision/` lists them"
            )
        published = models.get_model_weights(name).DEFAULT
        transforms = published.transforms()
        crop = transforms.crop_size[0]
        image_size = None if image_size == crop else image_size
        side = image_size or crop
        originals: StateDict = {}
        if weights == "default":
            file = fetch_from_url(published.url, offline)
            state = read_checkpoint(file).weights.state
            weights = StoredWeights(state, f"torchvision's {published}, {file.name}", files=(file,))
        if isinstance(weights, StoredWeights):
            module, classifier = _with_weights(name, side, weights)
            originals = find_resampled(module, weights.state, [classifier])
            origin = weights.origin
        else:
            with seeded():
                module = _build(name, side)
            classifier = _classifier(module)
            origin = "random, seeded"
        grid = side // module.patch_size if isinstance(module, VisionTransformer) else 0
        return ImageNetwork(
            name=name,
            module=module,
            preprocessing=Preprocessing(
                resize=tuple(size * side // crop for size in transforms.resize_size),
                crop=(side, side),
                interpolation=transforms.interpolation.value,
                mean=tuple(transforms.mean),
                std=tuple(transforms.std),
            ),
            origin=origin,
            pretrained=isinstance(weights, StoredWeights),
            features=input_of(classifier),
            prefix_tokens=int(bool(grid)),
            class_token=bool(grid),
            patches=grid**2 if grid else None,
            tokens=output_of("encoder") if grid else None,
            image_size=image_size,
            originals=originals,
            notes=(*weights.notes, *resize_notes(module, originals, asked=image_size is not None))
            if isinstance(weights, StoredWeights)
            else (),
            files=weights.files if isinstance(weights, StoredWeights) else (),
        )


def build_torchvision(name: str, crop: int) -> tuple[nn.Module, int]:
    """Return a network, and the number of its features."""
    module = _build(name, crop)
    last: Any = module.get_submodule(_classifier(module))
    return module, int(last.in_features if isinstance(last, nn.Linear) else last.in_channels)


def _build(name: str, crop: int, **changes: Any) -> nn.Module:
    if name in AUXILIARY:
        changes.setdefault("init_weights", True)
    if name.startswith("vit_"):
        changes["image_size"] = crop
        patch = int(name.rpartition("_")[2])
        if crop % patch:
            raise UsageError(
                f"{option('image_size')} must be a multiple of {patch}, the side of a patch, got {crop}: use "
                f"{crop - crop % patch or patch} or {crop - crop % patch + patch}"
            )
    elif name.startswith("maxvit_"):
        changes["input_size"] = (crop, crop)
    module: nn.Module = models.get_model(name, weights=None, **changes)
    return module


def _with_weights(name: str, crop: int, weights: StoredWeights) -> tuple[nn.Module, str]:
    """Build a network with the classifier of the weights, or without one if they have none; also return its name."""
    changes: dict[str, Any] = {}
    state = weights.state
    if name in AUXILIARY:
        # torchvision's builders set these for published weights, which were converted from TensorFlow.
        changes = {"init_weights": False, "transform_input": True, "aux_logits": False}
        state = {key: tensor for key, tensor in state.items() if not key.startswith(AUXILIARY[name])}
    module = _build(name, crop, **changes)
    classifier = _classifier(module)
    kernel, original = state.get(f"{classifier}.weight"), module.get_submodule(classifier)
    if kernel is None:
        module.set_submodule(classifier, nn.Identity())
    elif isinstance(original, nn.Linear):
        module.set_submodule(classifier, nn.Linear(original.in_features, len(kernel)))
    elif isinstance(original, nn.Conv2d):
        module.set_submodule(classifier, nn.Conv2d(original.in_channels, len(kernel), 1))
    if isinstance(module, VisionTransformer):
        state = interpolate_embeddings(crop, module.patch_size, OrderedDict(state))
    load_strictly(module, state, weights.origin)
    return module, classifier


def _classifier(module: nn.Module) -> str:
    """Return the name of the last linear layer, or of the last 1x1 convolution if there is no linear layer."""
    names: list[str] = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    if not names:
        names = [n for n, part in module.named_modules() if isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1)]
    return names[-1]
