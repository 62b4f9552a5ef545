"""Small image models of transformers with random weights, saved with the processors with which they are published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tiny_transformer import save_tokenizer
from transformers import AutoModel

SMALL: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
}  # fmt: skip
VIT: dict[str, Any] = {**SMALL, "image_size": 32, "patch_size": 8}
STAGES: dict[str, Any] = {"depths": [1, 1], "hidden_sizes": [8, 16], "num_stages": 2, "patch_size": 4}
SIZE = {"size": {"height": 32, "width": 32}}
CROP = {"size": {"shortest_edge": 37}, "crop_size": {"height": 32, "width": 32}}
COLOURS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
TEXT: dict[str, Any] = {
    **SMALL, "vocab_size": 12, "max_position_embeddings": 8, "eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1,
}  # fmt: skip

#: model -> configuration, processor
MODELS: dict[str, tuple[Any, Any]] = {
    "dinov2": (
        lambda: transformers.Dinov2Config(**{**VIT, "image_size": 56}),
        lambda: transformers.BitImageProcessor(**CROP, **COLOURS),
    ),
    "registers": (
        lambda: transformers.Dinov2WithRegistersConfig(**VIT, num_register_tokens=4),
        lambda: transformers.BitImageProcessor(**CROP),
    ),
    "vit": (lambda: transformers.ViTConfig(**VIT), lambda: transformers.ViTImageProcessor(**SIZE)),
    "vit-mae": (
        lambda: transformers.ViTMAEConfig(**VIT),
        lambda: transformers.ViTImageProcessor(**SIZE, **COLOURS),
    ),
    "ijepa": (lambda: transformers.IJepaConfig(**VIT), lambda: transformers.ViTImageProcessor(**SIZE)),
    "swin": (
        lambda: transformers.SwinConfig(
            image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4
        ),
        lambda: transformers.ViTImageProcessor(**SIZE, resample=3),
    ),
    "convnextv2": (
        lambda: transformers.ConvNextV2Config(**STAGES, image_size=32),
        lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.875),
    ),
    "siglip-vision": (
        lambda: transformers.SiglipVisionConfig(**VIT),
        lambda: transformers.SiglipImageProcessor(**SIZE),
    ),
    "siglip": (
        lambda: transformers.SiglipConfig(vision_config=VIT, text_config=TEXT),
        lambda: transformers.SiglipImageProcessor(**SIZE),
    ),
    "clip-vision": (lambda: transformers.CLIPVisionConfig(**VIT), lambda: transformers.CLIPImageProcessor(**CROP)),
    "clip": (
        lambda: transformers.CLIPConfig(vision_config=VIT, text_config=TEXT, projection_dim=24),
        lambda: transformers.CLIPImageProcessor(**CROP),
    ),
}


def save_vision(folder: Path, kind: str, words: bool = False) -> str:
    """Save a small model with random weights, its processor, and a tokenizer; return its backbone name."""
    config, processor = MODELS[kind]
    torch.manual_seed(1)
    module = AutoModel.from_config(config())
    with torch.no_grad():  # published weights are larger than those of a fresh network, and no two tokens are the same
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    module.save_pretrained(folder)
    processor().save_pretrained(folder)
    if words:
        save_tokenizer(folder, max_length=8)
    return f"transformers/{folder}"
