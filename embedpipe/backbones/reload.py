"""From the spec of a store or head back to the backbone that made its vectors."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import torch

from embedpipe.backbones.backbone import Backbone
from embedpipe.backbones.load import load_with_options
from embedpipe.backbones.options import BackboneOptions, ReloadOptions
from embedpipe.backbones.registry import modalities_of
from embedpipe.backbones.spec import FEATURES, BackboneSpec, TextPreprocessing
from embedpipe.errors import BackboneError, UnknownBackboneError, UsageError, WeightsError
from embedpipe.sources.options import Modality


def options_from_spec(
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
        If it cannot be loaded; see `options_from_spec`.
    """
    again = options_from_spec(spec, options.weights, frequencies=options.frequencies, trust=options.trust)
    again = dataclasses.replace(again, offline=options.offline)
    if modality in (None, spec.modality):
        try:
            backbone = load_with_options(again, device)
        except (UnknownBackboneError, WeightsError) as error:
            if options.weights != "default":
                raise
            raise type(error)(f"{error}. If {holder} has vectors of a model of your own: --weights PATH") from error
        found = backbone.spec
    else:
        backbone = load_with_options(_other_tower(spec, again, modality), device)
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
