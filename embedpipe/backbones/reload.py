"""From the spec of a store or head back to the backbone that made its vectors."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

from embedpipe._utils.option_names import option
from embedpipe.backbones.options import BackboneOptions, ReloadOptions
from embedpipe.backbones.registry import modalities_of
from embedpipe.backbones.spec import FEATURES, BackboneSpec, TextPreprocessing
from embedpipe.decoding.recipe import Preprocessing
from embedpipe.errors import BackboneError, UnknownBackboneError, UsageError, WeightsError
from embedpipe.sources.options import Modality

if TYPE_CHECKING:
    import torch

    from embedpipe.backbones.backbone import Backbone

#: Names of networks that are places on this machine. That of a checkpoint has the provider of its architecture before
#: it, and ``local-dir:`` before the architecture of a folder whose configuration is in the checkpoint.
_PATH = r"local-dir:|[/~.]|.*\.\."
_CHECKPOINT_PATH = r"[^/:]*/([/~.]|local-dir:.*/)|.*\.\."


def options_from_spec(
    spec: BackboneSpec, weights: str = "default", *, frequencies: str | None = None, trust: bool = False
) -> BackboneOptions:
    """Return the options that load the backbone of a stored spec again.

    Parameters
    ----------
    spec : BackboneSpec
    weights : str
        ``default``, or the weights file or folder if the spec's weights came from one.
    frequencies : str, optional
        The file of word counts if the spec's token weights came from one.
    trust : bool
        Allow a spec to name Python code to run. Specs come from files, which anyone may have written.

    Raises
    ------
    UsageError
        If the vectors were imported.
    BackboneError
        If the spec names Python code, or a path, and ``trust`` is False.
    WeightsError
        If the spec is that of a checkpoint and ``weights`` is not given.
    """
    if spec.is_imported:
        raise UsageError(
            f"the vectors were imported, from {spec.name!r}, so there is no network that makes them from "
            f"{spec.modality}s: give vectors, such as an array or a .npy file"
        )
    backbone, arch = f"{spec.provider}/{spec.name}", None
    if spec.provider == "checkpoint":
        if weights == "default":
            raise WeightsError(
                f"the vectors were made by a checkpoint of {spec.name}: pass its file with {option('weights', 'FILE')}"
            )
        backbone, arch, weights = f"checkpoint/{weights}", spec.name, "default"
    elif spec.provider == "python":
        backbone = f"python:{spec.name}"
    elif weights == "default" and not spec.pretrained:
        weights = "none"
    if re.fullmatch(r"local-dir:[^/\\~.][^/\\]*", spec.name) and weights in ("default", "none"):
        raise WeightsError(
            f"the vectors were made by a model in a folder ({spec.provider}/local-dir:), whose place no spec keeps: "
            f"pass it with {option('weights', 'FOLDER')}"
        )
    elsewhere = _CHECKPOINT_PATH if spec.provider == "checkpoint" else _PATH
    if not trust and re.match(elsewhere, spec.name) and weights in ("default", "none"):
        raise BackboneError(
            f"the stored spec names a path on this machine, {spec.name!r}: pass the model with "
            f"{option('weights', ...)}, or {option('trust', True)} if you trust the spec"
        )
    if "python:" in (backbone[:7], (arch or "")[:7]) and not trust:
        raise BackboneError(
            f"the stored spec names Python code to run, {spec.name!r}: pass {option('trust', True)} if you trust it"
        )
    return BackboneOptions(
        backbone=backbone,
        weights=weights,
        arch=arch,
        layer=tuple(layer.name for layer in spec.captured.layers),
        pooling=tuple(layer.pooling for layer in spec.captured.layers),
        image_size=spec.image_size,
        dimensions=spec.dimensions,
        modality=spec.modality,
        chunk=isinstance(spec.preprocessing, TextPreprocessing) and spec.preprocessing.chunk,
        **(spec.preprocessing.options() if isinstance(spec.preprocessing, Preprocessing) else {}),
        frequencies=frequencies,
        precision=spec.precision,
    )


def with_stored_layers(options: BackboneOptions, given: BackboneSpec, stored: BackboneSpec) -> BackboneOptions:
    """Return options that capture all layers of a stored spec, if ``given``, that of the options, has some of them."""
    if given in (stored, stored.captured) or given != stored.only(*(layer.name for layer in given.layers)):
        return options
    layers = stored.captured.layers
    names, poolings = (tuple(getattr(layer, field) for layer in layers) for field in ("name", "pooling"))
    return dataclasses.replace(options, layer=names, drop_last=0, pooling=poolings)


def reload_backbone(
    spec: BackboneSpec,
    options: ReloadOptions,
    device: torch.device | str | None,
    holder: str,
    modality: Modality | None = None,
) -> Backbone:
    """Load the backbone of a stored spec again, or its encoder for the other modality.

    Parameters
    ----------
    spec : BackboneSpec
    options : ReloadOptions
    device : torch.device or str, optional
    holder : str
        The owner of the spec, for messages: ``the store``.
    modality : str, optional
        The modality to embed; by default that of the spec. The vectors of both encoders lie in one space.

    Raises
    ------
    SpecMismatchError
        If the loaded backbone is not the one that made the vectors; the message shows the differing fields.
    UsageError
        If the backbone has no encoder for the modality, or the vectors come from a layer of one encoder only.
    BackboneError
        If the backbone cannot be loaded; see `options_from_spec`.
    """
    other = modality not in (None, spec.modality)
    load_options = options_from_spec(spec, options.weights, frequencies=options.frequencies, trust=options.trust)
    load_options = dataclasses.replace(load_options, offline=options.offline)
    if other:
        load_options = _other_encoder(spec, load_options, modality)
    from embedpipe.backbones.load import load_with_options  # needs torch, which refusing a query does not

    if not other:
        try:
            backbone = load_with_options(load_options, device)
        except (UnknownBackboneError, WeightsError) as error:
            if options.weights != "default":
                raise
            raise type(error)(
                f"{error}. If the vectors of {holder} were made by a model of your own, pass "
                f"{option('weights', 'PATH')}"
            ) from error
        loaded = backbone.spec
    else:
        backbone = load_with_options(load_options, device)
        layers = (dataclasses.replace(spec.layers[0], dim=backbone.spec.layers[0].dim),)
        theirs = {name: getattr(spec, name) for name in ("preprocessing", "modality", "image_size")}
        loaded = dataclasses.replace(backbone.spec, layers=layers, **theirs)
    has_counts = any(layer.pooling == "sif" for layer in spec.layers)
    files = (
        f"{option('weights', 'PATH')}, and {option('frequencies', 'FILE')} if one was used"
        if has_counts
        else option("weights", "PATH")
    )
    advice = f"Pass the weights that made the vectors ({files})."
    problem = f"the backbone that loads is not the one of {holder}"
    spec.captured.require(loaded, problem, f"in {holder}", "loaded", advice)
    return backbone if other else backbone.reduced(spec)


def _other_encoder(spec: BackboneSpec, options: BackboneOptions, modality: Modality | None) -> BackboneOptions:
    """Return the options that load the encoder of the other modality."""
    items, queries = {"image": ("photos", "words"), "text": ("texts", "photos")}[spec.modality]
    if modality not in modalities_of(options.backbone, options.weights, options.offline):
        raise UsageError(
            f"{items} embedded by {options.backbone} cannot be searched by {queries}: embed them with "
            "open_clip/MODEL:TAG, or with CLIP or SigLIP of transformers/ or sentence-transformers/ and its tokenizer, "
            "which embed both"
        )
    if [layer.name for layer in spec.layers] != [FEATURES]:
        names = ", ".join(layer.name for layer in spec.layers)
        raise UsageError(f"{items} cannot be searched by {queries} with layer {names}: only 'features' share a space")
    if (pooling := spec.layers[0].pooling) not in ("none", "pooler"):
        raise UsageError(
            f"{items} cannot be searched by {queries} with {option('pooling', pooling)}: only the vectors that the "
            f"model itself pools share a space. Embed them without {option('pooling')}"
        )
    defaults: dict[str, Any] = {"layer": (), "pooling": None, "image_size": None, "chunk": False, "frequencies": None}
    defaults |= {"decode": None, "range": None, "channels": None}
    return dataclasses.replace(options, modality=modality, **defaults)
