"""A careful PyTorch script: a DataLoader with a worker per core, timm's transform and model, no gradients."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import timm
import timm.data
import torch
from PIL import Image
from runner import BATCH, Embed, Task, Vectors, photos_in, run
from torch.utils.data import DataLoader, Dataset


class Photos(Dataset[torch.Tensor]):
    """Transformed photos of a folder."""

    def __init__(self, folder: Path, transform: Any) -> None:
        self.paths, self.transform = photos_in(folder), transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        """Return one photo as the input of the network."""
        with Image.open(self.paths[index]) as image:
            pixels: torch.Tensor = self.transform(image.convert("RGB"))
        return pixels


def load(task: Task) -> Embed:
    """Return a function that embeds a folder."""
    model: Any = timm.create_model(task.network)
    model.load_state_dict(torch.load(task.weights, weights_only=True))
    model.eval().to(task.device)
    data: Any = timm.data
    transform = data.create_transform(**data.resolve_model_data_config(model), is_training=False)
    on_gpu = task.device.startswith("cuda")
    half = task.precision != "fp32"

    def embed(folder: Path) -> Vectors:
        loader = DataLoader(
            Photos(folder, transform),
            batch_size=256 if on_gpu else BATCH,
            num_workers=os.cpu_count() or 1,
            pin_memory=on_gpu,
        )
        vectors = []
        with torch.inference_mode(), torch.autocast(task.device.split(":")[0], task.dtype, enabled=half):
            for batch in loader:
                features = model.forward_features(batch.to(task.device, non_blocking=True))
                vectors.append(model.forward_head(features, pre_logits=True).float().cpu())
        return torch.cat(vectors).numpy()

    return embed


if __name__ == "__main__":
    run(load, ("torchvision", "timm"))
