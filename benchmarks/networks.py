"""The networks and photos of the speed benchmarks: the same weights, in the same files, for every library.

    python benchmarks/networks.py [--photos FOLDER]    # make the files now; the benchmarks do it on first use

EfficientNet-Lite0 is pretrained. The others are random, as no published weights are at hand: the same arithmetic, so
the same time. Their batch norms are calibrated on a few photos, or activations would die out or explode, and vectors
be no test of anything.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from common import PHOTOS, make_parser, write_json
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from timm.models import save_for_hf

from embedpipe import load_backbone

PRETRAINED = "tf_efficientnet_lite0"
#: Names of timm, and how people call them.
NETWORKS = {
    PRETRAINED: "EfficientNet-Lite0",
    "mobilenetv3_large_100": "MobileNetV3-L",
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "vit_base_patch16_224": "ViT-B/16",
}
HOME = Path(__file__).parent / ".peers" / "weights"
CALIBRATION_PHOTOS = 64
SUFFIXES = {".jpg", ".jpeg"}


def list_photos(folder: Path) -> list[Path]:
    """Return the JPEGs of a folder, in order of name. Exits with a message if there are none."""
    photos = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not photos:
        raise SystemExit(f"{str(folder)!r} has no JPEG files: name a folder that has with --photos")
    return photos


def lay_out(photos: Sequence[Path], count: int, folder: Path) -> Path:
    """Fill a new folder with ``count`` photos and return it: links, and copies where there are fewer.

    A copy has a byte more at its end, which decoders pass over: else its vector would be reused and not computed.
    """
    folder.mkdir()
    for number, path in zip(range(count), itertools.cycle(photos), strict=False):
        again = number // len(photos)
        place = folder / f"{number:06}{path.suffix}"
        if again:
            place.write_bytes(path.read_bytes() + again.to_bytes(4))
        else:
            place.symlink_to(path.resolve())
    return folder


def weights_of(name: str, photos: Sequence[Path]) -> Path:
    """Return the file with the weights of a network, made if it is not there: its state dict, for ``torch.load``.

    Beside it is a folder of the same name without suffix, as timm and transformers publish models.
    """
    file = HOME / f"{name}.pth"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        model = _pretrained() if name == PRETRAINED else _random(name, photos[:CALIBRATION_PHOTOS])
        _save_folder(model, file.with_suffix(""))
        part = file.with_suffix(f".{os.getpid()}")
        torch.save(model.state_dict(), part)
        part.replace(file)
    return file


def _save_folder(model: Any, folder: Path) -> None:
    """Save a model as published ones are."""
    save_for_hf(model, str(folder), safe_serialization=True)
    config = folder / "config.json"
    described = json.loads(config.read_text(encoding="utf-8"))
    del described["model_args"]  # published ones have none, and transformers 5.23 stumbles over timm 1.0.31's
    config.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def _pretrained() -> Any:
    module = load_backbone(f"timm/{PRETRAINED}", device="cpu").network.module
    model = timm.create_model(PRETRAINED)
    model.load_state_dict(module.state_dict())
    return model.eval()


def _random(name: str, photos: Sequence[Path]) -> Any:
    """Return a network with random weights and batch norms that have seen the photos."""
    torch.manual_seed(0)
    model: Any = timm.create_model(name)
    model.eval()
    norms = [part for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    if not norms:
        return model
    for norm in norms:
        if not norm.weight.any():  # the branches of ResNets start with giving nothing, which would hide a wrong one
            torch.nn.init.constant_(norm.weight, 0.2)
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    with torch.inference_mode():
        for start in range(0, len(photos), 32):
            part = photos[start : start + 32]
            model(torch.stack([transform(Image.open(path).convert("RGB")) for path in part]))
    return model.eval()


def main() -> None:
    """Make the weights of all networks."""
    parser = make_parser(__doc__)
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="JPEGs")
    options = parser.parse_args()
    photos = list_photos(options.photos)
    made = {}
    for name, title in NETWORKS.items():
        made[name] = str(weights_of(name, photos))
        print(f"{title:<20}{made[name]}", flush=True)
    write_json(options, made)


if __name__ == "__main__":
    main()
