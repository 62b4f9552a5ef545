"""embedpipe as `embedpipe embed` runs: into a new store, and whatever engine it chooses itself."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from runner import Embed, Task, Vectors, photos_in, run

import embedpipe


def load(task: Task) -> Embed:
    """Return what embeds a folder."""
    what = {"backbone": f"timm/{task.network}", "weights": str(task.weights), "precision": task.precision}
    embedpipe.load_backbone(device=task.device, **what)  # the process keeps it

    def embed(folder: Path) -> Callable[[], Vectors]:
        # Deleted when the process ends, as deleting is no part of the work.
        store = embedpipe.embed(folder, tempfile.mkdtemp(dir=task.out), device=task.device, **what)

        def vectors() -> Vectors:
            if store.ids() != [path.name for path in photos_in(folder)]:
                raise SystemExit(f"not every photo has a row: {store.summary}")
            return store.to_numpy()

        return vectors

    return embed


if __name__ == "__main__":
    run(load, ("embedpipe", "torchvision", "timm"))
