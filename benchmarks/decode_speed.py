"""How fast are images decoded and resized compared with Pillow, and how far do the vectors move?

    python benchmarks/decode_speed.py [--photos FOLDER] [--limit 128] [--large 24] [--rounds 5] [--json FILE]

Each method turns the same JPEG files into the pixels that the default backbone takes: decoding and resizing by Pillow,
by embedpipe at full size, and by embedpipe with the scaled decoder. The methods take turns within each round; a ratio
is the median of the ratios of the rounds.
"""

from __future__ import annotations

import dataclasses
import io
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from common import PHOTOS, folder_exists, list_photos, make_parser, spread_out, write_json
from PIL import Image, ImageOps

from embedpipe import load_backbone
from embedpipe.backbones import Backbone
from embedpipe.decoding import Preprocessing, decode_image, decode_pixels, to_pixels

Pixels = npt.NDArray[np.uint8]
Method = Callable[[bytes], Pixels]

LARGE = (3000, 2000)


@dataclasses.dataclass
class Speed:
    """Images per second of a method, the ratio to Pillow's rate, and the cosine distance of its vectors to Pillow's."""

    photos: str
    method: str
    threads: int
    rate: float
    ratio: float
    lowest_ratio: float
    highest_ratio: float
    distance_median: float
    distance_max: float


def by_pillow(recipe: Preprocessing) -> Method:
    """Return decoding by Pillow, turned upright, with its bicubic resize and centre crop."""
    crop_height, crop_width = recipe.crop

    def prepare(data: bytes) -> Pixels:
        image = decode_image(data)
        width, height = recipe.scaled_size(image.size)
        left, top = round((width - crop_width) / 2), round((height - crop_height) / 2)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        return np.array(image.crop((left, top, left + crop_width, top + crop_height)))

    return prepare


def by_embedpipe(recipe: Preprocessing) -> Method:
    """Return the preparation of a backbone with this recipe."""
    return lambda data: to_pixels(decode_pixels(data, recipe), recipe)


def enlarge(data: bytes) -> bytes:
    """Return a photo at 3000 x 2000, or 2000 x 3000, as a JPEG of quality 90."""
    with Image.open(io.BytesIO(data)) as file:
        image = ImageOps.exif_transpose(file).convert("RGB")
    size = LARGE if image.width >= image.height else LARGE[::-1]
    buffer = io.BytesIO()
    ImageOps.fit(image, size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def measure(methods: dict[str, Method], files: list[bytes], threads: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each method for all files in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for number in range(rounds + 1):
            for name, method in methods.items():
                start = time.perf_counter()
                list(pool.map(method, files))
                if number:  # round 0 warms up
                    seconds[name].append(time.perf_counter() - start)
    return seconds


def distances(backbone: Backbone, a: list[Pixels], b: list[Pixels]) -> npt.NDArray[np.float64]:
    """Return the cosine distance between the vectors of each pair of images."""
    u, v = (embed(backbone, pixels) for pixels in (a, b))
    distance: npt.NDArray[np.float64] = 1 - (u * v).sum(1) / np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1)
    return distance


def embed(backbone: Backbone, pixels: list[Pixels]) -> npt.NDArray[np.float64]:
    """Embed in batches of 32."""
    parts = [backbone.forward(pixels[i : i + 32])["embedding"] for i in range(0, len(pixels), 32)]
    return np.concatenate(parts).astype(np.float64)


def compare(photos: str, files: list[bytes], backbone: Backbone, rounds: int) -> list[Speed]:
    """Measure all methods on these files, on one thread and on one thread per core."""
    full = backbone.spec.preprocessing
    assert isinstance(full, Preprocessing), "the default backbone takes images"
    methods = {
        "pillow": by_pillow(full),
        "full": by_embedpipe(full),
        "scaled": by_embedpipe(dataclasses.replace(full, decode="scaled")),
    }
    pixels = {name: [method(data) for data in files] for name, method in methods.items()}
    moved = {name: distances(backbone, pixels[name], pixels["pillow"]) for name in methods}
    rows = []
    for threads in sorted({1, os.cpu_count() or 1}):
        seconds = measure(methods, files, threads, rounds)
        for name in methods:
            ratios = [pillow / other for pillow, other in zip(seconds["pillow"], seconds[name], strict=True)]
            row = Speed(
                photos,
                name,
                threads,
                len(files) / statistics.median(seconds[name]),
                statistics.median(ratios),
                min(ratios),
                max(ratios),
                float(np.median(moved[name])),
                float(moved[name].max()),
            )
            rows.append(row)
            print(
                f"{row.photos:<10}{row.method:<8}{row.threads:>8}{row.rate:>11.1f}{row.ratio:>10.2f}"
                f"{row.lowest_ratio:>8.2f}{row.highest_ratio:>8.2f}{row.distance_median:>12.1e}{row.distance_max:>10.1e}",
                flush=True,
            )
    return rows


def main() -> int:
    """Measure ordinary photos and large ones."""
    parser = make_parser(__doc__)
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="folder of JPEG files (default: %(default)s)")
    parser.add_argument(
        "--limit", type=int, default=128, help="photos at their own size, spread over the folder (default: 128)"
    )
    parser.add_argument("--large", type=int, default=24, help="photos enlarged to 3000 x 2000 (default: 24)")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (default: 5)")
    options = parser.parse_args()
    if min(options.limit, options.large, options.rounds) < 1:
        parser.error("--limit, --large and --rounds must be >= 1")
    if not folder_exists(options.photos, "--photos"):
        return 0
    files = [path.read_bytes() for path in spread_out(list_photos(options.photos), options.limit)]
    large = [enlarge(data) for data in spread_out(files, options.large)]
    backbone = load_backbone(device="cpu")
    print(
        f"{'photos':<10}{'method':<8}{'threads':>8}{'images/s':>11}{'x Pillow':>10}{'lowest':>8}{'highest':>8}"
        f"{'1 - cosine':>12}{'largest':>10}"
    )
    rows = compare("ordinary", files, backbone, options.rounds) + compare("large", large, backbone, options.rounds)
    write_json(options, [dataclasses.asdict(row) for row in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
