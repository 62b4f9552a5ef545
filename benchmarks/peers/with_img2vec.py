"""img2vec-pytorch on lists of PIL images. It supports torchvision's ResNets, and resizes all photos to squares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from img2vec_pytorch import Img2Vec
from PIL import Image
from runner import BATCH, Embed, Task, Vectors, photos_in, run
from torchvision.models import get_model_weights


def load(task: Task) -> Embed:
    """Return a function that embeds a folder."""
    # It always loads published weights, so the weights of the benchmark, with the same tensor names, take their place.
    torch.hub.set_dir(str(task.out))
    target = task.out / "checkpoints" / Path(get_model_weights(task.network).DEFAULT.url).name
    target.parent.mkdir()
    target.symlink_to(task.weights.resolve())
    network = Img2Vec(cuda=task.device.startswith("cuda"), model=task.network)

    def embed(folder: Path) -> Vectors:
        paths = photos_in(folder)
        parts = [
            network.get_vec([Image.open(path).convert("RGB") for path in paths[start : start + BATCH]])
            for start in range(0, len(paths), BATCH)
        ]
        return np.concatenate(parts)

    return embed


if __name__ == "__main__":
    run(load, ("img2vec-pytorch", "torchvision"))
