"""The pipeline "image-feature-extraction" of Hugging Face transformers, with its pooled output, in batches.

By default it takes one photo at a time, which is slower. It has no workers by default; on two cores they made it
slower, beside a GPU they make it faster.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from runner import BATCH, Embed, Task, Vectors, photos_in, run
from transformers import pipeline


def load(task: Task) -> Embed:
    """Return a function that embeds a folder."""
    extract = pipeline(
        "image-feature-extraction", model=str(task.folder), device=task.device, dtype=task.dtype, pool=True
    )

    workers = os.cpu_count() or 1 if task.device.startswith("cuda") else 0

    def embed(folder: Path) -> Vectors:
        vectors = extract([str(path) for path in photos_in(folder)], batch_size=BATCH, num_workers=workers)
        return np.array(vectors, np.float32).reshape(len(vectors), -1)

    return embed


if __name__ == "__main__":
    run(load, ("transformers", "timm"))
