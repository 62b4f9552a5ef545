"""From options to a backbone: find the provider, build the network once, take the layers."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from embedpipe._utils.device import choose_device
from embedpipe.backbones.backbone import Backbone
from embedpipe.backbones.engines.engine import Engine
from embedpipe.backbones.image_backbone import ImageBackbone
from embedpipe.backbones.layers.capture import plan_layers
from embedpipe.backbones.layers.stages import Stage, find_stages
from embedpipe.backbones.network import ImageNetwork, TextNetwork, Weights
from embedpipe.backbones.options import DEFAULT_BACKBONES, BackboneOptions, ReloadOptions
from embedpipe.backbones.providers.checkpoint import read_checkpoint
from embedpipe.backbones.providers.weights import hash_tensors
from embedpipe.backbones.registry import get_provider, modalities_of, split_name
from embedpipe.backbones.spec import FEATURES, BackboneSpec, LayerSpec, TextPreprocessing
from embedpipe.backbones.text_backbone import TextBackbone
from embedpipe.errors import BackboneError, UnknownBackboneError, UsageError, WeightsError
from embedpipe.sources.options import Modality

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


def resolve(options: BackboneOptions) -> BackboneOptions:
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


def load_backbone(options: BackboneOptions | None = None, device: torch.device | str | None = None) -> Backbone:
    """Load a frozen backbone.

    Parameters
    ----------
    options : BackboneOptions, optional
        Which network, weights and layers; by default EfficientNet-Lite0 for images, all-MiniLM-L6-v2 for texts.
    device : torch.device or str, optional
        Where it runs; the GPU if it works, else the CPU. See `choose_device`.

    Raises
    ------
    UsageError
        If the device, a layer or a pooling is not one that there is.
    UnknownBackboneError
        If there is no provider or network of that name.
    WeightsError
        If the weights do not fit or cannot be had: the message names the file to provide.
    BackboneError
        If the network cannot be used as asked.
    """
    options = resolve(options or BackboneOptions())
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


def describe_layers(options: BackboneOptions) -> list[Stage]:
    """Return the stages that ``drop_last`` counts and whose taps ``layer`` takes, first to last.

    Published weights are not fetched for this: they would change nothing.
    """
    options = resolve(options)
    provider, _ = split_name(options.backbone)
    if options.weights == "default" and provider in ("timm", "torchvision", "open_clip"):
        options = dataclasses.replace(options, weights="none")
    return find_stages(_tower(_load(options, torch.device("cpu")).network, options))


def options_of(
    spec: BackboneSpec, weights: str = "default", *, frequencies: str | None = None, trust: bool = False
) -> BackboneOptions:
    """Return the options that load the backbone of a stored spec again.

    Parameters
    ----------
    spec : BackboneSpec
    weights : str
        ``default``, or the weights file or folder, for a spec whose weights came from one.
    frequencies : str, optional
        The file of word counts, for a spec whose token weights came from one.
    trust : bool
        Accept a spec that names a function to run. The spec is a file's word, not the user's.

    Raises
    ------
    BackboneError
        If the spec names a function and is not trusted.
    WeightsError
        If the spec is a checkpoint's and its file is not given.
    """
    backbone, arch = f"{spec.provider}/{spec.name}", None
    if spec.provider == "checkpoint":
        if weights == "default":
            raise WeightsError(f"the vectors are of a checkpoint of {spec.name}: give its file with --weights FILE")
        backbone, arch, weights = f"checkpoint/{weights}", spec.name, "default"
    elif spec.provider == "python":
        backbone = f"python:{spec.name}"
    elif weights == "default" and not spec.pretrained:
        weights = "none"
    if not trust and re.match(r"local-dir:|[/~.]|.*\.\.", spec.name) and weights in ("default", "none"):
        raise BackboneError(
            f"the stored spec names a place on this machine, {spec.name!r}: give the model with --weights PATH, or say "
            "that you trust it (--trust, trust=True)"
        )
    if "python:" in (backbone[:7], (arch or "")[:7]) and not trust:
        raise BackboneError(
            f"the stored spec names Python code to run, {spec.name!r}: if you trust it, say so (--trust, trust=True)"
        )
    poolings = {layer.pooling for layer in spec.layers} - {"none"}
    return BackboneOptions(
        backbone=backbone,
        weights=weights,
        arch=arch,
        layer=tuple(layer.name for layer in spec.layers),
        # Different ones can only be each layer's default, and one alone does no harm where it is the default.
        pooling=poolings.pop() if len(poolings) == 1 else None,
        modality=spec.modality,
        chunk=isinstance(spec.preprocessing, TextPreprocessing) and spec.preprocessing.chunk,
        decode="full" if isinstance(spec.preprocessing, TextPreprocessing) else spec.preprocessing.decode,
        frequencies=frequencies,
        precision=spec.precision,
    )


def reload_backbone(
    spec: BackboneSpec,
    options: ReloadOptions,
    device: torch.device | str | None,
    holder: str,
    modality: Modality | None = None,
) -> Backbone:
    """Load the backbone of a stored spec again, or its tower for the other modality.

    Parameters
    ----------
    spec : BackboneSpec
    options : ReloadOptions
    device : torch.device or str, optional
    holder : str
        Whose spec it is, for messages: ``the store``.
    modality : str, optional
        What it is to embed; by default what the spec says. The vectors of both towers lie in one space.

    Raises
    ------
    SpecMismatchError
        If what loads is not what made the vectors; the message shows the differing fields.
    UsageError
        If the backbone has no tower for the modality, or the vectors are of a layer that only one tower has.
    BackboneError
        If it cannot be loaded; see `options_of`.
    """
    again = options_of(spec, options.weights, frequencies=options.frequencies, trust=options.trust)
    again = dataclasses.replace(again, offline=options.offline)
    if modality in (None, spec.modality):
        try:
            backbone = load_backbone(again, device)
        except (UnknownBackboneError, WeightsError) as error:
            if options.weights != "default":
                raise
            raise type(error)(f"{error}. If {holder} has vectors of a model of your own: --weights PATH") from error
        found = backbone.spec
    else:
        backbone = load_backbone(_other_tower(spec, again, modality), device)
        layers = (dataclasses.replace(spec.layers[0], dim=backbone.spec.layers[0].dim),)
        found = dataclasses.replace(
            backbone.spec, layers=layers, preprocessing=spec.preprocessing, modality=spec.modality
        )
    counted = any(layer.pooling == "sif" for layer in spec.layers)
    files = "--weights PATH, and --frequencies FILE if there was one" if counted else "--weights PATH"
    advice = f"Give the weights that made the vectors ({files})."
    spec.require(found, f"another backbone loads than that of {holder}", f"in {holder}", "loaded", advice)
    return backbone


def _other_tower(spec: BackboneSpec, options: BackboneOptions, modality: Modality | None) -> BackboneOptions:
    """Return the options that load the tower of the other modality."""
    items, queries = {"image": ("photos", "words"), "text": ("texts", "photos")}[spec.modality]
    if modality not in modalities_of(options.backbone):
        raise UsageError(
            f"{items} embedded by {options.backbone} cannot be searched by {queries}: embed them with "
            "open_clip/MODEL:TAG, which has a tower for each"
        )
    if [layer.name for layer in spec.layers] != [FEATURES]:
        names = ", ".join(layer.name for layer in spec.layers)
        raise UsageError(f"{items} cannot be searched by {queries} by {names}: only the features share a space")
    given: dict[str, Any] = {"layer": (), "pooling": None, "chunk": False, "frequencies": None, "decode": "full"}
    return dataclasses.replace(options, modality=modality, **given)


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
