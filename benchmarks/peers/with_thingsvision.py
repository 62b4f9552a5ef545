"""thingsvision, as in its documentation: an extractor, an `ImageDataset` and its `DataLoader`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from runner import BATCH, Embed, Task, Vectors, run
from thingsvision import get_extractor
from thingsvision.utils.data import DataLoader, ImageDataset

#: Network -> module whose output is the input of the classifier.
MODULES = {"mobilenetv3_large_100": "flatten", "vit_base_patch16_224": "fc_norm"}


def load(task: Task) -> Embed:
    """Return a function that embeds a folder."""
    extractor = get_extractor(task.network, False, task.device, source="timm", model_path=str(task.weights))
    module = MODULES.get(task.network, "global_pool")

    def embed(folder: Path) -> Vectors:
        dataset = ImageDataset(
            root=str(folder),
            out_path=tempfile.mkdtemp(dir=task.out),
            backend=extractor.get_backend(),
            transforms=extractor.get_transformations(),
        )
        batches = DataLoader(dataset=dataset, batch_size=BATCH, backend=extractor.get_backend())
        return extractor.extract_features(batches=batches, module_name=module, flatten_acts=True)

    return embed


if __name__ == "__main__":
    run(load, ("thingsvision", "torchvision", "timm"))
