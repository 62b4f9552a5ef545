"""What is known of each backbone without building or downloading it: weights on this machine, size, input, accuracy."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from embedpipe._utils.messages.json_values import parse_json
from embedpipe.backbones.imagenet_accuracy import find_imagenet_accuracy

#: Names of files with weights, as the hub has them.
HUB_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")

#: So few networks are built without memory for their weights, to say how large they are and how long a vector is.
MOST_BUILT = 30


@dataclass(frozen=True)
class BackboneFacts:
    """What is known of a backbone; None for what is not.

    Attributes
    ----------
    name : str
        ``PROVIDER/NAME``.
    weights : str
        ``here`` if its published weights are on this machine, ``download`` if they can be, ``none`` if there are none.
    megabytes : float or None
        Size of the file of weights, or four bytes a parameter.
    dim : int or None
        Values of a vector of the last layer.
    input_size : int or None
        Side of the square image that the network sees.
    imagenet_accuracy : float or None
        Published top-1 accuracy on ImageNet-1K.
    """

    name: str
    weights: str
    megabytes: float | None = None
    dim: int | None = None
    input_size: int | None = None
    imagenet_accuracy: float | None = None


def describe_backbones(names: Sequence[str], here: bool = False) -> list[BackboneFacts]:
    """Return what is known of backbones, without a network connection.

    Parameters
    ----------
    names : sequence of str
        As `list_backbones` returns them.
    here : bool
        Only those whose weights are on this machine.
    """
    rows = [_DESCRIBE.get(name.partition("/")[0], _unknown)(name) for name in names]
    rows = [row for row in rows if row.weights == "here" or not here]
    return [_built(row) for row in rows] if len(rows) <= MOST_BUILT else rows


def _of_timm(full: str) -> BackboneFacts:
    from timm.models import get_pretrained_cfg

    from embedpipe.backbones.providers.timm.packages import packaged_weights

    name = full.partition("/")[2]
    config = get_pretrained_cfg(name)
    if config is None:
        return BackboneFacts(full, "none")
    tagged = f"{config.architecture}.{config.tag}" if config.tag else name
    file = packaged_weights(tagged)
    if file is None and config.hf_hub_id:
        file = _in_hub(config.hf_hub_id, (config.hf_hub_filename,) if config.hf_hub_filename else HUB_FILES)
    elif file is None and config.url:
        file = _in_torch_hub(str(config.url))
    return _facts(full, file, bool(config.has_weights), input_size=int(config.input_size[-1]))


def _of_torchvision(full: str) -> BackboneFacts:
    from torchvision import models

    published = models.get_model_weights(full.partition("/")[2]).DEFAULT
    crop = int(published.transforms().crop_size[0])
    return _facts(full, _in_torch_hub(published.url), True, published.meta["_file_size"], input_size=crop)


def _of_open_clip(full: str) -> BackboneFacts:
    import open_clip

    architecture, _, tag = full.partition("/")[2].partition(":")
    config = open_clip.get_model_config(architecture) or {}
    side = config.get("vision_cfg", {}).get("image_size")
    known = {"dim": config.get("embed_dim"), "input_size": side if isinstance(side, int) else None}
    published = open_clip.get_pretrained_cfg(architecture, tag) if tag else {}
    file = None
    if repository := published.get("hf_hub"):
        folder, _, name = repository.rpartition("/")
        file = _in_hub(folder, (str(Path(name).with_suffix(".safetensors")), name) if name else HUB_FILES)
    elif url := published.get("url"):
        file = _in_torch_hub(url)
    return _facts(full, file, bool(published), **known)


def _of_package(full: str) -> BackboneFacts:
    """Return the facts of a model whose weights are in a Python package, which may not be installed."""
    from importlib.util import find_spec

    from embedpipe.backbones.providers.hugging_face.packages import PACKAGES as MODELS
    from embedpipe.backbones.providers.word_vectors.provider import PACKAGES as VECTORS

    name = full.partition("/")[2]
    packages = {repository: package for repository, (package, _) in MODELS.items()} | VECTORS
    package = packages.get(name) or packages.get(f"sentence-transformers/{name}")
    spec = find_spec(package) if package else None
    if spec is None or not spec.submodule_search_locations:
        return BackboneFacts(full, "download")
    files = [path for path in Path(spec.submodule_search_locations[0]).rglob("*") if path.is_file()]
    config = next((path for path in files if path.name == "config.json" and path.parent.name != "1_Pooling"), None)
    dim = parse_json(config.read_text()).get("hidden_size") if config else None
    return _facts(full, max(files, key=lambda path: path.stat().st_size, default=None), True, dim=dim)


def _unknown(full: str) -> BackboneFacts:
    return BackboneFacts(full, "download")


_DESCRIBE: dict[str, Callable[[str], BackboneFacts]] = {
    "timm": _of_timm,
    "torchvision": _of_torchvision,
    "open_clip": _of_open_clip,
    "sentence-transformers": _of_package,
    "transformers": _of_package,
    "word-vectors": _of_package,
}


def _facts(full: str, file: Path | None, published: bool, size: float | None = None, **known: Any) -> BackboneFacts:
    """Return facts of a network with a file of weights on this machine, or with weights of a published size in MB."""
    published_accuracy = find_imagenet_accuracy(full)
    accuracy = None if published_accuracy is None else published_accuracy.accuracy
    megabytes = file.stat().st_size / 1e6 if file is not None else None if size is None else size * 1.048576
    weights = "here" if file is not None else "download" if published else "none"
    return BackboneFacts(full, weights, megabytes, imagenet_accuracy=accuracy, **known)


def _in_hub(repository: str, names: Sequence[str]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(repository, name) for name in names)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def _in_torch_hub(url: str) -> Path | None:
    path = _torch_hub() / urlsplit(url).path.rpartition("/")[2]
    return path if path.is_file() else None


@functools.cache
def _torch_hub() -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def _built(row: BackboneFacts) -> BackboneFacts:
    """Return facts with the length of vectors and the size, from a network that is built without memory for it."""
    provider, _, name = row.name.partition("/")
    if provider not in ("timm", "torchvision"):
        return row
    try:
        dim, megabytes = _measured(provider, name.partition(".")[0], row.input_size or 224)
    except Exception:  # a network that cannot be built without memory is listed with what is known
        return row
    return dataclasses.replace(row, dim=dim, megabytes=row.megabytes or megabytes)


@functools.cache
def _measured(provider: str, architecture: str, side: int) -> tuple[int, float]:
    """Return the length of vectors, and the MB of the parameters."""
    import torch

    with torch.device("meta"), torch.inference_mode():
        if provider == "timm":
            import timm

            module: Any = timm.create_model(architecture).eval()
            pixels = torch.empty(1, 3, side, side)
            dim = module.forward_head(module.forward_features(pixels), pre_logits=True).shape[-1]
        else:
            from embedpipe.backbones.providers.torchvision import build_torchvision

            module, dim = build_torchvision(architecture, side)
    return int(dim), sum(parameter.numel() for parameter in module.parameters()) * 4 / 1e6
