"""Does `clean` find copies of pictures, and only copies? Planted ones, by kind, beside a cosine of 0.95 alone.

    python benchmarks/planted_duplicates.py FOLDER [--planted 200] [--limit N] [--cut COLUMNS ROWS] [--json FILE]

Of some photos of the folder one copy each is planted per kind: re-encoded, resized, cropped at a random place,
mirrored, with a watermark. A copy is found if it is in one group with its original. Pairs of originals that were there
before count as wrong, so the precision is a lower bound: look at them (`--page`). With --cut, each photo is cut into
parts first, which makes many small pictures of a few photos; pairs of parts of one photo, such as the two sides of a
shirt, are counted apart too. At the end: the seconds of processor time that the
duplicates take, and what the hashes cost, as a share of what the same photos take to be decoded, resized and embedded.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import make_parser, markdown_table, write_json
from PIL import Image, ImageDraw, ImageFont
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import radius_neighbors_graph

import embedpipe
from embedpipe.cleaning.clean import clean
from embedpipe.decoding.hashing.perceptual import perceptual_hash
from embedpipe.decoding.picture import decode_pixels
from embedpipe.neighbours.duplicates import near_duplicate_groups
from embedpipe.splits.stored_hashes import stored_hashes

SUFFIXES = (".jpg", ".jpeg", ".png")
#: Of the clothing photos, one pair differs by 0.3 grey levels; the next differ by 10, and show other things.
SAME = 2
RNG = np.random.default_rng(0)


def encoded(image: Image.Image, quality: int = 85) -> bytes:
    """Return a JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def cropped(image: Image.Image, share: float) -> Image.Image:
    """Cut off a share of each side's length, at a random place."""
    width, height = (round(side * (1 - share)) for side in image.size)
    left, top = (
        int(RNG.integers(0, whole - part + 1)) for whole, part in zip(image.size, (width, height), strict=True)
    )
    return image.crop((left, top, left + width, top + height))


def watermarked(image: Image.Image) -> Image.Image:
    """Write half-transparent words over the lower part."""
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    width, height = image.size
    place, font = (0.08 * width, 0.75 * height), ImageFont.load_default(size=max(12, width // 9))
    ImageDraw.Draw(layer).text(place, "© SAMPLE 2024", font=font, fill=(255, 255, 255, 150))
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


KINDS: dict[str, Callable[[Image.Image], bytes]] = {
    "re-encoded, quality 50": lambda image: encoded(image, 50),
    "half the size": lambda image: encoded(image.resize((image.width // 2, image.height // 2))),
    "cropped by 5 %": lambda image: encoded(cropped(image, 0.05)),
    "cropped by 10 %": lambda image: encoded(cropped(image, 0.10)),
    "mirrored": lambda image: encoded(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "watermark": lambda image: encoded(watermarked(image)),
}
BOTH = list(KINDS)[:2]


def same_photos(photos: list[Path]) -> npt.NDArray[np.int32]:
    """Return a number for each photo, which is equal where a photo is there twice."""
    pixels = []
    for photo in photos:
        with Image.open(photo) as image:
            pixels.append(np.asarray(image.convert("RGB").resize((24, 24), Image.Resampling.BOX), np.float32).ravel())
    nearer = radius_neighbors_graph(np.array(pixels), SAME * np.sqrt(pixels[0].size))
    return np.asarray(connected_components(nearer, directed=False)[1])


def cut(photos: list[Path], columns: int, rows: int, folder: Path) -> list[Path]:
    """Write the parts of each photo, and return their files."""
    folder.mkdir()
    parts = []
    for number, photo in enumerate(photos):
        with Image.open(photo) as image:
            whole = image.convert("RGB")
        width, height = whole.width // columns, whole.height // rows
        for column, row in np.ndindex(columns, rows):
            left, top = column * width, row * height
            parts.append(folder / f"{number:05d}-{column}-{row}.jpg")
            whole.crop((left, top, left + width, top + height)).save(parts[-1], quality=92)
    return parts


def plant(photos: list[Path], planted: int, folder: Path) -> None:
    """Write the photos, and copies of other ones of them for each kind, as ``KIND~NUMBER.jpg``."""
    folder.mkdir()
    for number, photo in enumerate(photos):
        shutil.copyfile(photo, folder / f"original~{number}{photo.suffix}")
    order = RNG.permutation(len(photos))
    for place, (kind, change) in enumerate(KINDS.items()):
        for number in np.roll(order, -place * planted)[:planted]:
            with Image.open(photos[number]) as image:
                (folder / f"{kind}~{number}.jpg").write_bytes(change(image.convert("RGB")))


def measure(ids: list[str], groups: Any, photo_of: npt.NDArray[Any]) -> dict[str, Any]:
    """Return the recall of each kind, and the pairs of originals in one group, also without those of one photo.

    ``photo_of`` has the photo of each original.
    """
    kinds, numbers = zip(*(Path(id).stem.split("~") for id in ids), strict=True)
    original = {
        number: row for row, (kind, number) in enumerate(zip(kinds, numbers, strict=True)) if kind == "original"
    }
    found = {kind: [0, 0] for kind in KINDS}
    for row, kind in enumerate(kinds):
        if kind != "original":
            found[kind][0] += int(groups[row] == groups[original[numbers[row]]])
            found[kind][1] += 1
    # Originals of one group beyond the first are pairs that were not planted.
    rows = np.array(list(original.values()))
    wrong = len(rows) - len(np.unique(groups[rows]))
    photos = np.unique(np.column_stack([groups[rows], photo_of[np.array(list(original), int)]]), axis=0)
    apart = len(photos) - len(np.unique(groups[rows]))
    found["re-encoded and resized"] = [sum(found[kind][place] for kind in BOTH) for place in (0, 1)]
    table = {
        kind: {
            "recall": hits / count,
            "precision": hits / max(1, hits + wrong),
            "precision, other photos": hits / max(1, hits + apart),
        }
        for kind, (hits, count) in found.items()
    }
    return {"kinds": table, "not planted": int(wrong), "of other photos": apart}


def timed(ids: list[str], photo_of: npt.NDArray[Any], find: Callable[[], Any]) -> tuple[dict[str, Any], float]:
    """Return what `measure` does of the groups, and the seconds of processor time to find them."""
    start = time.process_time()
    groups = find()
    seconds = time.process_time() - start
    return measure(ids, groups, photo_of), seconds


def cost(photos: list[Path]) -> dict[str, float]:
    """Return the milliseconds of processor time that a photo takes, and the share of the hash."""
    backbone = embedpipe.load_backbone(device="cpu").accelerated(10_000)
    payloads = [photo.read_bytes() for photo in photos]
    backbone.forward([backbone.prepare(payload).value for payload in payloads[:32]])
    spent = {"all": -time.process_time()}
    for start in range(0, len(payloads), 64):
        backbone.forward([backbone.prepare(payload).value for payload in payloads[start : start + 64]])
    spent["all"] += time.process_time()
    pictures = [decode_pixels(payload, backbone.spec.preprocessing) for payload in payloads]
    spent["hash"] = -time.process_time()
    for picture in pictures:
        perceptual_hash(picture)
    spent["hash"] += time.process_time()
    return {name: 1000 * value / len(photos) for name, value in spent.items()} | {"share": spent["hash"] / spent["all"]}


def main() -> None:
    """Plant, embed, clean, and print a table."""
    parser = make_parser(__doc__)
    parser.add_argument("folder", type=Path, help="Photos.")
    parser.add_argument("--planted", type=int, default=200, help="Copies of each kind.")
    parser.add_argument("--limit", type=int, help="Take so many photos.")
    parser.add_argument("--cut", type=int, nargs=2, metavar=("COLUMNS", "ROWS"), help="Cut each photo into parts.")
    parser.add_argument("--image-size", type=int, help="Side of the pictures that the network sees.")
    parser.add_argument("--page", type=Path, help="Write the findings as a page.")
    options = parser.parse_args()
    photos = sorted(path for path in options.folder.rglob("*") if path.suffix.lower() in SUFFIXES)[: options.limit]
    with tempfile.TemporaryDirectory() as folder:
        photo_of = np.repeat(same_photos(photos), np.prod(options.cut or 1))
        if options.cut:
            photos = cut(photos, *options.cut, Path(folder) / "parts")
        plant(photos, options.planted, Path(folder) / "photos")
        store = embedpipe.embed(
            Path(folder) / "photos", Path(folder) / "store", device="cpu", image_size=options.image_size
        )
        findings = clean(store)
        if options.page:
            findings.to_html(options.page)
        ids = store.to_arrow(["id"])["id"].combine_chunks()
        X = store.to_numpy()
        hashes = stored_hashes(store, ids)
        by_hashes, took = timed(ids.to_pylist(), photo_of, lambda: near_duplicate_groups(X, hashes=hashes))
        by_cosine, took_exact = timed(ids.to_pylist(), photo_of, lambda: near_duplicate_groups(X))
        spent = cost(photos[:300])
    shown = {"recall": "", "precision": "not planted", "precision, other photos": "of other photos"}
    rows = [["kind", *(f"{name}{way}" for way in ("", ", by cosine") for name in shown)]]
    for kind in by_hashes["kinds"]:
        rows.append([kind, *(f"{by['kinds'][kind][name]:.3f}" for by in (by_hashes, by_cosine) for name in shown)])
    counts = [str(by.get(name, "")) for by in (by_hashes, by_cosine) for name in shown.values()]
    rows.append(["pairs that count as wrong", *counts])
    print(markdown_table(rows))
    print(f"{len(ids):,} rows x {X.shape[1]}: duplicates {took:.1f} s, all pairs of cosines {took_exact:.1f} s")
    print(f"hash: {spent['hash']:.2f} ms of {spent['all']:.1f} ms a photo, {spent['share']:.1%}")
    print(f"{len(photos):,} photos, clean took {findings.seconds:.0f} s: {findings.counts}")
    results = {"hashes": by_hashes, "cosine": by_cosine, "cost": spent, "counts": findings.counts}
    write_json(options, results | {"seconds": {"hashes": took, "cosine": took_exact}})


if __name__ == "__main__":
    main()
