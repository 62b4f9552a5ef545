"""Does embedpipe give the vectors that timm and torchvision give? Prints a table; exits with 1 if not.

Each photo goes through the library's own Pillow transform and model, one at a time, and through embedpipe in
batches. Vectors are centred on their mean before the cosine: uncentred, random networks hide a wrong resize.

    python benchmarks/parity.py [--folder PHOTOS] [--photos 200] [--json FILE]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from common import CLOTHING, make_parser, write_json
from PIL import Image, ImageOps
from torchvision import models

from embedpipe import load_backbone
from embedpipe.backbones import Backbone

Vectors = npt.NDArray[np.float32]

#: Backbone, weights, and the lowest cosine that counts as the same.
CASES = (
    ("timm/tf_efficientnet_lite0", "default", 0.9999),
    ("torchvision/resnet18", "none", 0.999),
    ("torchvision/inception_v3", "none", 0.999),
    ("torchvision/vit_b_16", "none", 0.999),
)
BATCHES = (1, 7, 64)
MAX_GREY, MAX_BATCH_ERROR = 0.01, 1e-4


@dataclass
class Parity:
    """How far embedpipe is from the library: grey levels, cosine, and error over the vector's norm."""

    backbone: str
    weights: str
    photos: int
    grey_mean: float
    grey_max: float
    cosine_min: float
    cosine_median: float
    batch_error: float
    ok: bool


def reference(backbone: Backbone) -> tuple[Callable[[Image.Image], torch.Tensor], Callable[[torch.Tensor], Any]]:
    """Return the library's own transform, and its own features of a batch of one."""
    name = backbone.spec.name
    if backbone.spec.provider == "timm":
        model: Any = timm.create_model(name, pretrained=False)
        model.load_state_dict(backbone.network.module.state_dict())
        model.eval()
        config = timm.data.resolve_model_data_config(model)
        transform = timm.data.create_transform(**config, is_training=False)
        return transform, lambda x: model.forward_head(model.forward_features(x), pre_logits=True)
    torch.manual_seed(0)
    model = models.get_model(name, weights=None, **({"init_weights": True} if name == "inception_v3" else {}))
    model.eval()
    for head in ("fc", "heads"):
        if hasattr(model, head):
            setattr(model, head, torch.nn.Identity())
    return models.get_model_weights(name).DEFAULT.transforms(), model


def compare(name: str, weights: str, paths: list[Path], lowest: float) -> Parity:
    """Hold one backbone against its library on these photos."""
    backbone = load_backbone(name, weights=weights, device="cpu")
    transform, features = reference(backbone)
    recipe = backbone.spec.preprocessing
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (recipe.mean, recipe.std))
    pixels, grey, theirs = [], [], []
    for path in paths:
        picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        tensor = transform(picture)
        with torch.inference_mode():
            theirs.append(features(tensor[None]).numpy()[0])
        pixels.append(backbone.prepare(path.read_bytes()).value)
        levels = ((tensor * std + mean) * 255).permute(1, 2, 0).numpy()
        grey.append(np.abs(levels - pixels[-1]))
    ours = {size: embed(backbone, np.stack(pixels), size) for size in BATCHES}
    cosine = centred_cosine(ours[BATCHES[-1]], np.stack(theirs))
    norms = np.linalg.norm(ours[1], axis=1)
    error = max(float((np.linalg.norm(ours[size] - ours[1], axis=1) / norms).max()) for size in BATCHES[1:])
    grey_mean = float(np.mean(grey))
    ok = grey_mean <= MAX_GREY and cosine.min() >= lowest and error <= MAX_BATCH_ERROR
    return Parity(
        name,
        weights,
        len(paths),
        grey_mean,
        float(np.max(grey)),
        float(cosine.min()),
        float(np.median(cosine)),
        error,
        bool(ok),
    )


def embed(backbone: Backbone, pixels: npt.NDArray[np.uint8], size: int) -> Vectors:
    """Embed pixels in batches of a size."""
    parts = [backbone.forward(pixels[i : i + size])["embedding"] for i in range(0, len(pixels), size)]
    return np.concatenate(parts)


def centred_cosine(a: Vectors, b: Vectors) -> npt.NDArray[np.float64]:
    """Return the cosine of each pair of rows, both centred on the mean of ``b``."""
    centre = b.mean(axis=0, dtype=np.float64)
    a64, b64 = a - centre, b - centre
    cosine: npt.NDArray[np.float64] = (a64 * b64).sum(1) / (np.linalg.norm(a64, axis=1) * np.linalg.norm(b64, axis=1))
    return cosine


def main() -> int:
    """Run all cases."""
    parser = make_parser(__doc__)
    parser.add_argument("--folder", type=Path, default=CLOTHING, help="JPEG photos")
    parser.add_argument("--photos", type=int, default=200)
    options = parser.parse_args()
    if not options.folder.is_dir():
        print(f"left out: no folder {options.folder}; name one with --folder")
        return 0
    paths = sorted(options.folder.rglob("*.jpg"))
    paths = paths[:: max(1, len(paths) // options.photos)][: options.photos]
    if len(paths) < 2:
        parser.error(f"{str(options.folder)!r} has {len(paths)} .jpg files: give a folder with photos")
    print(f"{'backbone':<28}{'photos':>7}{'grey mean':>11}{'grey max':>10}{'1 - cosine':>12}{'batch error':>13}  ok")
    results = []
    for name, weights, lowest in CASES:
        row = compare(name, weights, paths, lowest)
        results.append(row)
        print(
            f"{row.backbone:<28}{row.photos:>7}{row.grey_mean:>11.1e}{row.grey_max:>10.1e}{1 - row.cosine_min:>12.1e}"
            f"{row.batch_error:>13.1e}  {'yes' if row.ok else 'NO'}",
            flush=True,
        )
    write_json(options, [asdict(row) for row in results])
    return 0 if all(row.ok for row in results) else 1


if __name__ == "__main__":
    sys.exit(main())
