"""embedpipe as `embedpipe embed` runs: into a new store, on the engine that it chooses itself."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from runner import Embed, Task, Vectors, photos_in, run

import embedpipe


def load(task: Task) -> Embed:
    """Return a function that embeds a folder."""
    options: dict[str, Any] = {
        "backbone": f"timm/{task.network}",
        "weights": str(task.weights),
        "precision": task.precision,
    }
    embedpipe.load_backbone(device=task.device, **options)  # stays loaded in this process

    def embed(folder: Path) -> Callable[[], Vectors]:
        # Deleted at the end of the process, as deletion is not timed.
        store = embedpipe.embed(folder, tempfile.mkdtemp(dir=task.out), device=task.device, **options)

        def vectors() -> Vectors:
            if store.ids() != [path.name for path in photos_in(folder)]:
                raise SystemExit(f"not every photo has a row: {store.summary}")
            return np.asarray(store.to_numpy())

        return vectors

    return embed


if __name__ == "__main__":
    run(load, ("embedpipe", "torchvision", "timm"))
