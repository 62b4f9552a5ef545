"""Where fine-tuning reads from: the store, the images or texts it was made from, and its frozen backbone."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from embedpipe._utils.atomic import whole_file
from embedpipe._utils.machine.regular_files import read_regular
from embedpipe._utils.messages.json_values import parse_json
from embedpipe._utils.option_names import inner_options, option
from embedpipe.backbones.backbone import Backbone
from embedpipe.backbones.image_backbone import ImageBackbone
from embedpipe.backbones.options import ReloadOptions
from embedpipe.backbones.registry import modalities_of, split_name
from embedpipe.backbones.reload import reload_backbone
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.backbones.text_backbone import TextBackbone
from embedpipe.decoding import payload_hash
from embedpipe.embedding import embed
from embedpipe.errors import EmbedpipeError, ReadError, UsageError
from embedpipe.finetuning.run_folder import CLAIM, HUGGING_FACE
from embedpipe.finetuning.run_settings import require_same
from embedpipe.finetuning.split_rows import SplitRows
from embedpipe.finetuning.training.items.image_set import ImageSet
from embedpipe.finetuning.training.items.item_set import ItemSet
from embedpipe.finetuning.training.items.text_set import TextSet
from embedpipe.sources.opening import read_uri
from embedpipe.sources.options import Modality
from embedpipe.store import FeatureStore

#: Arguments that fine-tuning hands to `embed`.
OF_FINE_TUNING = {"source", "to", "label", "backbone", "device", "progress", "weights", "offline"}


def open_items(
    source: FeatureStore | str | Path,
    features: Path,
    label: str,
    backbone: str,
    device: str | None,
    progress: bool | None,
    reload: ReloadOptions,
) -> tuple[FeatureStore, str]:
    """Open a store, or embed images or texts into ``features``; return the store and its label column.

    Raises UsageError if the source is anything else, or the backbone of the store cannot be trained.
    """
    if isinstance(source, FeatureStore):
        _require_no_backbone(backbone, source.path)
        store = source
    elif not isinstance(source, str | os.PathLike):
        raise UsageError(
            f"source must be a feature store, or the path of images or texts, which are read again in each epoch, got "
            f"{type(source).__name__}: save the items as files or a table"
        )
    elif FeatureStore.exists(os.fspath(source)):
        _require_no_backbone(backbone, os.fspath(source))
        store = FeatureStore(source)
    else:
        if backbone and modalities_of(backbone, reload.weights, reload.offline)[0] == "text":
            _require_text_encoder(*split_name(backbone), "the backbone")  # before hours of embedding
        options: dict[str, Any] = {} if label == "label" else {"label": label}
        _claim_folder(features, {"source": str(Path(source).resolve()), "label": label, "backbone": backbone})
        options |= {"weights": reload.weights, "offline": reload.offline}
        try:
            with inner_options(*inspect.signature(embed).parameters.keys() - OF_FINE_TUNING) as written:
                store = embed(source, features, backbone=backbone, device=device, progress=progress, **options)
        except EmbedpipeError as error:
            if not FeatureStore.exists(os.fspath(features)):  # the folder stays free for another source
                features.with_name(CLAIM).unlink(missing_ok=True)
            if named := [each for each in written if each in str(error)]:
                what = "an option" if len(named) == 1 else "options"
                error.args = (f"{error} ({what} of `embedpipe embed`: embed the items first, and give the store here)",)
            raise
        label = "label"  # the store's name of the column, whatever its name in the source
    require_trainable(store.spec, repr(store.path))
    return store, label


def reload_named(backbone: str, reload: ReloadOptions) -> ReloadOptions:
    """Return the options that load a backbone again which the call names, or ``reload`` for that of a store.

    What the call names, code and paths too, is trusted, and a weights file that is named is the weights.
    """
    if not backbone:
        return reload
    file = backbone.removeprefix("checkpoint/")
    return dataclasses.replace(reload, weights=reload.weights if file == backbone else file, trust=True)


def _require_no_backbone(backbone: str, path: str) -> None:
    if backbone:
        raise UsageError(
            f"{option('backbone')} is only for items that are not in a store, got {backbone!r} with the store "
            f"{path!r}: leave it out"
        )


def require_trainable(spec: BackboneSpec, holder: str) -> None:
    """Raise UsageError if a backbone cannot be trained and saved; ``holder`` has its spec."""
    if spec.is_imported:
        raise UsageError(
            f"fine-tuning needs a network, and the vectors of {holder} were imported, from {spec.name!r}: embed the "
            "items with a backbone first, or fit a head (`embedpipe fit`)"
        )
    if spec.modality == "text":
        _require_text_encoder(spec.provider, spec.name, holder)


def _require_text_encoder(provider: str, name: str, holder: str) -> None:
    """Raise UsageError if a backbone for texts cannot be trained and saved."""
    if provider not in HUGGING_FACE:
        why = ", which has a vector for each word and no network" if provider == "word-vectors" else ""
        raise UsageError(
            "of the backbones for texts, those of sentence-transformers/ and transformers/ can be fine-tuned, and "
            f"{holder} is of {provider}/{name}{why}: use another"
        )


def _claim_folder(features: Path, source: dict[str, str]) -> None:
    """Note which source the folder of a run is for. Raises UsageError if it is for another source."""
    path = features.with_name(CLAIM)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and FeatureStore.exists(os.fspath(features)):
        try:
            earlier = parse_json(read_regular(path))
        except (OSError, ValueError):
            earlier = None
        remedy = f"give the same, or another folder ({option('to', ...)})"
        require_same(earlier, source, f"the run in {str(features.parent)!r}", remedy)
    with whole_file(path) as part:
        part.write_text(json.dumps(source), encoding="utf-8")


def item_reader(uris: Sequence[str | None], hashes: Sequence[str], modality: Modality) -> Callable[[int], Any]:
    """Return a function that reads an item by position and checks that it is the one that was embedded."""

    def read(row: int) -> Any:
        uri = uris[row]
        if uri is None:
            raise ReadError(f"the store has no location for the {modality}: embed it from a file")
        payload = read_uri(uri, modality)
        if payload_hash(payload) != hashes[row]:
            raise ReadError(f"{uri} has changed since it was embedded: embed it again")
        return payload

    return read


def load_frozen(spec: BackboneSpec, reload: ReloadOptions, device: torch.device | str | None) -> Backbone:
    """Load the backbone of a store in fp32, whatever the precision of the store.

    Raises the errors of `embedpipe.backbones.reload.reload_backbone`, and UsageError for a reduced layer.
    """
    for layer in spec.layers:
        if layer.reduction:
            raise UsageError(
                f"fine-tuning needs a layer of the network, and {layer.name!r} is reduced from "
                f"{layer.reduction.layer!r}: give that one, or a head on it"
            )
    return reload_backbone(dataclasses.replace(spec, precision="fp32"), reload, device, "the store")


def open_item_set(split: SplitRows, frozen: Backbone, seed: int = 0) -> ItemSet:
    """Return the items of a store, prepared as the backbone does; ``seed`` is for the augmentation of images."""
    read = item_reader(split.uris, split.hashes, frozen.spec.modality)
    return make_item_set(read, split.ids.to_pylist(), split.uris, frozen, seed)


def make_item_set(
    read: Callable[[int], Any], ids: Sequence[str], uris: Sequence[str | None], frozen: Backbone, seed: int = 0
) -> ItemSet:
    """Return the items that ``read`` returns by position."""
    if isinstance(frozen, TextBackbone):
        return TextSet(read, ids, uris, frozen)
    assert isinstance(frozen, ImageBackbone)
    pinned = frozen.device.type == "cuda"
    return ImageSet(read, ids, uris, frozen.network.preprocessing, seed, pinned=pinned)
