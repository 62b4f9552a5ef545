"""The test pictures as every learner sees them: as they are, corrupted, or the user's own shifted ones."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe._utils.atomic import whole_file
from embedpipe._utils.config import usable_cores
from embedpipe._utils.progress import Progress
from embedpipe.errors import UsageError
from embedpipe.finetuning.benchmark.corruptions import CORRUPTIONS, corrupt
from embedpipe.finetuning.benchmark.options import BenchmarkOptions
from embedpipe.finetuning.training.images import ImageSet, Rows

Pixels = npt.NDArray[np.uint8]
#: How the test rows themselves are named.
CLEAN = "test"
#: Left out: it is the one that is held out in the paper, to tune on.
HELD_OUT = "saturate"
#: Pictures that are worked on at a time.
PART = 64
#: Share of the free disk that the pictures may take.
MOST_DISK = 0.5


@dataclass(frozen=True)
class View:
    """Pictures that all learners are measured on, on disk.

    Attributes
    ----------
    name : str
        `CLEAN`, `SHIFTED` or a corruption.
    severity : int
        0 but for corruptions.
    rows : int64 array (n,)
        Positions of the rows that the pictures are of.
    path : path
        A NumPy file, uint8 (n, h, w, 3).
    """

    name: str
    severity: int
    rows: Rows
    path: Path

    @property
    def vectors(self) -> Path:
        """A NumPy file of the frozen network's vectors of them, where those are not stored."""
        return self.path.with_suffix(".vectors.npy")

    def parts(self) -> Iterator[Pixels]:
        """Yield the pictures, uint8 (up to 64, h, w, 3), writable."""
        pixels = np.load(self.path, mmap_mode="r")
        for start in range(0, len(pixels), PART):
            yield np.array(pixels[start : start + PART])


def kinds_of_shift(options: BenchmarkOptions) -> list[tuple[str, int]]:
    """Return corruptions and severities to measure. Raises UsageError if there is no such corruption."""
    named = options.corruptions or tuple(name for name in CORRUPTIONS if name != HELD_OUT)
    if named == ("none",):
        return []
    pixels = np.zeros((8, 8, 3), np.uint8)
    for name in named:
        corrupt(pixels, name, 1, 0)
    return [(name, severity) for name in named for severity in options.severities]


def decoded(images: ImageSet, rows: Rows, name: str, folder: Path, progress: Progress) -> View:
    """Decode pictures as the network sees them; those that fail are left out, and are in ``images.failed``.

    Raises TrainingDataError if all do.
    """
    path = folder / f"{name}-0.npy"
    kept = [np.empty(0, np.int64)]
    with (
        written(path, (len(rows), *images.recipe.crop, 3), np.uint8) as pixels,
        progress.step(f"reading the {name} pictures", len(rows), "pictures") as advance,
    ):
        for part, values in images.batches(rows, PART):
            start = sum(map(len, kept))
            pixels[start : start + len(part)] = values.numpy()
            kept.append(part)
            advance(len(part))
        found = np.concatenate(kept)
        images.require(len(found), len(rows), name)
    if len(found) < len(rows):
        good = np.load(path, mmap_mode="r")[: len(found)]
        with written(path, good.shape, np.uint8) as pixels:
            pixels[:] = good
    return View(name, 0, found, path)


def corrupted(clean: View, kinds: list[tuple[str, int]], ids: list[str], progress: Progress) -> list[View]:
    """Corrupt pictures in all these ways, each by a number of its row's id; what is there already is kept.

    Raises
    ------
    UsageError
        If there is too little room for them.
    """
    folder = clean.path.parent
    views = [View(name, severity, clean.rows, folder / f"{name}-{severity}.npy") for name, severity in kinds]
    missing = [view for view in views if not view.path.exists()]
    size, free = len(missing) * clean.path.stat().st_size, shutil.disk_usage(folder).free
    if size > MOST_DISK * free:
        raise UsageError(
            f"corrupted copies of {len(clean.rows)} test pictures take {size / 1e9:.1f} GB of the {free / 1e9:.1f} GB "
            f"that are free beside {str(folder)!r}: measure fewer (--severities 3), or none (--corruptions none)"
        )
    seeds = [seed_of(ids[row]) for row in clean.rows.tolist()]
    with (
        ThreadPoolExecutor(usable_cores()) as pool,
        progress.step("corrupting the test pictures", len(missing) * len(seeds), "pictures") as advance,
    ):
        for view in missing:
            with written(view.path, np.load(clean.path, mmap_mode="r").shape, np.uint8) as pixels:
                start = 0
                for part in clean.parts():
                    some = seeds[start : start + len(part)]
                    found = pool.map(_corruption(view), part, some)
                    pixels[start : start + len(part)] = np.stack(list(found))
                    start += len(part)
                    advance(len(part))
    return views


def _corruption(view: View) -> Callable[[Pixels, int], Pixels]:
    return lambda pixels, seed: corrupt(pixels, view.name, view.severity, seed)


def seed_of(id: str) -> int:
    """Return a number for a row, always the same."""
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:6], "big")


@contextmanager
def written(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> Iterator[npt.NDArray[Any]]:
    """Give an array on disk; its NumPy file is there once the block has filled it."""
    with whole_file(path) as part:
        values = np.lib.format.open_memmap(part, "w+", dtype, shape)
        yield values
        values.flush()
