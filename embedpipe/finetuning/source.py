"""What training begins with: a store of images, its frozen network, and its files read again."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from embedpipe._utils.atomic import whole_file
from embedpipe.backbones.image_backbone import ImageBackbone
from embedpipe.backbones.options import ReloadOptions
from embedpipe.backbones.reload import reload_backbone
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.decoding import payload_hash
from embedpipe.embedding import embed
from embedpipe.errors import EmbedpipeError, ReadError, UsageError
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
    """Return the store, or one of images that are embedded into ``features``, and its column to learn.

    Raises UsageError for a store of texts.
    """
    if isinstance(source, FeatureStore):
        store = source
    elif FeatureStore.exists(os.fspath(source)):
        if backbone:
            raise UsageError(f"backbone={backbone!r} is for images, and {os.fspath(source)!r} is a store: leave it out")
        store = FeatureStore(source)
    else:
        named: dict[str, Any] = {} if label == "label" else {"label": label}
        _claim(features, {"source": str(Path(source).resolve()), "label": label, "backbone": backbone})
        named |= {"weights": reload.weights, "offline": reload.offline}
        try:
            store = embed(source, features, backbone=backbone, device=device, progress=progress, **named)
        except EmbedpipeError:
            if not FeatureStore.exists(os.fspath(features)):  # nothing is claimed for what could not be begun
                _claim_of(features).unlink(missing_ok=True)
            raise
        label = "label"  # as the store calls it, whatever the source does
    if store.spec.modality != "image":
        raise UsageError(f"{store.path!r} holds vectors of texts, and only networks of images are fine-tuned")
    return store, label


def _claim(features: Path, facts: dict[str, str]) -> None:
    """Take a run's folder for one source, before anything of it is changed. Raises UsageError if it is another's."""
    path, told = _claim_of(features), json.dumps(facts)
    if path.exists() and path.read_text(encoding="utf-8") != told:
        raise UsageError(f"{str(features.parent)!r} holds a run of other data: name another folder (--to)")
    with whole_file(path) as part:
        part.write_text(told, encoding="utf-8")


def _claim_of(features: Path) -> Path:
    return features.with_suffix(".json")


def image_reader(uris: Sequence[str | None], hashes: Sequence[str]) -> Callable[[int], Any]:
    """Return what reads a picture by position, if it is still the one that was embedded."""

    def read(row: int) -> Any:
        uri = uris[row]
        if uri is None:
            raise ReadError("the store does not know where it is: embed it from a file")
        payload = read_uri(uri)
        if payload_hash(payload) != hashes[row]:
            raise ReadError(f"{uri} has changed since it was embedded: embed it again")
        return payload

    return read


def load_frozen(spec: BackboneSpec, reload: ReloadOptions, device: torch.device | str | None) -> ImageBackbone:
    """Load the backbone of a store of images in full precision, whatever embedded them.

    Raises what `embedpipe.backbones.reload.reload_backbone` does.
    """
    backbone = reload_backbone(dataclasses.replace(spec, precision="fp32"), reload, device, "the store")
    assert isinstance(backbone, ImageBackbone)
    return backbone


def image_set_of(split: SplitRows, frozen: ImageBackbone, seed: int = 0) -> ImageSet:
    """Return a store's pictures as that network sees them; the seed is of their augmentation."""
    read = image_reader(split.uris, split.hashes)
    pinned = frozen.device.type == "cuda"
    return ImageSet(read, split.ids.to_pylist(), split.uris, frozen.network.preprocessing, seed, pinned=pinned)
