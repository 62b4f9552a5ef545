"""Pictures of noise: of classes with a colour each, which a small network learns in a few steps, or without any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def colours(folder: Path, count: int = 60, classes: str = "abc", noise: int = 90) -> Path:
    """Write so many pictures into folders of up to three classes; the more ``noise``, the more alike they are."""
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.integers(0, 256, (34, 40, 3)).astype(float)
        pixels[..., i % len(classes)] += 255 - noise * rng.random()
        path = folder / classes[i % len(classes)] / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels / 2).clip(0, 255).astype(np.uint8)).save(path)
    return folder


def noise(folder: Path, count: int) -> Path:
    """Write so many pictures into two folders, which can only be learned by heart."""
    rng = np.random.default_rng(0)
    for i in range(count):
        path = folder / "ab"[i % 2] / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    return folder
