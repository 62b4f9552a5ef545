"""Where fine-tuning reads from: the store, the image files it was made from, and its frozen backbone."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from embedpipe._utils.atomic import whole_file
from embedpipe._utils.option_names import option
from embedpipe.backbones.image_backbone import ImageBackbone
from embedpipe.backbones.options import ReloadOptions
from embedpipe.backbones.reload import reload_backbone
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.decoding import payload_hash
from embedpipe.embedding import embed
from embedpipe.errors import EmbedpipeError, ReadError, UsageError
from embedpipe.finetuning.run_settings import require_same
from embedpipe.finetuning.split_rows import SplitRows
from embedpipe.finetuning.training.images import ImageSet
from embedpipe.sources.opening import read_uri
from embedpipe.store import FeatureStore


def open_images(
    source: FeatureStore | str | Path,
    features: Path,
    label: str,
    backbone: str,
    device: str | None,
    progress: bool | None,
    reload: ReloadOptions,
) -> tuple[FeatureStore, str]:
    """Open a store, or embed images into ``features``; return the store and its label column.

    Raises UsageError if the store holds texts.
    """
    if isinstance(source, FeatureStore):
        store = source
    elif FeatureStore.exists(os.fspath(source)):
        if backbone:
            raise UsageError(
                f"{option('backbone')} is only for images that are not in a store, got {backbone!r} with the store "
                f"{os.fspath(source)!r}: leave it out"
            )
        store = FeatureStore(source)
    else:
        options: dict[str, Any] = {} if label == "label" else {"label": label}
        _claim_folder(features, {"source": str(Path(source).resolve()), "label": label, "backbone": backbone})
        options |= {"weights": reload.weights, "offline": reload.offline}
        try:
            store = embed(source, features, backbone=backbone, device=device, progress=progress, **options)
        except EmbedpipeError:
            if not FeatureStore.exists(os.fspath(features)):  # the folder stays free for another source
                _claim_file(features).unlink(missing_ok=True)
            raise
        label = "label"  # the store's name of the column, whatever its name in the source
    check_images(store)
    return store, label


def check_images(store: FeatureStore) -> None:
    """Raise UsageError if a store holds features of texts."""
    if store.spec.modality != "image":
        raise UsageError(f"only networks for images can be fine-tuned, and {store.path!r} holds features of texts")


def _claim_folder(features: Path, source: dict[str, str]) -> None:
    """Note which source the folder of a run is for. Raises UsageError if it is for another source."""
    path = _claim_file(features)
    if path.exists():
        try:
            earlier = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            earlier = None
        remedy = f"give the same, or another folder ({option('to', ...)})"
        require_same(earlier, source, f"the run in {str(features.parent)!r}", remedy)
    with whole_file(path) as part:
        part.write_text(json.dumps(source), encoding="utf-8")


def _claim_file(features: Path) -> Path:
    return features.with_suffix(".json")


def image_reader(uris: Sequence[str | None], hashes: Sequence[str]) -> Callable[[int], Any]:
    """Return a function that reads an image by position and checks that it is the one that was embedded."""

    def read(row: int) -> Any:
        uri = uris[row]
        if uri is None:
            raise ReadError("the store has no location for the image: embed it from a file")
        payload = read_uri(uri)
        if payload_hash(payload) != hashes[row]:
            raise ReadError(f"{uri} has changed since it was embedded: embed it again")
        return payload

    return read


def load_frozen(spec: BackboneSpec, reload: ReloadOptions, device: torch.device | str | None) -> ImageBackbone:
    """Load the backbone of a store of images in fp32, whatever the precision of the store.

    Raises the errors of `embedpipe.backbones.reload.reload_backbone`, and UsageError for a reduced layer.
    """
    for layer in spec.layers:
        if layer.reduction:
            raise UsageError(
                f"fine-tuning needs a layer of the network, and {layer.name!r} is reduced from "
                f"{layer.reduction.layer!r}: give that one, or a head on it"
            )
    backbone = reload_backbone(dataclasses.replace(spec, precision="fp32"), reload, device, "the store")
    assert isinstance(backbone, ImageBackbone)
    return backbone


def open_image_set(split: SplitRows, frozen: ImageBackbone, seed: int = 0) -> ImageSet:
    """Return the images of a store with the preprocessing of the backbone; ``seed`` is for their augmentation."""
    read = image_reader(split.uris, split.hashes)
    pinned = frozen.device.type == "cuda"
    return ImageSet(read, split.ids.to_pylist(), split.uris, frozen.network.preprocessing, seed, pinned=pinned)
