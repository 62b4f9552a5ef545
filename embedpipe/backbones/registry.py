"""The providers: the built-in ones, and plug-ins with the entry point group ``embedpipe.backbones``.

Names and modalities of the built-in ones are known here without importing them, which takes seconds.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import warnings
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from embedpipe._utils.option_names import option
from embedpipe.backbones.options import DEFAULT_BACKBONES, BackboneOptions
from embedpipe.backbones.spec import VECTORS
from embedpipe.errors import BackboneError, UnknownBackboneError, UsageError, nearest
from embedpipe.sources.options import Modality

if TYPE_CHECKING:
    from embedpipe.backbones.network import Provider

GROUP = "embedpipe.backbones"

#: Built-in providers, imported on first use: name -> module and class below `embedpipe.backbones.providers`.
_CLASSES = {
    "timm": "timm.provider:TimmProvider",
    "torchvision": "torchvision:TorchvisionProvider",
    "python": "python_factory:PythonProvider",
    "open_clip": "open_clip.provider:OpenClipProvider",
    "sentence-transformers": "hugging_face.sentence_transformers:SentenceTransformerProvider",
    "transformers": "hugging_face.transformers:TransformersProvider",
    "word-vectors": "word_vectors.provider:WordVectorsProvider",
}
BUILT_IN = {name: EntryPoint(name, f"embedpipe.backbones.providers.{where}", GROUP) for name, where in _CLASSES.items()}

#: What the built-in providers embed, the default first; the others embed images.
_MODALITIES: dict[str, tuple[Modality, ...]] = {
    "python": ("image", "text"),
    "open_clip": ("image", "text"),
    "word-vectors": ("text",),
}

#: Names that no plug-in may take.
RESERVED = (*BUILT_IN, "checkpoint", VECTORS)


def split_name(backbone: str) -> tuple[str, str]:
    """Split ``provider/name``, or ``python:module.factory``.

    Raises
    ------
    UnknownBackboneError
        If no provider is named, or none has that name.
    """
    if backbone.startswith("python:"):
        return "python", backbone.removeprefix("python:")
    provider, _, name = backbone.partition("/")
    if provider == VECTORS:
        raise UnknownBackboneError(f"{backbone!r} names imported vectors, and no network: `embedpipe import-vectors`")
    if name and provider in RESERVED:  # plug-ins are looked up for other names only: that reads each package's metadata
        return provider, name
    known = [name for name in (*RESERVED, *_plugins()) if name != VECTORS]
    if not provider or not name:
        raise UnknownBackboneError(
            f"backbone must be PROVIDER/NAME, such as 'timm/{backbone.strip('/') or 'resnet50'}', got {backbone!r}. "
            f"Providers: {', '.join(known)}"
        )
    if provider not in known:
        raise UnknownBackboneError(
            f"unknown provider {provider!r} in {backbone!r}{nearest(provider, known) or '.'} "
            f"Providers: {', '.join(known)}"
        )
    return provider, name


def get_provider(name: str) -> Provider:
    """Return the provider with a name that `split_name` returned.

    Raises
    ------
    BackboneError
        If two plug-ins have that name, or the plug-in cannot be imported or is not a provider.
    """
    from embedpipe.backbones.network import Provider  # needs torch

    entries = [BUILT_IN[name]] if name in BUILT_IN else _plugins()[name]
    if len(entries) > 1:
        values = " and ".join(entry.value for entry in entries)
        raise BackboneError(f"the plug-ins {values} both register the provider {name!r}: uninstall one of them")
    try:
        provider = entries[0].load()
        provider = provider() if isinstance(provider, type) else provider
    except Exception as error:
        # Of libraries that do not fit each other, such as builds of torch and torchvision.
        advice = ". `embedpipe doctor` checks whether the installed libraries fit" if name in BUILT_IN else ""
        raise BackboneError(
            f"the provider {name!r} ({entries[0].value}) cannot be imported: {type(error).__name__}: {error}{advice}"
        ) from error
    if not isinstance(provider, Provider):
        raise BackboneError(
            f"the provider {name!r} ({entries[0].value}) must have the methods 'names' and 'load': see "
            "embedpipe.backbones.Provider"
        )
    return provider


def modalities_of(backbone: str, weights: str = "default", offline: bool = False) -> tuple[Modality, ...]:
    """Return the modalities that a backbone embeds, the default first.

    For ``transformers/`` and ``sentence-transformers/`` the files of the model decide, which are downloaded if they are
    not on this machine.

    Raises
    ------
    UnknownBackboneError, BackboneError
        As `split_name` and `get_provider` do.
    WeightsError
        If a model's configuration cannot be had.
    """
    provider, name = split_name(backbone)
    if provider == "transformers":
        from embedpipe.backbones.providers.hugging_face.modality import modalities_in

        return modalities_in(name, weights, offline)
    if provider == "sentence-transformers":
        from embedpipe.backbones.providers.hugging_face.modality import library_modalities

        return library_modalities(name, weights, offline)
    if provider in RESERVED:
        return _MODALITIES.get(provider, ("image",))
    known: tuple[Modality, ...] = getattr(get_provider(provider), "modalities", ("image",))
    return known


def resolve_options(options: BackboneOptions) -> BackboneOptions:
    """Return options with the backbone and the modality filled in if they were left open.

    Raises
    ------
    UsageError
        If the backbone does not embed the modality, or an option does not apply to it.
    UnknownBackboneError
        If no provider has that name.
    WeightsError
        As in `modalities_of`.
    """
    backbone = options.backbone or DEFAULT_BACKBONES[options.modality or "image"]
    known = modalities_of(backbone, options.weights, options.offline)
    modality: Modality = options.modality or known[0]
    if modality not in known:
        raise UsageError(
            f"{backbone} embeds {known[0]}s, not {modality}s: use a backbone of {modality}s, such as "
            f"{DEFAULT_BACKBONES[modality]}"
        )
    for name, is_set, takes in (
        ("chunk", options.chunk, "text"),
        ("frequencies", options.frequencies is not None, "text"),
        ("image_size", options.image_size is not None, "image"),
        ("decode", options.decode not in (None, "full"), "image"),
        ("range", options.range not in (None, "auto"), "image"),
        ("channels", options.channels not in (None, "auto"), "image"),
    ):
        if is_set and modality != takes:
            raise UsageError(f"{option(name)} applies to {takes}s, but {backbone} embeds {modality}s: leave it out")
    return dataclasses.replace(options, backbone=backbone, modality=modality)


def list_backbones(pattern: str = "") -> list[str]:
    """Return the names of backbones that match a pattern.

    Parameters
    ----------
    pattern : str
        A part of the name, in any case, or a shell pattern (``*``, ``?``, ``[...]``) for the whole name. By default all
        names are returned.

    Returns
    -------
    list of str
        Names as ``PROVIDER/NAME``, in the order of the providers.

    Examples
    --------
    >>> import embedpipe
    >>> embedpipe.list_backbones("torchvision/resnet?0")
    ['torchvision/resnet50']
    >>> embedpipe.list_backbones("minilm")
    ['sentence-transformers/all-MiniLM-L6-v2', 'transformers/sentence-transformers/all-MiniLM-L6-v2']
    """
    names = [f"{provider}/{name}" for provider in (*BUILT_IN, *_plugins()) for name in get_provider(provider).names()]
    if any(sign in pattern for sign in "*?["):
        return fnmatch.filter(names, pattern)
    return [name for name in names if pattern.lower() in name.lower()]


def _plugins() -> dict[str, list[EntryPoint]]:
    """Return the plug-ins by name; those with the name of a built-in provider are left out with a warning."""
    plugins: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        if entry.name in RESERVED:
            warnings.warn(
                f"the plug-in {entry.value} is ignored: the name {entry.name!r} is embedpipe's own", stacklevel=3
            )
        elif entry.value not in {other.value for other in plugins.get(entry.name, ())}:
            plugins.setdefault(entry.name, []).append(entry)
    return plugins
