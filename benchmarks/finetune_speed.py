"""Does fine-tuning run as fast as other loops? Images a second, side by side in one run.

    python benchmarks/finetune_speed.py [FOLDER] [--network tf_efficientnet_lite0] [--images 128] [--rounds 3]
    python benchmarks/finetune_speed.py FOLDER --network resnet50 --network vit_base_patch16_224 --device cuda \
        --precision bf16 --images 20000 --batch-size 256

The same photos, network, optimizer, batch size, precision and augmentation (a random crop, a flip), in turns:

- embedpipe's `Trainer`, with frozen batch-norm statistics as it is used, and with statistics that follow the batches;
- a plain PyTorch loop: a Dataset, torchvision's v2 transforms, a DataLoader with a worker a core, autocast;
- timm's loader, with its transforms and its prefetcher, around the same steps as its training script takes.

Each is one epoch after a warm-up, from files to the last step. What counts is the median over the rounds of embedpipe's
rate over the fastest other's of that round: it should be 0.95 or more. FOLDER has JPEGs, by default those of the
tests; with fewer than `--images`, they are seen again. The last line has all numbers as JSON.
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
import torch
from common import PHOTOS, make_parser, write_json
from networks import list_photos
from PIL import Image
from timm.data import create_loader
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from embedpipe import load_backbone
from embedpipe._utils.config import usable_cores
from embedpipe._utils.progress import Progress
from embedpipe.finetuning import FineTuneOptions
from embedpipe.finetuning.training.classifier_network import ClassifierNetwork
from embedpipe.finetuning.training.images import ImageSet
from embedpipe.finetuning.training.linear_head import LinearHead
from embedpipe.finetuning.training.trainer import PRECISIONS, Trainer

CLASSES = 10
LIMIT = 0.95


class Files(Dataset[Any]):
    """Pictures of files with made-up classes, as (picture, class)."""

    def __init__(self, paths: list[Path], transform: Callable[[Image.Image], Any] | None = None) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        with Image.open(self.paths[row]) as image:
            picture = image.convert("RGB")
        return (self.transform(picture) if self.transform else picture), row % CLASSES


def by_embedpipe(options: argparse.Namespace, name: str, paths: list[Path], batch_norm: str) -> float:
    """Return the seconds of an epoch of `Trainer`."""
    backbone = load_backbone(f"timm/{name}", weights="none", device=options.device)
    dim = backbone.spec.layers[0].dim
    rng = np.random.default_rng(0)
    head = LinearHead(rng.normal(0, 0.01, (CLASSES, dim)), np.zeros(CLASSES), np.arange(CLASSES), unit=False)
    network = ClassifierNetwork(backbone, head, batch_norm)
    ids = [str(path) for path in paths]
    photos = ImageSet(lambda row: paths[row].read_bytes(), ids, ids, backbone.network.preprocessing)
    chosen = FineTuneOptions(
        epochs=2, batch_size=options.batch_size, augment="light", layer_decay=1.0, train_precision=options.precision
    )
    y, rows = np.arange(len(paths)) % CLASSES, np.arange(len(paths))
    trainer = Trainer(network, photos, y, rows, rows[:1], chosen)
    # The first epoch warms up; both hold one validation picture, which is no more than a step's noise.
    return trainer.fit(Progress(False)).epochs[-1].seconds


def by_loop(options: argparse.Namespace, name: str, loader: Iterable[Any]) -> float:
    """Return the seconds of the second of two epochs over a loader."""
    device = torch.device(options.device)
    network = timm.create_model(name, num_classes=CLASSES).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.01)
    dtype = PRECISIONS.get(options.precision)
    seconds = 0.0
    for _ in range(2):
        start = time.monotonic()
        for pixels, y in loader:
            moved = pixels.to(device, non_blocking=True, memory_format=torch.channels_last)
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                loss = cross_entropy(network(moved), y.to(device, non_blocking=True))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.monotonic() - start
    return seconds


def plain_loader(options: argparse.Namespace, paths: list[Path], size: int) -> Iterable[Any]:
    """Return what a tutorial writes."""
    transform = v2.Compose(
        [
            v2.PILToTensor(),
            v2.RandomResizedCrop(size, scale=(0.5, 1), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    return DataLoader(
        Files(paths, transform),
        options.batch_size,
        shuffle=True,
        num_workers=usable_cores(),
        pin_memory=options.device != "cpu",
        persistent_workers=True,
    )


def timm_loader(options: argparse.Namespace, paths: list[Path], size: int) -> Iterable[Any]:
    """Return timm's loader, with the same augmentation."""
    return create_loader(
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


def measure(options: argparse.Namespace, name: str, paths: list[Path]) -> dict[str, Any]:
    """Give each contender a turn in every round; return images a second and ratios."""
    size = timm.create_model(name).pretrained_cfg["input_size"][-1]
    contenders: dict[str, Callable[[], float]] = {
        "embedpipe": lambda: by_embedpipe(options, name, paths, "frozen"),
        "embedpipe, trained statistics": lambda: by_embedpipe(options, name, paths, "trained"),
        "plain loop": lambda: by_loop(options, name, plain_loader(options, paths, size)),
        "timm's loader": lambda: by_loop(options, name, timm_loader(options, paths, size)),
    }
    rates: dict[str, list[float]] = {each: [] for each in contenders}
    for _ in range(options.rounds):
        for each, run in contenders.items():
            rates[each].append(len(paths) / run())
    others = [max(pair) for pair in zip(rates["plain loop"], rates["timm's loader"], strict=True)]
    ratios = {each: statistics.median(np.divide(found, others).tolist()) for each, found in rates.items()}
    return {"images a second": {each: statistics.median(found) for each, found in rates.items()}, "ratio": ratios}


def main() -> int:
    """Measure, print, and exit with 1 if a network is trained too slowly."""
    parser = make_parser(__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=PHOTOS)
    parser.add_argument("--network", action="append", help="a name of timm's, several times")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=("fp32", *PRECISIONS))
    options = parser.parse_args()
    found = list_photos(options.folder)
    paths = [found[i % len(found)] for i in range(options.images)]
    results = {name: measure(options, name, paths) for name in options.network or ["tf_efficientnet_lite0"]}
    print("| network | contender | images/s | of the fastest other |")
    print("| --- | --- | ---: | ---: |")
    for name, one in results.items():
        for each, rate in one["images a second"].items():
            print(f"| {name} | {each} | {rate:,.1f} | {one['ratio'][each]:.2f} |")
    write_json(options, results)
    return 0 if all(one["ratio"]["embedpipe"] >= LIMIT for one in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
