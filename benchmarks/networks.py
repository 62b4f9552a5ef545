"""Networks and photos of the speed benchmarks: the same weights, in the same files, for every library.

    python benchmarks/networks.py [--photos FOLDER]    # writes the files now; otherwise a benchmark does on first use

EfficientNet-Lite0 is pretrained. The other networks have random weights, because no published ones are installed: the
operations, and so the time, are the same. Their batch-norms are calibrated on a few photos; otherwise activations would
vanish or explode, and a comparison of vectors would show nothing.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import timm.data
import torch
from common import PHOTOS, list_photos, make_parser, write_json
from PIL import Image
from timm.models import save_for_hf

from embedpipe import load_backbone

PRETRAINED = "tf_efficientnet_lite0"
#: timm's name -> usual name.
NETWORKS = {
    PRETRAINED: "EfficientNet-Lite0",
    "mobilenetv3_large_100": "MobileNetV3-L",
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "vit_base_patch16_224": "ViT-B/16",
}
HOME = Path(__file__).parent / ".peers" / "weights"
CALIBRATION_PHOTOS = 64


def lay_out(photos: Sequence[Path], count: int, folder: Path) -> Path:
    """Fill a new folder with links to ``count`` photos, or copies if there are fewer photos, and return it.

    A copy has an appended number, which decoders ignore; otherwise embedpipe would reuse the vector of the original.
    """
    folder.mkdir()
    for number, path in zip(range(count), itertools.cycle(photos), strict=False):
        copy = number // len(photos)
        target = folder / f"{number:06}{path.suffix}"
        if copy:
            target.write_bytes(path.read_bytes() + copy.to_bytes(4))
        else:
            target.symlink_to(path.resolve())
    return folder


def weights_of(name: str, photos: Sequence[Path]) -> Path:
    """Return the file with the weights of a network, a state dict for ``torch.load``; write it on the first call.

    Beside it is a folder of the same name without suffix, in the format in which timm and transformers publish models.
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


def timm_transform(model: Any) -> Any:
    """Return timm's own preprocessing of a model, without augmentation."""
    data: Any = timm.data
    return data.create_transform(**data.resolve_model_data_config(model), is_training=False)


def _save_folder(model: Any, folder: Path) -> None:
    """Save a model in the format of published models."""
    save_for_hf(model, str(folder), safe_serialization=True)
    config = folder / "config.json"
    content = json.loads(config.read_text(encoding="utf-8"))
    del content["model_args"]  # published models have none, and transformers 5.23 cannot read those of timm 1.0.31
    config.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _pretrained() -> Any:
    module = load_backbone(f"timm/{PRETRAINED}", device="cpu").network.module
    model = timm.create_model(PRETRAINED)
    model.load_state_dict(module.state_dict())
    return model.eval()


def _random(name: str, photos: Sequence[Path]) -> Any:
    """Return a network with random weights and batch-norms calibrated on the photos."""
    torch.manual_seed(0)
    model: Any = timm.create_model(name)
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    if not norms:
        return model
    for norm in norms:
        if not norm.weight.any():  # zero in the branches of new ResNets, which would hide an error in a branch
            torch.nn.init.constant_(norm.weight, 0.2)
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    transform = timm_transform(model)
    with torch.inference_mode():
        for start in range(0, len(photos), 32):
            batch = photos[start : start + 32]
            model(torch.stack([transform(Image.open(path).convert("RGB")) for path in batch]))
    return model.eval()


def main() -> None:
    """Write the weights of all networks."""
    parser = make_parser(__doc__)
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="folder of JPEG files (default: %(default)s)")
    options = parser.parse_args()
    photos = list_photos(options.photos)
    files = {}
    for name, title in NETWORKS.items():
        files[name] = str(weights_of(name, photos))
        print(f"{title:<20}{files[name]}", flush=True)
    write_json(options, files)


if __name__ == "__main__":
    main()
