"""What the programs of the peers share: they load a network, warm up, and embed a folder of photos on each request.

A program runs in the peer's own Python, which may lack embedpipe. It prints a line of JSON when it is ready. For each
line on standard input it embeds the photos, writes their vectors to vectors.npy in the folder OUT, in order of file
name, and prints the seconds as a line of JSON.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

BATCH = 32


@dataclass(frozen=True)
class Task:
    """The task of a program: a timm network, its weights (with the folder of the model beside them), device, output."""

    network: str
    weights: Path
    device: str
    precision: str
    out: Path

    @property
    def folder(self) -> Path:
        """The model as a folder with ``config.json`` and ``model.safetensors``."""
        return self.weights.with_suffix("")

    @property
    def dtype(self) -> torch.dtype:
        """The precision as a torch dtype."""
        return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[self.precision]


Vectors = npt.NDArray[np.float32]

#: Embeds the photos of a folder, and returns their vectors in order of file name, or a function that reads the vectors.
#: That function is not timed.
Embed = Callable[[Path], Vectors | Callable[[], Vectors]]


def photos_in(folder: Path) -> list[Path]:
    """Return the photos of a folder in order of file name."""
    return sorted(folder.iterdir())


def run(load: Callable[[Task], Embed], packages: tuple[str, ...]) -> None:
    """Run the program. ``load`` returns the function that embeds a folder of photos."""
    parser = argparse.ArgumentParser()
    for name in ("warm", "photos", "weights", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("network", "device", "precision"):
        parser.add_argument(f"--{name}", required=True)
    options = vars(parser.parse_args())
    warm, photos = options.pop("warm"), options.pop("photos")
    task = Task(**options)
    # Output of the library goes to standard error, so that standard output has only the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    start = time.perf_counter()
    embed = load(task)
    loaded = time.perf_counter()
    embed(warm)
    answer(
        load_seconds=loaded - start,
        warm_up_seconds=time.perf_counter() - loaded,
        torch_threads=torch.get_num_threads(),
        versions={name: importlib.metadata.version(name) for name in ("torch", "pillow", *packages)},
    )
    for _ in sys.stdin:
        start = time.perf_counter()
        result = embed(photos)
        seconds = time.perf_counter() - start
        np.save(task.out / "vectors.npy", result() if callable(result) else result)
        answer(seconds=seconds)
