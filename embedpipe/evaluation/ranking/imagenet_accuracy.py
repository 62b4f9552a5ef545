"""What is said of a network whatever the data: its published accuracy on ImageNet, where its library knows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

IMAGENET = "ImageNet-1K"


@dataclass(frozen=True)
class Prior:
    """The share of ImageNet-1K's validation images that a network with its own classifier gets right (top-1).

    ``source`` says who published it, and of which weights.
    """

    accuracy: float
    source: str


def find_prior(backbone: str) -> Prior | None:
    """Return the published accuracy of a backbone with its default weights, or None where no library knows it.

    torchvision's weights carry theirs. timm and open_clip come without figures; those weights that timm takes over from
    torchvision, file by file, have torchvision's. It loads these libraries.

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


def _of_torchvision(name: str) -> Prior | None:
    from torchvision import models

    if name not in models.list_models(module=models):
        return None
    return _published(models.get_model_weights(name).DEFAULT)


def _of_timm(name: str) -> Prior | None:
    from timm.models import get_pretrained_cfg
    from torchvision import models

    try:
        config = get_pretrained_cfg(name)
    except RuntimeError:  # a tag that there is not
        return None
    if config is None or not config.url:
        return None
    known = (weights for model in models.list_models(module=models) for weights in models.get_model_weights(model))
    same = next((weights for weights in known if weights.url == config.url), None)
    return None if same is None else _published(same)


def _published(weights: Any) -> Prior | None:
    figures = weights.meta.get("_metrics", {}).get(IMAGENET)
    return None if figures is None else Prior(figures["acc@1"] / 100, f"torchvision, {weights}")
