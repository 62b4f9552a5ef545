"""From options to a backbone: find the provider, build the network once, take the layers."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import torch

from embedpipe._utils.device import choose_device
from embedpipe._utils.options import build_options, takes_options
from embedpipe.backbones.backbone import Backbone
from embedpipe.backbones.engines.engine import Engine
from embedpipe.backbones.image_backbone import ImageBackbone
from embedpipe.backbones.layers.capture import plan_layers
from embedpipe.backbones.layers.stages import Stage, find_stages
from embedpipe.backbones.network import ImageNetwork, TextNetwork, Weights
from embedpipe.backbones.options import DEFAULT_BACKBONES, BackboneOptions
from embedpipe.backbones.registry import get_provider, modalities_of, split_name
from embedpipe.backbones.spec import FEATURES, BackboneSpec, LayerSpec
from embedpipe.backbones.text_backbone import TextBackbone
from embedpipe.backbones.weights.checkpoint import read_checkpoint
from embedpipe.backbones.weights.tensors import hash_tensors
from embedpipe.errors import UsageError, WeightsError
from embedpipe.sources.options import Modality

if TYPE_CHECKING:
    from embedpipe._utils.parameters import LoadBackboneParameters

#: Networks that are kept for the next `load_backbone` of the same options: clones never load again.
KEPT = 4


@dataclasses.dataclass(frozen=True)
class _Loaded:
    provider: str
    network: ImageNetwork | TextNetwork
    weights_sha256: str
    #: What was asked of the network before: each new question costs a forward pass.
    layers: dict[tuple[object, ...], tuple[LayerSpec, ...]] = dataclasses.field(default_factory=dict)
    engines: dict[str, Engine] = dataclasses.field(default_factory=dict)


_cache: OrderedDict[tuple[object, ...], _Loaded] = OrderedDict()
_lock = threading.Lock()


def resolve_options(options: BackboneOptions) -> BackboneOptions:
    """Return options with the backbone and the modality filled in where the user leaves them open.

    Raises
    ------
    UsageError
        If the backbone does not embed the modality, or an option is not for it.
    UnknownBackboneError
        If there is no provider of that name.
    """
    backbone = options.backbone or DEFAULT_BACKBONES[options.modality or "image"]
    known = modalities_of(backbone)
    modality: Modality = options.modality or known[0]
    if modality not in known:
        other = f"take a backbone of {modality}s, one is {DEFAULT_BACKBONES[modality]}"
        raise UsageError(f"{backbone} embeds {known[0]}s, not {modality}s: {other}")
    for name, given, takes in (
        ("chunk", options.chunk, "text"),
        ("frequencies", options.frequencies is not None, "text"),
        ("decode", options.decode != "full", "image"),
    ):
        if given and modality != takes:
            raise UsageError(f"{name} is for {takes}s, and {backbone} embeds {modality}s here: leave it out")
    return dataclasses.replace(options, backbone=backbone, modality=modality)


@takes_options(BackboneOptions)
def load_backbone(
    backbone: str | None = None,
    *,
    device: torch.device | str | None = None,
    **options: Unpack[LoadBackboneParameters],
) -> Backbone:
    """Load a frozen pretrained network that embeds images or texts.

    A network is built once per process: later calls with the same weights share it, also when they take other layers.

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
        If there is no provider or network of that name.
    WeightsError
        If the weights do not fit or cannot be had; the message names the file to provide.
    BackboneError
        If the network cannot be used as asked.

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
    """Load the backbone that the options describe; `load_backbone` for callers that have the options object.

    Raises what `load_backbone` raises.
    """
    options = resolve_options(options)
    place = device if isinstance(device, torch.device) else choose_device(device)[0]
    loaded = _load(options, place)
    network = _tower(loaded.network, options)
    asked = (options.modality, options.layer, options.drop_last, options.pooling)
    if asked not in loaded.layers:
        loaded.layers[asked] = _plan(options, network)
    spec = BackboneSpec(
        provider=loaded.provider,
        name=network.name,
        weights_sha256=loaded.weights_sha256,
        pretrained=network.pretrained,
        layers=loaded.layers[asked],
        preprocessing=network.preprocessing,
        precision=options.precision,
        modality="text" if isinstance(network, TextNetwork) else "image",
    )
    if isinstance(network, TextNetwork):
        return TextBackbone(spec, network, place, engines=loaded.engines).ready()
    return ImageBackbone(spec, network, place, engines=loaded.engines).ready()


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
    return find_stages(_tower(_load(chosen, torch.device("cpu")).network, chosen))


def _tower(network: ImageNetwork | TextNetwork, options: BackboneOptions) -> ImageNetwork | TextNetwork:
    """Return the network of the modality that is asked for, reading as it is asked to."""
    if options.modality == "image":
        if isinstance(network, TextNetwork):
            raise UsageError(f"{options.backbone} embeds texts: say so with --modality text, or name a text column")
        if options.decode == network.preprocessing.decode:
            return network
        recipe = dataclasses.replace(network.preprocessing, decode=options.decode)
        return dataclasses.replace(network, preprocessing=recipe)
    tower = network if isinstance(network, TextNetwork) else network.text
    if tower is None:
        raise UsageError(f"{options.backbone} has no tower for texts")
    if options.chunk and not tower.chunks:
        why = "reads whole texts" if tower.preprocessing.max_tokens is None else "is read by its own library only"
        raise UsageError(f"chunk is for texts that are cut into tokens here; {options.backbone} {why}: leave it out")
    return dataclasses.replace(tower, preprocessing=dataclasses.replace(tower.preprocessing, chunk=options.chunk))


def _plan(options: BackboneOptions, network: ImageNetwork | TextNetwork) -> tuple[LayerSpec, ...]:
    """Find the layers asked for, and their dimensions."""
    names = options.layer or (FEATURES,)
    with torch.inference_mode():
        if options.drop_last:
            names = (_stage_before(options.drop_last, find_stages(network), options.backbone).tap,)
        return plan_layers(network, names, options.pooling)


def _stage_before(dropped: int, stages: list[Stage], backbone: str) -> Stage:
    if dropped >= len(stages):
        raise UsageError(
            f"drop_last={dropped} leaves nothing: {backbone} has {len(stages)} stages, "
            f"so at most {len(stages) - 1} can go"
        )
    return stages[-1 - dropped]


def _load(options: BackboneOptions, device: torch.device) -> _Loaded:
    """Return a loaded network from the process's cache, or build it."""
    provider, name = split_name(options.backbone)
    files = [Path(file) for file in (name, options.weights, options.frequencies) if file]
    key = (options.backbone, options.weights, options.arch, options.frequencies, str(device), *map(_stamp, files))
    with _lock:
        if key not in _cache:
            built_by, network = _build(options, provider, name)
            network.module.eval().requires_grad_(False)
            sha256 = hash_tensors(network.module.state_dict())
            network.module.to(device, torch.float32).to(memory_format=torch.channels_last)
            _cache[key] = _Loaded(built_by, network, sha256)
            if len(_cache) > KEPT:
                _cache.popitem(last=False)
        _cache.move_to_end(key)
        return _cache[key]


def _stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return sizes and times of a file, or of those in a folder, so that a changed one is read again."""
    with contextlib.suppress(RuntimeError):  # there is no such user
        path = path.expanduser()
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return tuple((str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files if file.exists())


def _build(options: BackboneOptions, provider: str, name: str) -> tuple[str, ImageNetwork | TextNetwork]:
    """Have the provider build a network; return it with the provider's name in the spec."""
    if provider == "checkpoint":
        return provider, _build_checkpoint(options, name)
    if options.arch is not None:
        raise UsageError(f"arch={options.arch!r} is for checkpoint/PATH: {options.backbone} names its architecture")
    source = get_provider(provider)
    weights: Weights
    match options.weights:
        case "default" | "none" as weights:
            pass
        case file if getattr(source, "reads_files", False):
            weights = Path(file).expanduser()
        case file:
            weights = read_checkpoint(file).weights
    network = source.load(name, weights, options.offline)
    if options.frequencies is not None:
        if isinstance(network, ImageNetwork) or network.with_frequencies is None:
            raise UsageError(f"frequencies={options.frequencies!r} is for word-vectors/, not for {options.backbone}")
        network = network.with_frequencies(Path(options.frequencies).expanduser())
    return provider, network


def _build_checkpoint(options: BackboneOptions, path: str) -> ImageNetwork:
    if options.weights != "default":
        raise UsageError(f"weights={options.weights!r}: {options.backbone} is a weights file itself; leave weights out")
    checkpoint = read_checkpoint(path)
    arch = options.arch or checkpoint.arch
    if arch is None:
        raise WeightsError(
            f"{path!r} does not name its architecture: give it with --arch timm/NAME or torchvision/NAME"
        )
    if "/" not in arch and ":" not in arch:
        arch = f"timm/{arch}"
    provider, name = split_name(arch)
    if provider == "checkpoint" or (provider == "python" and options.arch is None):
        raise WeightsError(f"{path!r} names {arch!r} as its architecture, which a file must not: give one with --arch")
    if checkpoint.weights.folder and checkpoint.arch != arch:
        raise UsageError(f"arch={arch!r}, but the folder {path!r} is of {checkpoint.arch!r}: leave arch out")
    network = get_provider(provider).load(name, checkpoint.weights, options.offline)
    if not isinstance(network, ImageNetwork):
        raise UsageError(f"arch={arch!r} embeds texts, and checkpoint/ is for images: take {arch} with --weights")
    return dataclasses.replace(
        network,
        name=f"python:{network.name}" if provider == "python" else arch,
        preprocessing=checkpoint.preprocessing or network.preprocessing,
    )
