"""The tokens of open_clip's image encoders: its own transformers, and those of timm."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from torch import Tensor, nn

from embedpipe.backbones.network import output_of


def token_layout(visual: Any, crop: tuple[int, int]) -> dict[str, Any]:
    """Return the fields of an `ImageNetwork` that describe tokens; none for a network without.

    Tokens are those before the projection into the space that images and texts share.
    """
    trunk = getattr(visual, "trunk", None)
    if trunk is not None:
        return _of_timm(trunk, crop)
    if not hasattr(visual, "class_embedding"):
        return {}
    pools_attention = visual.attn_pool is not None  # its norm is of other vectors than the tokens
    return {
        "prefix_tokens": 1,
        "class_token": True,
        "patches": math.prod(visual.grid_size),
        "tokens": None if pools_attention else partial(_tokens, visual.final_ln_after_pool),
        "after_pooling": _normalise if visual.final_ln_after_pool and not pools_attention else None,
    }


def _of_timm(trunk: Any, crop: tuple[int, int]) -> dict[str, Any]:
    if not hasattr(trunk, "num_prefix_tokens"):
        return {}
    patch = getattr(getattr(trunk, "patch_embed", None), "patch_size", None)
    norm = getattr(trunk, "fc_norm", None)
    return {
        "prefix_tokens": trunk.num_prefix_tokens,
        "class_token": getattr(trunk, "cls_token", None) is not None,
        "patches": None if patch is None else (crop[0] // patch[0]) * (crop[1] // patch[1]),
        "tokens": _trunk_tokens,
        "after_pooling": None if norm is None or isinstance(norm, nn.Identity) else _normalise_trunk,
    }


def _tokens(norm_comes_later: bool, module: Any, pixels: Tensor) -> Any:
    tokens = output_of("transformer")(module.visual, pixels)
    return tokens if norm_comes_later else module.visual.ln_post(tokens)


def _normalise(module: Any, vectors: Tensor) -> Any:
    return module.visual.ln_post(vectors)


def _trunk_tokens(module: Any, pixels: Tensor) -> Any:
    return module.visual.trunk.forward_features(pixels)


def _normalise_trunk(module: Any, vectors: Tensor) -> Any:
    return module.visual.trunk.fc_norm(vectors)
