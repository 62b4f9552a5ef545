"""From options to a backbone: find the provider, build the network once, plan the layers."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import torch

from embedpipe._utils.device import choose_device
from embedpipe._utils.option_names import option
from embedpipe._utils.options import build_options, takes_options
from embedpipe.backbones.backbone import Backbone
from embedpipe.backbones.engines.engine import FORWARD, Engine
from embedpipe.backbones.image_backbone import ImageBackbone
from embedpipe.backbones.layers.capture import plan_layers
from embedpipe.backbones.layers.stages import Stage, find_stages
from embedpipe.backbones.matryoshka import cut_features
from embedpipe.backbones.network import ImageNetwork, TextNetwork, Weights
from embedpipe.backbones.options import BackboneOptions
from embedpipe.backbones.registry import get_provider, resolve_options, split_name
from embedpipe.backbones.spec import FEATURES, BackboneSpec, LayerSpec
from embedpipe.backbones.text_backbone import TextBackbone
from embedpipe.backbones.weights.checkpoint import read_checkpoint
from embedpipe.backbones.weights.tensors import hash_tensors, require_values, zero_notes
from embedpipe.decoding.recipe import parse_channels, parse_range
from embedpipe.errors import BackboneError, EmbedpipeError, ItemError, UsageError, WeightsError

if TYPE_CHECKING:
    from embedpipe._utils.parameters import LoadBackboneParameters

#: Networks that stay in memory for later calls of `load_backbone`: the last used ones.
CACHED_NETWORKS = 4


@dataclasses.dataclass(frozen=True)
class _Loaded:
    provider: str
    network: ImageNetwork | TextNetwork
    weights_sha256: str
    #: When building it began, in seconds of the epoch.
    loading: float
    #: Planned layers by options.
    layers: dict[tuple[object, ...], tuple[LayerSpec, ...]] = dataclasses.field(default_factory=dict)
    engines: dict[str, Engine] = dataclasses.field(default_factory=dict)


_cache: OrderedDict[tuple[object, ...], _Loaded] = OrderedDict()
_lock = threading.Lock()


@takes_options(BackboneOptions)
def load_backbone(
    backbone: str | None = None,
    *,
    device: torch.device | str | None = None,
    **options: Unpack[LoadBackboneParameters],
) -> Backbone:
    """Load a frozen pretrained network that embeds images or texts.

    The network is built once per process: later calls with the same weights share it, also with other layers.

    Parameters
    ----------
    backbone : str, optional
        The network, as ``PROVIDER/NAME`` (see `list_backbones`), ``checkpoint/PATH`` or ``python:module.factory``. By
        default EfficientNet-Lite0 for images and all-MiniLM-L6-v2 for texts.
    device : torch.device or str, optional
        Where it runs: ``cpu``, ``cuda``, ``cuda:1``, ``mps``. By default the GPU if it works, else the CPU.

    Returns
    -------
    Backbone
        Its ``prepare`` turns an image or text into an item, its ``forward`` turns items' values into vectors, and its
        ``spec`` declares what decides those vectors.

    Raises
    ------
    UsageError
        If the device, a layer, a pooling or another option does not exist or does not fit the backbone.
    UnknownBackboneError
        If no provider or network has that name.
    WeightsError
        If the weights do not fit or cannot be downloaded; the message names the file to provide.
    BackboneError
        If the network cannot be built or run.

    Examples
    --------
    >>> import numpy as np
    >>> import embedpipe
    >>> backbone = embedpipe.load_backbone("timm/test_resnet", weights="none", device="cpu")
    >>> item = backbone.prepare(np.zeros((64, 64, 3), np.uint8))
    >>> backbone.forward([item.value])["embedding"].shape
    (1, 96)
    """
    values: dict[str, Any] = {"backbone": backbone or "", **options}
    (chosen,) = build_options((BackboneOptions,), values)
    return load_with_options(chosen, device)


def load_with_options(options: BackboneOptions, device: torch.device | str | None = None) -> Backbone:
    """Load a backbone; the same as `load_backbone` with the options as one object.

    Raises what `load_backbone` raises.
    """
    options = resolve_options(options)
    target = device if isinstance(device, torch.device) else choose_device(device)[0]
    loaded = _load(options, target)
    network = _encoder(loaded.network, options)
    if options.dimensions:
        network = cut_features(network, options.dimensions)
    key = (options.modality, options.layer, options.drop_last, options.pooling, options.dimensions)
    if key not in loaded.layers:
        loaded.layers[key] = _plan(options, network)
    spec = BackboneSpec(
        provider=loaded.provider,
        name=network.name,
        weights_sha256=loaded.weights_sha256,
        pretrained=network.pretrained,
        layers=loaded.layers[key],
        preprocessing=network.preprocessing,
        precision=options.precision,
        modality="text" if isinstance(network, TextNetwork) else "image",
        dimensions=options.dimensions,
        # The encoders of one network share it. A text network alone has it in its preprocessing.
        config_sha256="" if isinstance(loaded.network, TextNetwork) else loaded.network.config_sha256,
        image_size=None if isinstance(network, TextNetwork) else network.image_size,
    )
    if isinstance(network, TextNetwork):
        return TextBackbone(spec, network, target, engines=loaded.engines, loading=loaded.loading).ready()
    return ImageBackbone(spec, network, target, engines=loaded.engines, loading=loaded.loading).ready()


@takes_options(BackboneOptions)
def describe_layers(backbone: str | None = None, **options: Unpack[LoadBackboneParameters]) -> list[Stage]:
    """Return the stages of a network, first to last: what ``drop_last`` counts, and the names that ``layer`` takes.

    Published weights are not downloaded for this, as they do not change the stages.

    Parameters
    ----------
    backbone : str, optional
        As in `load_backbone`.

    Raises
    ------
    UsageError, UnknownBackboneError, WeightsError, BackboneError
        As `load_backbone` does.
    """
    values: dict[str, Any] = {"backbone": backbone or "", **options}
    (chosen,) = build_options((BackboneOptions,), values)
    chosen = resolve_options(chosen)
    provider, _ = split_name(chosen.backbone)
    if chosen.weights == "default" and provider in ("timm", "torchvision", "open_clip"):
        chosen = dataclasses.replace(chosen, weights="none")
    network = _encoder(_load(chosen, torch.device("cpu")).network, chosen)
    with FORWARD:  # a pass of another thread leaves hooks in the network
        return find_stages(network)


def _encoder(network: ImageNetwork | TextNetwork, options: BackboneOptions) -> ImageNetwork | TextNetwork:
    """Return the network, or its encoder, for the modality of the options, with their way of decoding or chunking."""
    if options.modality == "image":
        if isinstance(network, TextNetwork):
            raise UsageError(
                f"{options.backbone} embeds texts: set {option('modality', 'text')}, or name a text column"
            )
        recipe = network.preprocessing
        recipe = dataclasses.replace(
            recipe,
            decode=options.decode or recipe.decode,
            range=recipe.range if options.range is None else parse_range(options.range),
            channels=recipe.channels if options.channels is None else parse_channels(options.channels),
        )
        if recipe != network.preprocessing:
            network = dataclasses.replace(network, preprocessing=recipe)
        return with_pooling(network, options)
    encoder = network if isinstance(network, TextNetwork) else network.text
    if encoder is None:
        raise UsageError(f"{options.backbone} has no encoder for texts")
    if options.chunk and not encoder.chunks:
        reads_all = encoder.preprocessing.max_tokens is None
        why = "reads whole texts" if reads_all else "is tokenised by its own library, which does not split texts"
        raise UsageError(f"{option('chunk')} does not apply: {options.backbone} {why}. Leave it out")
    return dataclasses.replace(encoder, preprocessing=dataclasses.replace(encoder.preprocessing, chunk=options.chunk))


def with_pooling(network: ImageNetwork, options: BackboneOptions) -> ImageNetwork:
    """Return a network with the features that the pooling of the options, or the network's default, needs."""
    pooling = options.poolings().get(FEATURES, network.default_pooling)
    if pooling != "pooler":
        if network.tokens is None or pooling in (None, "none", "flatten"):
            return network
        return dataclasses.replace(network, features=network.tokens)
    if network.pooler is None:
        raise UsageError(
            f"{option('pooling', 'pooler')} needs a network with a pooling of its own, but {options.backbone} has "
            "none: use cls, mean or cls+mean"
        )
    return dataclasses.replace(network, features=network.pooler)


def _plan(options: BackboneOptions, network: ImageNetwork | TextNetwork) -> tuple[LayerSpec, ...]:
    """Return the layers of the options with their poolings and dimensions."""
    names = options.layer or (FEATURES,)
    try:
        return _plan_layers(options, network, names)
    except Exception as error:
        if isinstance(error, EmbedpipeError) and not isinstance(error, ItemError):
            raise
        if isinstance(network, TextNetwork) or network.image_size is None:
            raise BackboneError(f"{options.backbone} fails on a blank item: {type(error).__name__}: {error}") from error
        raise UsageError(
            f"{option('image_size')} must be a size that {options.backbone} can embed, got {network.image_size}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _plan_layers(
    options: BackboneOptions, network: ImageNetwork | TextNetwork, names: tuple[str, ...]
) -> tuple[LayerSpec, ...]:
    with FORWARD:  # a pass of another thread leaves hooks in the network
        if options.drop_last:
            (pooling,) = options.poolings().values() or (None,)
            name = _stage_before(options.drop_last, find_stages(network), options.backbone).tap
            return plan_layers(network, (name,), {} if pooling is None else {name: pooling})
        return plan_layers(network, names, options.poolings())


def _stage_before(dropped: int, stages: list[Stage], backbone: str) -> Stage:
    if dropped >= len(stages):
        raise UsageError(
            f"{option('drop_last')} must be <= {len(stages) - 1}, as {backbone} has {len(stages)} stages, got {dropped}"
        )
    return stages[-1 - dropped]


def _load(options: BackboneOptions, device: torch.device) -> _Loaded:
    """Return a network from the cache of this process, or build it."""
    provider, name = split_name(options.backbone)
    paths = (name.removeprefix("local-dir:"), options.weights, options.frequencies)
    files = [Path(path) for path in paths if path]
    chosen = (options.backbone, options.weights, options.arch, options.frequencies, options.image_size)
    key = (*chosen, str(device), *map(_stamp, files))
    with _lock:
        if key not in _cache:
            loading = time.time()
            built_by, network = _build(options, provider, name)
            network.module.eval().requires_grad_(False)
            gaps = network.gaps.names
            require_values(network.module, gaps, network.origin)
            if network.pretrained:
                network = _with_notes(network, zero_notes(network.module, network.origin))
            state = network.module.state_dict()
            state |= network.originals if isinstance(network, ImageNetwork) else {}
            sha256 = hash_tensors({k: v for k, v in state.items() if k not in gaps})
            network.module.to(device, torch.float32).to(memory_format=torch.channels_last)
            _cache[key] = _Loaded(built_by, network, sha256, loading)
            if len(_cache) > CACHED_NETWORKS:
                _cache.popitem(last=False)
        _cache.move_to_end(key)
        return _cache[key]


def _with_notes(network: ImageNetwork | TextNetwork, notes: list[str]) -> ImageNetwork | TextNetwork:
    """Return a network, and its text encoder, with more notes."""
    changed = dataclasses.replace(network, notes=(*network.notes, *notes))
    if isinstance(changed, ImageNetwork) and changed.text is not None:
        return dataclasses.replace(changed, text=dataclasses.replace(changed.text, notes=changed.notes))
    return changed


def _stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return the size and time of a file, or of the files of a model's folder, so that changed files are read again."""
    with contextlib.suppress(RuntimeError):  # ~user without such a user
        path = path.expanduser()
    files = sorted((*path.glob("*"), *path.glob("*/*"))) if path.is_dir() else [path]
    return tuple((str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files if file.exists())


def _build(options: BackboneOptions, provider: str, name: str) -> tuple[str, ImageNetwork | TextNetwork]:
    """Let the provider build a network; return the provider's name for the spec, and the network."""
    if provider == "checkpoint":
        return provider, _build_checkpoint(options, name)
    if options.arch is not None:
        raise UsageError(
            f"{option('arch')} applies to checkpoint/PATH, but {options.backbone} names its architecture, got "
            f"{option('arch', options.arch)}"
        )
    source = get_provider(provider)
    weights: Weights
    match options.weights:
        case "default" | "none" as weights:
            pass
        case file if getattr(source, "reads_files", False):
            weights = Path(file).expanduser()
        case file:
            weights = read_checkpoint(file).weights
    network = _load_from(source, name, weights, options)
    if options.frequencies is not None:
        if isinstance(network, ImageNetwork) or network.with_frequencies is None:
            raise UsageError(
                f"{option('frequencies')} applies to word-vectors/ only, not to {options.backbone}, got "
                f"{options.frequencies!r}"
            )
        network = network.with_frequencies(Path(options.frequencies).expanduser())
    return provider, network


def _load_from(
    source: Any, name: str, weights: Weights, options: BackboneOptions, image_size: int | None = None
) -> ImageNetwork | TextNetwork:
    """Let a provider load a network, for images of the size that the user or a checkpoint names."""
    image_size = options.image_size or image_size
    changes = {} if image_size is None else {"image_size": image_size}
    if changes and not getattr(source, "takes_image_size", False):
        raise UsageError(
            f"{option('image_size')} does not apply to {options.backbone}, whose own code says how images are scaled: "
            "leave it out, and change that code"
        )
    network: ImageNetwork | TextNetwork = source.load(name, weights, options.offline, **changes)
    return network


def _build_checkpoint(options: BackboneOptions, path: str) -> ImageNetwork:
    if options.weights != "default":
        raise UsageError(f"{options.backbone} is a weights file itself: leave out {option('weights', options.weights)}")
    checkpoint = read_checkpoint(path)
    arch = options.arch or checkpoint.arch
    if arch is None:
        raise WeightsError(
            f"{path!r} does not name its architecture: set {option('arch', 'timm/NAME')} or "
            f"{option('arch', 'torchvision/NAME')}"
        )
    if "/" not in arch and ":" not in arch:
        arch = f"timm/{arch}"
    provider, name = split_name(arch)
    if provider == "checkpoint" or (provider == "python" and options.arch is None):
        raise WeightsError(
            f"{path!r} names {arch!r} as its architecture, which a file must not: set {option('arch')} yourself"
        )
    if checkpoint.weights.folder and checkpoint.arch != arch:
        raise UsageError(f"the folder {path!r} holds {checkpoint.arch!r}, but got {option('arch', arch)}: leave it out")
    network = _load_from(get_provider(provider), name, checkpoint.weights, options, checkpoint.image_size)
    if not isinstance(network, ImageNetwork):
        raise UsageError(
            f"checkpoint/ is for images, but {arch} embeds texts: use {arch} as the backbone, with {option('weights')}"
        )
    is_resized = options.image_size not in (None, checkpoint.image_size)
    return dataclasses.replace(
        network,
        name=f"python:{network.name}" if provider == "python" else arch,
        preprocessing=(None if is_resized else checkpoint.preprocessing) or network.preprocessing,
    )
