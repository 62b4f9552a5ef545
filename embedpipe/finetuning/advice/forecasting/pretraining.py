"""How a backbone was pretrained, by its name: gains of fine-tuning differ with it."""

from __future__ import annotations

import re
from typing import Literal

from embedpipe.backbones.spec import BackboneSpec

#: Convolutional or transformer network with labels; self-supervised by instances or by masked images; trained with
#: captions; for segmentation; a language model.
Pretraining = Literal["cnn-sup", "vit-sup", "ssl-inst", "ssl-mim", "vlm", "sam", "text-lm"]

#: The first pattern that is found in ``provider/name`` decides.
_PATTERNS: tuple[tuple[Pretraining, str], ...] = (
    ("vlm", r"^open_clip/|clip|siglip|coca|align-"),
    ("sam", r"\bsam|sam_|samvit|sam2"),
    ("ssl-mim", r"\bmae\b|_mae|-mae|beit|simmim|data2vec|jepa|fcmae|hiera"),
    ("ssl-inst", r"dino|ibot|moco|simclr|swav|byol|msn|barlow|vicreg|swsl|ssl"),
    ("vit-sup", r"vit|deit|swin|cait|xcit|eva"),
    ("cnn-sup", r"^(timm|torchvision|transformers)/"),
)


def pretraining_of(spec: BackboneSpec) -> Pretraining | None:
    """Return how a backbone was pretrained; None if its name does not tell, or if its weights are random."""
    if not spec.pretrained or spec.is_imported or spec.provider in ("python", "checkpoint"):
        return None
    if spec.modality == "text":
        return "text-lm"
    name = f"{spec.provider}/{spec.name}".lower()
    return next((kind for kind, pattern in _PATTERNS if re.search(pattern, name)), None)
