"""The network behind a store, and its pictures, as everything that trains begins with them."""

from __future__ import annotations

import dataclasses

import torch

from embedpipe.backbones.image_backbone import ImageBackbone
from embedpipe.backbones.load import reload_backbone
from embedpipe.backbones.options import ReloadOptions
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.finetuning.opening import photo_reader
from embedpipe.finetuning.photos import Photos
from embedpipe.finetuning.roles import Roles


def load_frozen(spec: BackboneSpec, reload: ReloadOptions, device: torch.device | str | None) -> ImageBackbone:
    """Load the backbone of a store of images in full precision, whatever embedded them.

    Raises what `embedpipe.backbones.load.reload_backbone` does.
    """
    backbone = reload_backbone(dataclasses.replace(spec, precision="fp32"), reload, device, "the store")
    assert isinstance(backbone, ImageBackbone)
    return backbone


def photos_of(roles: Roles, frozen: ImageBackbone, seed: int = 0) -> Photos:
    """Return a store's pictures as that network sees them; the seed is of their augmentation."""
    read = photo_reader(roles.uris, roles.hashes)
    pinned = frozen.device.type == "cuda"
    return Photos(read, roles.ids.to_pylist(), roles.uris, frozen.network.preprocessing, seed, pinned=pinned)
