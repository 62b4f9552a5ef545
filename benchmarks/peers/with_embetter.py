"""embetter's `ImageLoader` and `TimmEncoder`, as a scikit-learn pipeline."""

from __future__ import annotations

from pathlib import Path

from embetter.vision import ImageLoader, TimmEncoder
from runner import Embed, Task, Vectors, photos_in, run
from sklearn.pipeline import make_pipeline


def load(task: Task) -> Embed:
    """Return a function that embeds a folder."""
    encoder = TimmEncoder(f"local-dir:{task.folder}")
    encoder.model.eval()  # embetter leaves it in train mode, in which a vector depends on earlier photos
    steps = make_pipeline(ImageLoader(), encoder)

    def embed(folder: Path) -> Vectors:
        return steps.fit_transform([str(path) for path in photos_in(folder)])

    return embed


if __name__ == "__main__":
    run(load, ("embetter", "timm"))
