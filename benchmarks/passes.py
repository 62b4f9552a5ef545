"""How many images should go through torch at a time on a CPU, and do the bits depend on it?

    python benchmarks/passes.py [--network NAME ...] [--images 64] [--turns 3] [--threads N]

For each network: milliseconds for an image in passes of 1 to 32 images, the best of some turns in which each size has
one, and the largest move of a vector, relative to passes of 4, when the number of images in a pass changes. Random
weights: neither depends on their values. A pass has as many images as threads at least.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import PHOTOS, list_photos, make_parser, markdown_table, seconds, write_json
from networks import NETWORKS, weights_of

import embedpipe
from embedpipe.backbones.engines import engine
from embedpipe.backbones.engines.choice import largest_distance

SIZES = (1, 2, 4, 8, 16, 32)


def measure(backbone: embedpipe.Backbone, images: int, turns: int) -> dict[int, tuple[float, float]]:
    """Return the milliseconds of an image, and how far its vector moves, for each number of images in a pass."""
    assert backbone.spec.preprocessing is not None
    size = (images, *backbone.spec.preprocessing.crop, 3)
    pixels = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    times: dict[int, list[float]] = {passes: [] for passes in SIZES}
    vectors: dict[int, list[Any]] = {}
    for passes in SIZES:  # which warms up, too
        engine.PART = passes
        vectors[passes] = list(backbone.forward(pixels).values())
    for _ in range(turns):
        for passes in SIZES:
            engine.PART = passes
            times[passes].append(seconds(lambda: backbone.forward(pixels)))
    return {
        passes: (1000 * min(taken) / images, largest_distance(vectors[4], vectors[passes]))
        for passes, taken in times.items()
    }


def main() -> None:
    """Print a table: a row for each network."""
    parser = make_parser(__doc__)
    parser.add_argument("--network", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="photos that calibrate batch-norms")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    photos = list_photos(options.photos)
    rows = [["network", *map(str, SIZES)]]
    results = {}
    for network in options.network:
        backbone = embedpipe.load_backbone(f"timm/{network}", weights=weights_of(network, photos), device="cpu")
        results[network] = measure(backbone, options.images, options.turns)
        rows.append([NETWORKS[network], *(f"{taken:.1f} ({moved:.0e})" for taken, moved in results[network].values())])
    print(markdown_table(rows))
    write_json(options, results)


if __name__ == "__main__":
    main()
