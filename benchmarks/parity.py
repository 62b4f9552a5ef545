"""Does embedpipe give the same vectors as timm, torchvision, open_clip and transformers?

    python benchmarks/parity.py [--folder FOLDER] [--photos 200] [--saved] [--json FILE]

Each photo goes through the library's own Pillow transform and model, one at a time, and through embedpipe in batches.
Vectors are centred on their mean before the cosine: without centring, random networks hide a wrong resize. Models of
folders have random weights. The exit code is 1 if a limit is missed.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from common import CLOTHING, centred_cosine, folder_exists, list_photos, make_parser, spread_out, write_json
from folders import Case, make_cases
from networks import timm_transform
from PIL import Image, ImageOps
from torchvision import models

from embedpipe import load_backbone
from embedpipe.backbones import Backbone
from embedpipe.decoding import Preprocessing

Vectors = npt.NDArray[np.float32]

#: Backbone, weights, and the lower limit of the cosine.
CASES = (
    ("timm/tf_efficientnet_lite0", "default", 0.9999),
    ("torchvision/resnet18", "none", 0.999),
    ("torchvision/inception_v3", "none", 0.999),
    ("torchvision/vit_b_16", "none", 0.999),
)
#: That of models of folders.
LOWEST = 0.9999
BATCHES = (1, 7, 64)
MAX_GREY, MAX_BATCH_ERROR = 0.01, 1e-4


@dataclass
class Parity:
    """Differences between embedpipe and the library: grey levels, cosine, and error relative to the vector's norm."""

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
    """Return the library's own transform, and a function from its output to the library's features."""
    name = backbone.spec.name
    if backbone.spec.provider == "timm":
        model: Any = timm.create_model(name, pretrained=False)
        model.load_state_dict(backbone.network.module.state_dict())
        model.eval()
        return timm_transform(model), lambda x: model.forward_head(model.forward_features(x), pre_logits=True)
    torch.manual_seed(0)
    model = models.get_model(name, weights=None, **({"init_weights": True} if name == "inception_v3" else {}))
    model.eval()
    for head in ("fc", "heads"):
        if hasattr(model, head):
            setattr(model, head, torch.nn.Identity())
    return models.get_model_weights(name).DEFAULT.transforms(), model


def compare_named(name: str, weights: str, paths: list[Path], lowest: float) -> Parity:
    """Compare a backbone that its library knows by its name on these photos."""
    backbone = load_backbone(name, weights=weights, device="cpu")
    return compare(name, weights, backbone, *reference(backbone), paths, lowest)


def compare_saved(case: Case, paths: list[Path]) -> Parity:
    """Compare a model of a folder on these photos."""
    backbone = load_backbone(case.backbone, device="cpu", **case.options)
    return compare(case.title, "folder", backbone, case.transform, case.features, paths, LOWEST)


def compare(
    title: str,
    weights: str,
    backbone: Backbone,
    transform: Callable[[Image.Image], torch.Tensor],
    features: Callable[[torch.Tensor], Any],
    paths: list[Path],
    lowest: float,
) -> Parity:
    """Compare a backbone with its library on these photos."""
    recipe = backbone.spec.preprocessing
    assert isinstance(recipe, Preprocessing)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (recipe.mean, recipe.std))
    pixels, grey, library_vectors = [], [], []
    for path in paths:
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        tensor = transform(image)
        with torch.inference_mode():
            library_vectors.append(features(tensor[None]).numpy()[0])
        pixels.append(backbone.prepare(path.read_bytes()).value)
        levels = ((tensor * std + mean) * 255).permute(1, 2, 0).numpy()
        grey.append(np.abs(levels - pixels[-1]))
    vectors = {size: embed(backbone, pixels, size) for size in BATCHES}
    cosine = centred_cosine(vectors[BATCHES[-1]], np.stack(library_vectors))
    norms = np.linalg.norm(vectors[1], axis=1)
    error = max(float((np.linalg.norm(vectors[size] - vectors[1], axis=1) / norms).max()) for size in BATCHES[1:])
    grey_mean = float(np.mean(grey))
    ok = grey_mean <= MAX_GREY and cosine.min() >= lowest and error <= MAX_BATCH_ERROR
    return Parity(
        title,
        weights,
        len(paths),
        grey_mean,
        float(np.max(grey)),
        float(cosine.min()),
        float(np.median(cosine)),
        error,
        bool(ok),
    )


def embed(backbone: Backbone, pixels: list[npt.NDArray[np.uint8]], size: int) -> Vectors:
    """Embed pixels in batches of ``size``."""
    parts = [backbone.forward(pixels[i : i + size])["embedding"] for i in range(0, len(pixels), size)]
    return np.concatenate(parts)


def main() -> int:
    """Measure all cases; return 1 if a limit is missed."""
    parser = make_parser(__doc__)
    parser.add_argument("--folder", type=Path, default=CLOTHING, help="folder of JPEG files (default: %(default)s)")
    parser.add_argument("--photos", type=int, default=200, help="photos, spread over the folder (default: 200)")
    parser.add_argument("--saved", action="store_true", help="only the models of folders")
    options = parser.parse_args()
    if options.photos < 2:
        parser.error(f"--photos must be >= 2, got {options.photos}")
    if not folder_exists(options.folder, "--folder"):
        return 0
    paths = spread_out(list_photos(options.folder, "--folder"), options.photos)
    print(f"{'backbone':<34}{'photos':>7}{'grey mean':>11}{'grey max':>10}{'1 - cosine':>12}{'batch error':>13}  ok")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            partial(compare_named, name, weights, paths, lowest) for name, weights, lowest in CASES if not options.saved
        ]
        for run in [*runs, *(partial(compare_saved, case, paths) for case in make_cases(Path(folder)))]:
            row = run()
            results.append(row)
            print(
                f"{row.backbone:<34}{row.photos:>7}{row.grey_mean:>11.1e}{row.grey_max:>10.1e}"
                f"{1 - row.cosine_min:>12.1e}{row.batch_error:>13.1e}  {'yes' if row.ok else 'NO'}",
                flush=True,
            )
    write_json(options, [asdict(row) for row in results])
    return 0 if all(row.ok for row in results) else 1


if __name__ == "__main__":
    sys.exit(main())
