"""Why do pixels differ from those of timm and open_clip, and what would it cost to have exactly theirs?

    python benchmarks/exact_pixels.py [--folder FOLDER] [--photos 100] [--json FILE]

The transforms of timm, open_clip and torchvision decode and resize by Pillow. Each photo is decoded by Pillow or by
embedpipe, and resized by Pillow or by embedpipe, in all four ways, for a square of 224 pixels; the times are of one
thread. The vectors are those of the default backbone.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from common import (
    CLOTHING,
    centred_cosine,
    folder_exists,
    list_photos,
    make_parser,
    markdown_table,
    spread_out,
    write_json,
)
from PIL import Image, ImageOps

from embedpipe import load_backbone
from embedpipe.decoding import Picture, Preprocessing, decode_pixels, to_pixels

Pixels = npt.NDArray[np.uint8]

RECIPE = Preprocessing(resize=(224,), crop=(224, 224), interpolation="bicubic")


def by_pillow(data: bytes) -> Image.Image:
    """Decode a photo as the libraries do."""
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


def by_embedpipe(data: bytes) -> Image.Image:
    """Decode a photo as embedpipe does, upright."""
    picture = decode_pixels(data, RECIPE)
    return Image.fromarray(np.ascontiguousarray(picture.upright(picture.pixels)))


def resized_by_pillow(image: Image.Image) -> Pixels:
    """Resize and crop as the transforms of torchvision do on images of Pillow."""
    width, height = RECIPE.scaled_size(image.size)
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    scaled = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(scaled.crop((left, top, left + 224, top + 224)))


def resized_by_embedpipe(image: Image.Image) -> Pixels:
    """Resize and crop as embedpipe does."""
    return to_pixels(Picture(np.array(image), image.size), RECIPE)


WAYS: dict[str, tuple[Callable[[bytes], Image.Image], Callable[[Image.Image], Pixels]]] = {
    "Pillow, Pillow (the libraries)": (by_pillow, resized_by_pillow),
    "Pillow, torch": (by_pillow, resized_by_embedpipe),
    "embedpipe's decoder, Pillow": (by_embedpipe, resized_by_pillow),
    "embedpipe's decoder, torch": (by_embedpipe, resized_by_embedpipe),
}


def measure(files: list[Path]) -> list[list[str]]:
    """Return a row for each way: differences to the libraries' pixels and vectors, and times."""
    backbone = load_backbone(device="cpu")
    taken: dict[str, list[Pixels]] = {name: [] for name in WAYS}
    seconds = dict.fromkeys(WAYS, 0.0)
    for file in files:
        data = file.read_bytes()
        for name, (decode, resize) in WAYS.items():
            image = decode(data)
            start = time.process_time()
            taken[name].append(resize(image))
            seconds[name] += time.process_time() - start
    vectors = {name: backbone.forward(pixels)["embedding"] for name, pixels in taken.items()}
    first = next(iter(WAYS))
    rows = []
    for name, pixels in taken.items():
        differences = np.abs(np.stack(pixels).astype(int) - np.stack(taken[first]))
        cosine = centred_cosine(vectors[name], vectors[first]).min()
        rows.append(
            [
                name,
                f"{np.mean(differences > 0):.2%}",
                f"{differences.mean():.1e}",
                str(differences.max()),
                f"{1 - cosine:.1e}",
                f"{1000 * seconds[name] / len(files):.2f}",
            ]
        )
    return rows


def main() -> None:
    """Print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--folder", type=Path, default=CLOTHING)
    parser.add_argument("--photos", type=int, default=100)
    options = parser.parse_args()
    if not folder_exists(options.folder, "--folder"):
        sys.exit(1)
    rows = measure(spread_out(list_photos(options.folder, "--folder"), options.photos))
    heads = ["decoded by, resized by", "other values", "mean difference", "largest", "1 - worst cosine", "ms to resize"]
    print(markdown_table([heads, *rows]))
    write_json(options, [dict(zip(heads, row, strict=True)) for row in rows])


if __name__ == "__main__":
    main()
