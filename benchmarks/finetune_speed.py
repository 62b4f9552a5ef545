"""Does fine-tuning run as fast as other training loops? Images per second, side by side in one run.

    python benchmarks/finetune_speed.py [FOLDER] [--network tf_efficientnet_lite0] [--images 128] [--rounds 3]
        [--json FILE]
    python benchmarks/finetune_speed.py FOLDER --network resnet50 --network vit_base_patch16_224 --device cuda \
        --precision bf16 --images 20000 --batch-size 256

The same photos, network, optimizer, batch size, precision and augmentation (a random crop, a flip), in turns:

- embedpipe's `Trainer`, with frozen batch-norm statistics as by default, and with statistics that follow the batches;
- a plain PyTorch loop: a Dataset, torchvision's v2 transforms, a DataLoader with a worker per core, autocast;
- timm's loader, with its transforms and its prefetcher, and the steps of its training script.

Each is timed over one epoch after a warm-up epoch, from files to the last step. The result is the median over the
rounds of embedpipe's rate relative to the faster of the other two in that round; it must be at least 0.95. FOLDER has
JPEG files. If it has fewer than `--images`, they are used again.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import timm.data
import torch
from common import PHOTOS, folder_exists, list_photos, make_parser, markdown_table, write_json
from PIL import Image
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from embedpipe import load_backbone
from embedpipe._utils.config import usable_cores
from embedpipe._utils.progress import Progress
from embedpipe.backbones.image_backbone import ImageBackbone
from embedpipe.decoding import Preprocessing
from embedpipe.finetuning import FineTuneOptions
from embedpipe.finetuning.training.classifier_network import ClassifierNetwork
from embedpipe.finetuning.training.items.image_set import ImageSet
from embedpipe.finetuning.training.trainer import PRECISIONS, Trainer
from embedpipe.heads.conversion.linear_head import LinearHead

CLASSES = 10
#: Lower limit of embedpipe's rate relative to the faster other loop.
MIN_RATIO = 0.95


class Files(Dataset[Any]):
    """The images of files with arbitrary classes, as (image, class)."""

    def __init__(self, paths: list[Path], transform: Callable[[Image.Image], Any] | None = None) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        with Image.open(self.paths[row]) as file:
            image = file.convert("RGB")
        return (self.transform(image) if self.transform else image), row % CLASSES


def by_embedpipe(options: argparse.Namespace, name: str, paths: list[Path], batch_norm: str) -> float:
    """Return the seconds of the second epoch of `Trainer`."""
    backbone = load_backbone(f"timm/{name}", weights="none", device=options.device)
    recipe = backbone.spec.preprocessing
    assert isinstance(backbone, ImageBackbone)
    assert isinstance(recipe, Preprocessing)
    dim = backbone.spec.layers[0].dim
    rng = np.random.default_rng(0)
    head = LinearHead(rng.normal(0, 0.01, (CLASSES, dim)), np.zeros(CLASSES), np.arange(CLASSES), unit=False)
    network = ClassifierNetwork(backbone, head, batch_norm)
    ids = [str(path) for path in paths]
    images = ImageSet(lambda row: paths[row].read_bytes(), ids, ids, recipe)
    training = FineTuneOptions(
        epochs=2, batch_size=options.batch_size, augment="light", layer_decay=1.0, train_precision=options.precision
    )
    y, rows = np.arange(len(paths)) % CLASSES, np.arange(len(paths))
    trainer = Trainer(network, images, y, rows, rows[:1], training)
    # The first epoch warms up. Each epoch includes one validation image, which takes less than the noise of a step.
    return trainer.fit(Progress(False)).epochs[-1].seconds


def by_loop(options: argparse.Namespace, name: str, loader: Iterable[Any]) -> float:
    """Return the seconds of the second of two epochs over a loader."""
    device = torch.device(options.device)
    network: Any = timm.create_model(name, num_classes=CLASSES)
    network = network.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.01)
    dtype = PRECISIONS.get(options.precision)
    seconds = 0.0
    for _ in range(2):
        start = time.monotonic()
        for pixels, y in loader:
            batch = pixels.to(device, non_blocking=True, memory_format=torch.channels_last)
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                loss = cross_entropy(network(batch), y.to(device, non_blocking=True))
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.monotonic() - start
    return seconds


def plain_loader(options: argparse.Namespace, paths: list[Path], size: int) -> Iterable[Any]:
    """Return a DataLoader as PyTorch tutorials write it."""
    transform = v2.Compose(
        [
            v2.PILToTensor(),
            v2.RandomResizedCrop(size, scale=(0.5, 1), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    loader: Iterable[Any] = DataLoader(
        Files(paths, transform),
        options.batch_size,
        shuffle=True,
        num_workers=usable_cores(),
        pin_memory=options.device != "cpu",
        persistent_workers=True,
    )
    return loader


def timm_loader(options: argparse.Namespace, paths: list[Path], size: int) -> Iterable[Any]:
    """Return timm's loader, with the same augmentation."""
    data: Any = timm.data
    loader: Iterable[Any] = data.create_loader(
        Files(paths),
        size,
        options.batch_size,
        is_training=True,
        scale=(0.5, 1),
        color_jitter=0.0,
        interpolation="bilinear",
        num_workers=usable_cores(),
        device=torch.device(options.device),
        use_prefetcher=options.device != "cpu",
        pin_memory=options.device != "cpu",
    )
    return loader


def measure(options: argparse.Namespace, name: str, paths: list[Path]) -> dict[str, Any]:
    """Run each contender once in every round; return images per second and ratios."""
    model: Any = timm.create_model(name)
    size = int(model.pretrained_cfg["input_size"][-1])
    contenders: dict[str, Callable[[], float]] = {
        "embedpipe": lambda: by_embedpipe(options, name, paths, "frozen"),
        "embedpipe, trained statistics": lambda: by_embedpipe(options, name, paths, "trained"),
        "plain loop": lambda: by_loop(options, name, plain_loader(options, paths, size)),
        "timm's loader": lambda: by_loop(options, name, timm_loader(options, paths, size)),
    }
    rates: dict[str, list[float]] = {contender: [] for contender in contenders}
    for _ in range(options.rounds):
        for contender, run in contenders.items():
            rates[contender].append(len(paths) / run())
    others = [max(pair) for pair in zip(rates["plain loop"], rates["timm's loader"], strict=True)]
    return {
        "images per second": {contender: statistics.median(values) for contender, values in rates.items()},
        "ratio": {
            contender: statistics.median(np.divide(values, others).tolist()) for contender, values in rates.items()
        },
    }


def main() -> int:
    """Measure and print; return 1 if a network is trained too slowly."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=PHOTOS, help="folder of JPEG files (default: %(default)s)"
    )
    parser.add_argument("--network", action="append", help="name of a timm network; may be repeated")
    parser.add_argument("--images", type=int, default=128, help="images per epoch (default: 128)")
    parser.add_argument("--batch-size", type=int, default=32, help="images per step (default: 32)")
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds (default: 3)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--precision", default="fp32", choices=("fp32", *PRECISIONS), help="(default: fp32)")
    options = parser.parse_args()
    if not folder_exists(options.folder, "FOLDER"):
        return 0
    photos = list_photos(options.folder, "FOLDER")
    paths = [photos[i % len(photos)] for i in range(options.images)]
    results = {name: measure(options, name, paths) for name in options.network or ["tf_efficientnet_lite0"]}
    rows = [["network", "contender", "images/s", "relative to the faster other loop"]]
    for name, result in results.items():
        for contender, rate in result["images per second"].items():
            rows.append([name, contender, f"{rate:,.1f}", f"{result['ratio'][contender]:.2f}"])
    print(markdown_table(rows, left=(0, 1)))
    write_json(options, results)
    return 0 if all(result["ratio"]["embedpipe"] >= MIN_RATIO for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
