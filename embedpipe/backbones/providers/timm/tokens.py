"""The tokens of timm's transformers: those before the patches, and what comes after their pooling."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError

#: Networks whose publications probe the class token, where timm gives the mean of the patches: DINOv3 (Simeoni et al.,
#: 2025, sections 6.1 and 6.2). All others have timm's pooling, which is that of their publication.
_CLASS_TOKEN = "_dinov3"


def token_layout(model: Any, name: str, crop: tuple[int, int]) -> dict[str, Any]:
    """Return the fields of an `ImageNetwork` that describe tokens; none for a network without."""
    if not hasattr(model, "num_prefix_tokens"):
        return {}
    has_class = getattr(model, "cls_token", None) is not None
    norm = getattr(model, "fc_norm", None)
    return {
        "prefix_tokens": model.num_prefix_tokens,
        "class_token": has_class,
        "patches": _patches(model, crop),
        "tokens": _tokens,
        "after_pooling": None if norm is None or isinstance(norm, nn.Identity) else _normalise,
        "default_pooling": "cls" if has_class and _CLASS_TOKEN in name else None,
    }


def require_patches(model: Any, crop: tuple[int, int], image_size: int | None) -> None:
    """Raise UsageError if the user's size would cut patches at the edges, which timm would leave out."""
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if image_size is None or patch is None or getattr(model.patch_embed, "dynamic_img_pad", False):
        return
    side = max(patch)
    if image_size % side:
        below = image_size - image_size % side
        raise UsageError(
            f"{option('image_size')} must be a multiple of {side}, the side of a patch, got {image_size}: use "
            f"{f'{below} or ' if below else ''}{below + side}"
        )


def _patches(model: Any, crop: tuple[int, int]) -> int | None:
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    return None if patch is None else (crop[0] // patch[0]) * (crop[1] // patch[1])


def _tokens(model: Any, pixels: Tensor) -> Any:
    return model.forward_features(pixels)


def _normalise(model: Any, vectors: Tensor) -> Any:
    return model.fc_norm(vectors)
