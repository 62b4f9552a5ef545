"""The test rows on which all learners are measured: as they are, corrupted, and the user's own shifted ones."""

from __future__ import annotations

import hashlib
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from embedpipe._utils.atomic import whole_file
from embedpipe._utils.config import usable_cores
from embedpipe._utils.option_names import option
from embedpipe._utils.progress import Progress
from embedpipe.errors import UsageError
from embedpipe.finetuning.benchmark.corruptions import CORRUPTIONS, corrupt
from embedpipe.finetuning.benchmark.options import BenchmarkOptions
from embedpipe.finetuning.training.items.batches import Batch
from embedpipe.finetuning.training.items.image_set import ImageSet
from embedpipe.finetuning.training.items.item_set import ItemSet, Rows

Pixels = npt.NDArray[np.uint8]
#: Name of the test rows as they are.
CLEAN = "test"
#: Not measured by default: the paper holds this corruption out for tuning.
HELD_OUT = "saturate"
#: Items that are processed at a time.
PART = 64
#: Fraction of the free disk space that the images may take.
MAX_DISK = 0.5


@dataclass(frozen=True)
class View(ABC):
    """A version of the test items.

    Attributes
    ----------
    name : str
        `CLEAN`, `SHIFTED` or the name of a corruption.
    severity : int
        Severity of the corruption; 0 without one.
    rows : int64 array (n,)
        Positions of their rows.
    """

    name: str
    severity: int
    rows: Rows

    @abstractmethod
    def parts(self) -> Iterator[Batch]:
        """Yield the items in order, up to 64 at a time."""


@dataclass(frozen=True)
class TextView(View):
    """Test texts, whose tokens are in memory."""

    batches: list[Batch]

    def parts(self) -> Iterator[Batch]:
        """Yield the tokens of up to 64 texts."""
        return iter(self.batches)


@dataclass(frozen=True)
class ImageView(View):
    """A version of the test images on disk: a NumPy file, uint8 (n, h, w, 3)."""

    path: Path

    @property
    def vectors(self) -> Path:
        """A NumPy file of the features of corrupted images, which are not in the store."""
        return self.path.with_suffix(".vectors.npy")

    def parts(self) -> Iterator[torch.Tensor]:
        """Yield uint8 (up to 64, h, w, 3), which may be written to."""
        pixels = np.load(self.path, mmap_mode="r")
        for start in range(0, len(pixels), PART):
            yield torch.from_numpy(np.array(pixels[start : start + PART]))


def corruption_grid(options: BenchmarkOptions) -> list[tuple[str, int]]:
    """Return pairs of corruption and severity to measure. Raises UsageError for an unknown corruption."""
    names = options.corruptions or tuple(name for name in CORRUPTIONS if name != HELD_OUT)
    if names == ("none",):
        return []
    pixels = np.zeros((8, 8, 3), np.uint8)
    for name in names:
        corrupt(pixels, name, 1, 0)
    return [(name, severity) for name in names for severity in options.severities]


def read_view(items: ItemSet, rows: Rows, name: str, folder: Path, progress: Progress) -> View:
    """Prepare items for the network. Those that fail are left out, and noted in ``items.failed``.

    Raises TrainingDataError if all fail.
    """
    if isinstance(items, ImageSet):
        return _decode_images(items, rows, name, folder, progress)
    with progress.step(f"reading the {name} {items.noun}", len(rows), items.noun) as advance:
        kept, batches = [np.empty(0, np.int64)], []
        for part, batch in items.batches(rows, PART):
            kept.append(part)
            if len(part):
                batches.append(batch)
            advance(len(part))
        read = np.concatenate(kept)
        items.require(len(read), len(rows), name)
    return TextView(name, 0, read, batches)


def _decode_images(images: ImageSet, rows: Rows, name: str, folder: Path, progress: Progress) -> ImageView:
    """Decode images to the input size of the network, into a file."""
    path = folder / f"{name}-0.npy"
    kept = [np.empty(0, np.int64)]
    with (
        written(path, (len(rows), *images.recipe.crop, 3), np.uint8) as pixels,
        progress.step(f"reading the {name} images", len(rows), "images") as advance,
    ):
        for part, values in images.batches(rows, PART):
            start = sum(map(len, kept))
            assert isinstance(values, torch.Tensor)
            pixels[start : start + len(part)] = values.numpy()
            kept.append(part)
            advance(len(part))
        decoded = np.concatenate(kept)
        images.require(len(decoded), len(rows), name)
    if len(decoded) < len(rows):
        good = np.load(path, mmap_mode="r")[: len(decoded)]
        with written(path, good.shape, np.uint8) as pixels:
            pixels[:] = good
    return ImageView(name, 0, decoded, path)


def corrupt_images(
    clean: ImageView, kinds: list[tuple[str, int]], ids: list[str], progress: Progress
) -> list[ImageView]:
    """Apply each corruption to each image, seeded by the id of its row; existing files are kept.

    Raises
    ------
    UsageError
        If the disk has too little free space.
    """
    folder = clean.path.parent
    views = [ImageView(name, severity, clean.rows, folder / f"{name}-{severity}.npy") for name, severity in kinds]
    missing = [view for view in views if not view.path.exists()]
    size, free = len(missing) * clean.path.stat().st_size, shutil.disk_usage(folder).free
    if size > MAX_DISK * free:
        raise UsageError(
            f"corrupted copies of {len(clean.rows)} test images take {size / 1e9:.1f} GB, more than half of the "
            f"{free / 1e9:.1f} GB that are free in {str(folder)!r}: measure fewer ({option('severities', [3])}) or "
            "none "
            f"({option('corruptions', 'none')})"
        )
    seeds = [seed_of(ids[row]) for row in clean.rows.tolist()]
    with (
        ThreadPoolExecutor(usable_cores()) as pool,
        progress.step("corrupting the test images", len(missing) * len(seeds), "images") as advance,
    ):
        for view in missing:
            with written(view.path, np.load(clean.path, mmap_mode="r").shape, np.uint8) as pixels:
                start = 0
                for part in clean.parts():
                    part_seeds = seeds[start : start + len(part)]
                    corrupted = list(pool.map(_corruption(view), part.numpy(), part_seeds))
                    pixels[start : start + len(part)] = np.stack(corrupted)
                    start += len(part)
                    advance(len(part))
    return views


def _corruption(view: View) -> Callable[[Pixels, int], Pixels]:
    return lambda pixels, seed: corrupt(pixels, view.name, view.severity, seed)


def seed_of(id: str) -> int:
    """Return a seed for a row, a hash of its id."""
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:6], "big")


@contextmanager
def written(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> Iterator[npt.NDArray[Any]]:
    """Yield an array on disk. Its NumPy file is renamed to ``path`` when the block ends without an error."""
    with whole_file(path) as part:
        values = np.lib.format.open_memmap(part, "w+", dtype, shape)
        yield values
        values.flush()
