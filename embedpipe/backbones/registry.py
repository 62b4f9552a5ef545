"""Which providers there are: the built-in ones, and plug-ins by the entry point group ``embedpipe.backbones``."""

from __future__ import annotations

import fnmatch
from importlib.metadata import EntryPoint, entry_points

from embedpipe.backbones.network import Provider
from embedpipe.errors import BackboneError, UnknownBackboneError, nearest

ENTRY_POINTS = "embedpipe.backbones"

#: Built-in providers, imported on first use.
BUILT_IN = {
    "timm": "embedpipe.backbones.timm_models:TimmProvider",
    "torchvision": "embedpipe.backbones.torchvision_models:TorchvisionProvider",
    "python": "embedpipe.backbones.python_factory:PythonProvider",
}

#: Names that no plug-in may take.
RESERVED = (*BUILT_IN, "checkpoint")


def split_name(backbone: str) -> tuple[str, str]:
    """Split ``provider/name``, or ``python:module.factory``.

    Raises
    ------
    UnknownBackboneError
        If there is no provider, or none of that name.
    """
    if backbone.startswith("python:"):
        return "python", backbone.removeprefix("python:")
    provider, slash, name = backbone.partition("/")
    known = [*RESERVED, *_plugins()]
    if not slash or not name:
        raise UnknownBackboneError(
            f"{backbone!r} is not of the form PROVIDER/NAME, such as 'timm/{backbone.strip('/') or 'resnet50'}': "
            f"the providers are {', '.join(known)}"
        )
    if provider not in known:
        raise UnknownBackboneError(
            f"{backbone!r}: there is no provider {provider!r}{nearest(provider, known)}; there are {', '.join(known)}"
        )
    return provider, name


def get_provider(name: str) -> Provider:
    """Return the provider of that name, as `split_name` gave it.

    Raises
    ------
    BackboneError
        If a plug-in cannot be imported, or is no provider.
    """
    if name in BUILT_IN:
        return _instance(EntryPoint(name, BUILT_IN[name], ENTRY_POINTS))
    return _instance(_plugins()[name])


def list_backbones(pattern: str = "") -> list[str]:
    """Return the names, with their provider, that match a pattern.

    Parameters
    ----------
    pattern : str
        A part of the name, or a shell pattern with ``*`` or ``?`` for all of it; everything by default.
    """
    names = [f"{provider}/{name}" for provider in (*BUILT_IN, *_plugins()) for name in get_provider(provider).names()]
    if any(sign in pattern for sign in "*?["):
        return fnmatch.filter(names, pattern)
    return [name for name in names if pattern.lower() in name.lower()]


def _plugins() -> dict[str, EntryPoint]:
    """Return the plug-ins by name. Raises BackboneError if one takes a name that is taken already."""
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=ENTRY_POINTS):
        other = found.get(entry.name)
        if entry.name in RESERVED or (other is not None and other.value != entry.value):
            holder = f"the plug-in {other.value}" if other else "embedpipe itself"
            raise BackboneError(
                f"the plug-in {entry.value} (of {entry.dist.name if entry.dist else 'an unknown package'}) calls its "
                f"backbones {entry.name!r}, which is taken by {holder}: uninstall it, or have it choose another name"
            )
        found[entry.name] = entry
    return found


def _instance(entry: EntryPoint) -> Provider:
    try:
        provider = entry.load()
        provider = provider() if isinstance(provider, type) else provider
        provider.names, provider.load  # noqa: B018
    except Exception as error:
        raise BackboneError(
            f"the provider {entry.name!r} ({entry.value}) cannot be used: {type(error).__name__}: {error}"
        ) from error
    return provider  # type: ignore[no-any-return]
