"""A small two-tower network of open_clip, saved in the folder that the library's ``local-dir:`` takes."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def config(vision: dict[str, Any] | None = None, text: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Return the configuration with changes of its parts."""
    made = {**copy.deepcopy(CONFIG), **changes}
    made["vision_cfg"].update(vision or {})
    made["text_cfg"].update(text or {})
    return made


@contextmanager
def known_to_the_library(file: Path) -> Iterator[str]:
    """Let open_clip know the architecture of a configuration file for a while, by the file's name."""
    from open_clip import factory

    factory.add_model_config(file)
    try:
        yield file.stem
    finally:
        factory._MODEL_CONFIG_PATHS.remove(file)
        factory._MODEL_CONFIGS.pop(file.stem)


def write_clip(
    folder: Path, model: dict[str, Any] | None = None, recipe: dict[str, Any] | None = None, seed: int = 0
) -> Path:
    """Write a folder with random weights that are far from all alike, and return it."""
    import open_clip

    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": model or CONFIG, "preprocess_cfg": recipe or {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
        for name, tensor in network.named_parameters():
            if name == "text_decoder.text_projection":  # the library leaves it as the memory was
                torch.nn.init.normal_(tensor, std=0.1)
            elif tensor.ndim > 1 and "embedding" not in name:
                tensor.data.mul_(2)
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder
