"""Models with random weights in folders, as users bring them, and what their libraries do with a photo."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
import sentence_transformers
import timm
import torch
import transformers
from PIL import Image
from timm.models import save_for_hf

#: A photo to the input of the network, (3, h, w), and such a batch of one to its vector.
Transform = Callable[[Image.Image], torch.Tensor]
Features = Callable[[torch.Tensor], torch.Tensor]

#: The libraries, which have no types for what is called here.
CLIP_LIBRARY: Any = open_clip
HUGGING_FACE: Any = transformers
SENTENCES: Any = sentence_transformers
TIMM_DATA: Any = timm.data

CLIP = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 96, "layers": 3, "width": 96, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 16, "width": 64, "heads": 2, "layers": 1},
}
VIT: dict[str, Any] = {
    "hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 192, "image_size": 96,
    "patch_size": 16,
}  # fmt: skip


@dataclass
class Case:
    """A backbone, its options, and the library's own transform and call."""

    title: str
    backbone: str
    transform: Transform
    features: Features
    options: dict[str, Any] = field(default_factory=dict)


def make_cases(folder: Path) -> list[Case]:
    """Save a small model of each library, and return the ways of loading it."""
    torch.manual_seed(0)
    cases = [*_of_timm(folder / "timm"), *_of_open_clip(folder / "open_clip"), *_of_transformers(folder)]
    return [*cases, _of_sentence_transformers(folder, "dinov2")]


def _spread(module: Any) -> Any:
    """Return a module whose weights are larger than those of a fresh one, so that photos differ."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return module.eval()


def _of_timm(folder: Path) -> list[Case]:
    network: dict[str, Any] = {"depth": 3, "embed_dim": 96, "num_heads": 3, "num_classes": 0}
    save_for_hf(
        _spread(timm.create_model("vit_small_patch16_dinov3", **network)),
        str(folder),
        model_args=network,
        safe_serialization=True,
    )
    cases = []
    for side in (256, 160):
        sized: dict[str, Any] = {} if side == 256 else {"img_size": side}
        model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True, **sized).eval()
        recipe = TIMM_DATA.resolve_model_data_config(model, args=sized)
        transform: Any = TIMM_DATA.create_transform(**recipe, is_training=False)
        options = {} if side == 256 else {"image_size": side}
        name = f"timm/local-dir:{folder}"

        def tokens(x: torch.Tensor, model: Any = model) -> Any:
            return model.forward_features(x)

        def head(x: torch.Tensor, model: Any = model) -> Any:
            return model.forward_head(model.forward_features(x), pre_logits=True)

        def first(x: torch.Tensor, tokens: Features = tokens) -> torch.Tensor:
            return tokens(x)[:, 0]

        cases += [
            Case(f"timm/local-dir, {side} px, cls", name, transform, first, options),
            Case(f"timm/local-dir, {side} px, none", name, transform, head, {**options, "pooling": "none"}),
        ]
    return cases


def _of_open_clip(folder: Path) -> list[Case]:
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP, "preprocess_cfg": {}}))
    model = _spread(CLIP_LIBRARY.create_model(f"local-dir:{folder}", load_weights=False))
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    cases = []
    for side in (96, 160):
        model, _, transform = CLIP_LIBRARY.create_model_and_transforms(f"local-dir:{folder}", force_image_size=side)
        options = {} if side == 96 else {"image_size": side}
        name = f"open_clip/local-dir:{folder}"
        cases.append(Case(f"open_clip/local-dir, {side} px", name, transform, model.eval().encode_image, options))
    return cases


def _of_transformers(folder: Path) -> list[Case]:
    size = {"size": {"height": 96, "width": 96}}
    crop = {"size": {"shortest_edge": 110}, "crop_size": {"height": 96, "width": 96}}
    text = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    made: dict[str, tuple[Any, Any]] = {
        "dinov2": (HUGGING_FACE.Dinov2Config(**VIT), HUGGING_FACE.BitImageProcessor(**crop)),
        "siglip": (
            HUGGING_FACE.SiglipConfig(vision_config=VIT, text_config=text),
            HUGGING_FACE.SiglipImageProcessor(**size),
        ),
    }
    cases = []
    for kind, (config, processor) in made.items():
        _spread(HUGGING_FACE.AutoModel.from_config(config)).save_pretrained(folder / kind)
        processor.save_pretrained(folder / kind)
        model: Any = HUGGING_FACE.AutoModel.from_pretrained(folder / kind).eval()
        for side in (96, 160):
            given: dict[str, Any] = {} if side == 96 else {"size": {"height": side, "width": side}}
            if side != 96 and kind == "dinov2":
                given = {"size": {"shortest_edge": 110 * side // 96}, "crop_size": given["size"]}

            def transform(photo: Image.Image, processor: Any = processor, given: Any = given) -> Any:
                return processor(images=photo, return_tensors="pt", **given)["pixel_values"][0]

            def features(x: torch.Tensor, model: Any = model, kind: str = kind) -> Any:
                if kind == "dinov2":
                    return model(x).last_hidden_state[:, 0]
                return model.get_image_features(x, interpolate_pos_encoding=True).pooler_output

            options = {} if side == 96 else {"image_size": side}
            cases.append(
                Case(f"transformers/{kind}, {side} px", f"transformers/{folder / kind}", transform, features, options)
            )
    return cases


def _of_sentence_transformers(folder: Path, kind: str) -> Case:
    """Save a model of transformers as one of sentence-transformers, with the mean of its tokens."""
    place = folder / f"sentence-transformers-{kind}"
    SENTENCES.SentenceTransformer(str(folder / kind), device="cpu").save_pretrained(str(place))
    model: Any = SENTENCES.SentenceTransformer(str(place), device="cpu")

    def transform(photo: Image.Image) -> Any:
        return model.preprocess([photo])["pixel_values"][0]

    def features(x: torch.Tensor) -> Any:
        return model({"pixel_values": x, "modality": "image"})["sentence_embedding"]

    return Case(f"sentence-transformers/{kind}, 96 px", f"sentence-transformers/{place}", transform, features)
