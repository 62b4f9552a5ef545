"""Published ImageNet accuracy of backbones, as far as their libraries know it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

IMAGENET = "ImageNet-1K"


@dataclass(frozen=True)
class ImageNetAccuracy:
    """Top-1 accuracy on the ImageNet-1K validation images, of the pretrained weights with their own classifier.

    ``source`` names the publisher and the weights.
    """

    accuracy: float
    source: str


def find_imagenet_accuracy(backbone: str) -> ImageNetAccuracy | None:
    """Return the published accuracy of a backbone with its default weights, or None if no library knows it.

    Weights of torchvision carry their accuracy. timm and open_clip publish none in their packages; weights that timm
    takes from torchvision, file by file, have the accuracy of torchvision. The function imports these libraries.

    Parameters
    ----------
    backbone : str
        ``provider/name``.
    """
    provider, _, name = backbone.partition("/")
    if provider == "torchvision":
        return _of_torchvision(name)
    if provider == "timm":
        return _of_timm(name)
    return None


def _of_torchvision(name: str) -> ImageNetAccuracy | None:
    from torchvision import models

    if name not in models.list_models(module=models):
        return None
    return _published(models.get_model_weights(name).DEFAULT)


def _of_timm(name: str) -> ImageNetAccuracy | None:
    from timm.models import get_pretrained_cfg

    try:
        config = get_pretrained_cfg(name)
    except RuntimeError:  # an unknown tag
        return None
    weights = _torchvision_weights().get(config.url) if config is not None and config.url else None
    return None if weights is None else _published(weights)


@functools.cache
def _torchvision_weights() -> dict[Any, Any]:
    """Return the weights of torchvision by URL."""
    from torchvision import models

    known = (weights for model in models.list_models(module=models) for weights in models.get_model_weights(model))
    return {weights.url: weights for weights in known}


def _published(weights: Any) -> ImageNetAccuracy | None:
    metrics = weights.meta.get("_metrics", {}).get(IMAGENET)
    return None if metrics is None else ImageNetAccuracy(metrics["acc@1"] / 100, f"torchvision, {weights}")
